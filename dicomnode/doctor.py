"""Is this node fit to work? Each check says what it found and, where something is wrong, the remedy."""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pynetdicom.sop_class import Verification

from dicomnode import bookkeeping, sender, tls
from dicomnode.bookkeeping import BooksAway, BooksOutdated
from dicomnode.config import ConfigError, Destination, Settings, Tls
from dicomnode.roles import Role
from dicomnode.sender import Unreachable, web
from inference import weights
from inference.weights import WeightsError

EXPIRY_WARNING = 30  # days
TLS_PATIENCE = 5.0  # seconds
SERVICES = {"listen": "the listener", "web": "the web service"}
ROOM = 5 * 1024**3  # bytes; about twenty studies with their maps


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. remedy is empty where all is well."""

    check: str
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn."""
    yield _data_dir(settings.node.data_dir)
    yield _disk(settings.node.data_dir)
    yield _books(settings)
    yield _weights(settings)
    yield _sources(settings)
    yield _port(settings)
    now = datetime.now(UTC)
    if settings.listen.tls.certificate:
        yield _tls(settings.listen.tls, now)
    if settings.web.enabled:
        yield _accounts(settings)
        if settings.web.tls.certificate:
            yield _tls(Tls(settings.web.tls.certificate, settings.web.tls.key), now, "web")
    yield from _destinations(settings)


def _data_dir(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding(
            "data_dir", f"{folder} does not exist", "run `dicomnode init` beside node.toml, or `dicomnode migrate`"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("data_dir", f"{folder} is not writable for this account", f"chown it to user {os.getuid()}")
    return Finding("data_dir", str(folder))


def _disk(folder: Path) -> Finding:
    here = next(p for p in (folder, *folder.parents) if p.exists())
    stat = os.statvfs(here)
    free = stat.f_bavail * stat.f_frsize
    words = f"{free / 1024**3:.1f} GiB free"
    return Finding(
        "disk", words, "" if free >= ROOM else f"free {ROOM / 1024**3:.0f} GiB, or move data_dir to a larger disk"
    )


def _books(settings: Settings) -> Finding:
    try:
        bookkeeping.open_books(settings.books_url)
    except BooksOutdated as outdated:
        return Finding("books", str(outdated), "run `dicomnode migrate`")
    except BooksAway as away:
        return Finding(
            "books", str(away.orig), "start the database, or mend [books] url; for a new SQLite run `dicomnode migrate`"
        )
    return Finding("books", "reachable, tables of this version")


def _weights(settings: Settings) -> Finding:
    try:
        manifest = weights.verify(settings.weights_folder)
    except WeightsError as error:
        return Finding("weights", str(error), "mend [processing] weights, or install the package again")
    locked = settings.node.intended_use == "clinical"
    remedy = 'clinical use needs accepted weights; set intended_use = "research"' if locked else ""
    return Finding("weights", f"{manifest.name} {manifest.version}, {manifest.training_domain}, digest right", remedy)


def _sources(settings: Settings) -> Finding:
    if not settings.source:
        return Finding("sources", "none", "nobody may send: add a [[source]] to node.toml")
    return Finding("sources", ", ".join(f"{s.ae_title} from {' '.join(s.addresses)}" for s in settings.source))


def _port(settings: Settings) -> Finding:
    address = (settings.listen.host, settings.listen.port)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            return Finding("port", f"{address[1]} needs privileges", "choose a port above 1023 in [listen]")
        except OSError as error:
            ours = _answers(settings)
            words = f"{address[1]} is held by {'our listener' if ours else 'another program'} ({error.strerror})"
            return Finding("port", words, "" if ours else "end that program, or change [listen] port")
    return Finding("port", f"{address[1]} is free: the listener is not running")


def _accounts(settings: Settings) -> Finding:
    """Nobody gets in by default, so the first administrator has to be made by hand."""
    try:
        accounts = bookkeeping.accounts(bookkeeping.open_books(settings.books_url))
    except (BooksOutdated, BooksAway):
        return Finding("accounts", "the books cannot tell", "mend the books first")
    administrators = [account.name for account, _ in accounts if account.role is Role.ADMINISTRATOR]
    remedy = "" if administrators else "run `dicomnode account add NAME --role administrator`"
    return Finding("accounts", f"{len(accounts)}, administrators: {', '.join(administrators) or 'none'}", remedy)


def _tls(files: Tls, now: datetime, section: str = "listen") -> Finding:
    check = "tls" if section == "listen" else f"{section} tls"
    renew = "put a renewed certificate in its place and restart " + SERVICES[section]
    try:
        ends = tls.ends_at(files, section)
    except ConfigError as error:
        return Finding(check, str(error), f"mend the paths in [{section}] tls, or who may read the files")
    except ssl.SSLCertVerificationError as error:
        return Finding(check, f"senders refuse {files.certificate}: {error.verify_message}", renew)
    left = (ends - now).days
    words = f"{files.certificate} is good until {ends:%Y-%m-%d} ({left} days)"
    if section == "listen":
        shown = f"must show one by {files.client_ca}" if files.client_ca else "need none; see client_ca"
        words += f"; senders {shown}"
    return Finding(check, words, renew if left < EXPIRY_WARNING else "")


def _answers(settings: Settings) -> bool:
    """True where the program on our port speaks DICOM under our AE title, even if it rejects us."""
    host = "127.0.0.1" if settings.listen.host == "0.0.0.0" else settings.listen.host
    if settings.listen.tls.certificate:
        return _shows_our_certificate(host, settings.listen.port, settings.listen.tls)
    us = Destination("self", settings.node.ae_title, host, settings.listen.port)
    try:
        sender.associate(us, settings.node.ae_title, [Verification]).release()
    except Unreachable as answer:
        return "register it there" in str(answer)
    return True


def _shows_our_certificate(host: str, port: int, files: Tls) -> bool:
    try:
        shown = ssl.get_server_certificate((host, port), timeout=TLS_PATIENCE)
        return "".join(shown.split()) in "".join(Path(files.certificate).read_text().split())
    except OSError:
        return False


def _destinations(settings: Settings) -> Iterator[Finding]:
    if not settings.destination:
        yield Finding("destination", "none", "results would stay on the node: add a [[destination]] to node.toml")
    for destination in settings.destination:
        check = f"destination {destination.name}"
        if destination.stow_url:
            yield _web(check, destination)
            continue
        try:
            assoc = sender.associate(destination, settings.node.ae_title, [Verification])
        except Unreachable as why:
            yield Finding(check, str(why), "start the PACS, mend the entry, or register our AE title there")
            continue
        status = assoc.send_c_echo()
        assoc.release()
        ok = status.get("Status") == 0
        yield Finding(
            check, "answers C-ECHO" if ok else f"C-ECHO failed: {status}", "" if ok else "ask the PACS administrator"
        )


def _web(check: str, destination: Destination) -> Finding:
    try:
        return Finding(check, web.check(destination))
    except Unreachable as why:
        return Finding(check, str(why), "start the PACS, mend stow_url, or let us in there")
