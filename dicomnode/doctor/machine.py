"""What this machine gives: room, weights and an engine for them, the time."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from dicomnode import bookkeeping, timekeeping
from dicomnode.bookkeeping import BooksAway, BooksOutdated
from dicomnode.config import Settings
from dicomnode.doctor.finding import Finding
from inference import weights
from inference.weights import WeightsError

ROOM = 5 * 1024**3  # bytes; about twenty studies with their maps
APART = 2.0  # seconds that our clock and the database's may differ; leases last 20
INSTALL_AGAIN = "mend [processing] weights, or install the package again"


def data_dir(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The folder of everything is there and ours."""
    folder = settings.node.data_dir
    if not folder.is_dir():
        remedy = "run `dicomnode init` beside node.toml, or `dicomnode migrate`"
        yield Finding("data_dir", f"{folder} does not exist", remedy)
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("data_dir", f"{folder} is not writable for this account", f"chown it to user {os.getuid()}")
    else:
        yield Finding("data_dir", str(folder))


def disk(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Room for a day's work."""
    folder = settings.node.data_dir
    here = next(p for p in (folder, *folder.parents) if p.exists())
    stat = os.statvfs(here)
    free = stat.f_bavail * stat.f_frsize
    remedy = "" if free >= ROOM else f"free {ROOM / 1024**3:.0f} GiB, or move data_dir to a larger disk"
    yield Finding("disk", f"{free / 1024**3:.1f} GiB free", remedy)


def weights_(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The weights are whole, and may be used for what they are used for."""
    try:
        manifest = weights.verify(settings.weights_folder)
    except WeightsError as error:
        yield Finding("weights", str(error), INSTALL_AGAIN)
        return
    locked = settings.node.intended_use == "clinical"
    remedy = 'clinical use needs accepted weights; set intended_use = "research"' if locked else ""
    yield Finding("weights", f"{manifest.name} {manifest.version}, {manifest.training_domain}, digest right", remedy)


def engine(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The weights load into what computes; this version computes on the CPU, with or without a GPU beside it."""
    from dicomnode import pipeline  # torch takes seconds to import, and only this check wants it

    try:
        _manifest, loaded = pipeline.engine(settings)
    except WeightsError as error:
        yield Finding("engine", str(error), INSTALL_AGAIN)
        return
    cores, threads = os.cpu_count() or 1, loaded.threads
    remedy = f"set [processing] threads to {cores} at most, or 0" if threads > cores else ""
    yield Finding("engine", f"{settings.processing.engine} on the CPU, {threads} threads of {cores} cores", remedy)


def clock(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Our clock agrees with the database server's; the kernel's word on the time service is told, not judged."""
    unkept = timekeeping.synchronised() is False
    kept = "; the kernel knows of no time service (containers may not see it)" if unkept else ""
    try:
        opened = bookkeeping.open_books(settings.books_url)
        offset = timekeeping.look(opened, lambda: datetime.now(UTC)).offset
        bookkeeping.close(opened)
    except (BooksOutdated, BooksAway):
        yield Finding("clock", f"the books cannot tell{kept}", "mend the books first")
        return
    if offset is None:
        yield Finding("clock", f"SQLite has no other clock to compare with{kept}")
        return
    far = abs(offset) > APART
    remedy = "have a time service (chrony, systemd-timesyncd) keep the clocks of both hosts" if far else ""
    yield Finding("clock", f"{offset:+.2f} s from the database server's{kept}", remedy)
