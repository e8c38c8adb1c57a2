"""The one way in: DIMSE and STOW-RS both come through here."""

import logging
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode import bookkeeping, header
from dicomnode.bookkeeping import Books, Peer, Received
from dicomnode.crashpoints import crashpoint
from dicomnode.group_commit import GroupCommit
from dicomnode.spool import Part, Spool
from inference.refusal import Refused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intake:
    """Where received instances go."""

    books: Books
    spool: Spool
    _commits: GroupCommit = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_commits", GroupCommit(self.books, self.spool))

    def receive(self, part10: bytes, peer: Peer, now: datetime) -> None:
        """Keep one instance that is a whole DICOM file in memory; promises and raises what file() does."""
        start = header.data_set_start(part10)
        part = self.spool.part(part10[:start])
        with part:
            part.write(memoryview(part10)[start:])
            self.file(part, peer, now)

    def file(self, part: Part, peer: Peer, now: datetime) -> None:
        """File one instance whose bytes are all written: durable on disk, then recorded; only then comes Success.

        Raises Refused where it cannot be filed (the bytes are in quarantine, the reason in the books), OSError where
        the disk and bookkeeping.BooksAway where the books cannot take it. What was not recorded is not kept.
        """
        try:
            with part.reading() as stream:
                elements, syntax = header.of_stream(stream, part.bytes)
        except Refused as refusal:
            where = part.quarantine()
            crashpoint("quarantine.kept")
            note_quarantined(self.books, where, refusal, peer, now)
            raise
        received = as_received(elements, syntax, part.sha256, part.keep(), part.bytes)
        self._record(received, peer, now)
        crashpoint("receive.recorded")

    def _record(self, received: Received, peer: Peer, now: datetime) -> None:
        try:
            known_as = self._commits.record(received, peer, now)
        except bookkeeping.CommitInDoubt:
            log.error("nobody knows whether %s is recorded; it stays, and the next start settles it", received.path)
            raise
        except Exception:
            self.spool.remove(received.path)
            raise
        keep_one(self.books, self.spool, known_as, received.path)


def keep_one(books: Books, spool: Spool, known_as: str | None, path: str) -> None:
    """Where these very bytes are known already under another path, one file is enough; but one there must be."""
    if known_as is None or known_as == path:
        return
    if spool.path(known_as).exists():
        spool.remove(path)
    else:
        bookkeeping.move_instance(books, known_as, path)
        log.warning("%s had gone; %s with the same bytes stands in for it", known_as, path)


def note_quarantined(books: Books, where: str, refusal: Refused, peer: Peer, now: datetime) -> None:
    """Record that bytes were set aside, and why."""
    why = f"from {peer.calling_ae_title} at {peer.address}: {refusal.sentence}; kept as {where}"
    bookkeeping.note_refusal(books, "instance", where, refusal.code, why, now)


def as_received(elements: header.Elements, syntax: str, sha256: str, path: str, size: int) -> Received:
    """The row of an instance from the elements of its header."""
    return Received(
        study_instance_uid=elements["StudyInstanceUID"],
        series_instance_uid=elements["SeriesInstanceUID"],
        sop_instance_uid=elements["SOPInstanceUID"],
        sop_class_uid=elements["SOPClassUID"],
        patient_id=elements["PatientID"],
        accession_number=elements["AccessionNumber"],
        modality=elements["Modality"],
        series_description=elements["SeriesDescription"],
        transfer_syntax=syntax,
        sha256=sha256,
        path=path,
        bytes=size,
    )
