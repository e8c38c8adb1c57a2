"""The one way in: DIMSE and STOW-RS both call receive()."""

from dataclasses import dataclass
from datetime import datetime

from dicomnode import bookkeeping, header
from dicomnode.bookkeeping import Books, Peer, Received
from dicomnode.spool import Spool
from inference.refusal import Refused


@dataclass(frozen=True, slots=True)
class Intake:
    """Where received instances go."""

    books: Books
    spool: Spool

    def receive(self, part10: bytes, peer: Peer, now: datetime) -> None:
        """Keep one instance: durable on disk, then recorded; only then may the sender be told Success.

        part10: a whole DICOM file, as received. Raises Refused where it cannot be filed (the bytes are in quarantine,
        the reason in the books), OSError where the disk and bookkeeping.BooksAway where the books cannot take it.
        """
        try:
            head = header.read(part10)
        except Refused as refusal:
            where = self.spool.quarantine(part10)
            why = f"from {peer.calling_ae_title} at {peer.address}: {refusal.sentence}; kept as {where}"
            bookkeeping.note_refusal(self.books, "instance", where, refusal.code, why, now)
            raise
        path = self.spool.keep(part10)
        if not bookkeeping.note_instance(self.books, _received(head, path, len(part10)), peer, now):
            self.spool.remove(path)  # these very bytes are here already


def _received(head: header.Header, path: str, size: int) -> Received:
    said = head.elements
    return Received(
        study_instance_uid=said["StudyInstanceUID"],
        series_instance_uid=said["SeriesInstanceUID"],
        sop_instance_uid=said["SOPInstanceUID"],
        sop_class_uid=said["SOPClassUID"],
        patient_id=said["PatientID"],
        accession_number=said["AccessionNumber"],
        modality=said["Modality"],
        series_description=said["SeriesDescription"],
        transfer_syntax=head.transfer_syntax,
        sha256=head.sha256,
        path=path,
        bytes=size,
    )
