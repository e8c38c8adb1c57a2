"""What a listener does before it listens: after a crash, disk and books are made to agree again.

A file is durable before its row is written, so that a crash leaves at worst a file without a row; a row without a file
comes only from outside (a disk lost, a folder emptied).
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from ulid import ULID

from dicomnode import bookkeeping, header, logs
from dicomnode.bookkeeping import Books, Peer
from dicomnode.crashpoints import crashpoint
from dicomnode.intake import as_received, keep_one, note_quarantined
from dicomnode.jobs import Lane
from dicomnode.spool import Spool
from inference.refusal import Refused

log = logging.getLogger(__name__)

RECOVERED = "(recovered)"  # stands for the calling AE title, which only the lost row knew


@dataclass(frozen=True, slots=True)
class Findings:
    """How many half-written files were cleared, files recorded, files set aside; files gone by series."""

    cleared: int
    recorded: int
    set_aside: int
    missing: Counter[str] = field(default_factory=Counter)


def recover(books: Books, spool: Spool, lane: Lane, now: datetime) -> Findings:
    """Reconcile disk and books both ways; only while no receiver of this host runs.

    lane: of studies whose sender is no longer known. Raises bookkeeping.BooksAway.
    """
    cleared = spool.clear_unreceived()
    strays, missing = set(spool.received()), Counter[str]()
    for path, series, purged in bookkeeping.instance_paths(books):
        if purged:
            if path in strays:  # the crash came between the mark and the removal
                strays.remove(path)
                spool.remove(path)
        elif path in strays:
            strays.remove(path)
        elif not spool.path(path).exists():
            missing[series] += 1
    for job_id in bookkeeping.purged_among(books, spool.result_folders()):
        spool.remove_results(job_id)
    peer = Peer(str(ULID.from_datetime(now)), RECOVERED, "this host", now, lane)
    recorded = sum(_file(books, spool, path, peer, now) for path in sorted(strays))
    bookkeeping.release(books, peer.association, now)
    for series, count in missing.items():
        _note_missing(books, series, count, now)
    if cleared or strays:
        words = "%d half-written files cleared, %d files without a row recorded, %d set aside"
        log.warning(words, cleared, recorded, len(strays) - recorded)
    return Findings(cleared, recorded, len(strays) - recorded, missing)


def _file(books: Books, spool: Spool, path: str, peer: Peer, now: datetime) -> bool:
    """Record one file that has no row; False where it cannot be read, and is in quarantine now."""
    try:
        head = header.of_path(spool.path(path))
    except Refused as refusal:
        note_quarantined(books, spool.set_aside(path), refusal, peer, now)
        return False
    received = as_received(head.elements, head.transfer_syntax, head.sha256, path, spool.path(path).stat().st_size)
    (known_as,) = bookkeeping.note_instances(books, [(received, peer, now)])
    keep_one(books, spool, known_as, path)
    crashpoint("recover.filed")
    return True


def _note_missing(books: Books, series: str, count: int, now: datetime) -> None:
    why = f"{count} received files of the series are gone from the disk; send the series again"
    if bookkeeping.note_missing(books, series, why, now):
        (study,) = bookkeeping.find_studies(books, series)
        with logs.about(study=bookkeeping.study_of(books, study).id):
            log.error("%s", why)
