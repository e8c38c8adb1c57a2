"""A job whose files are finished, and what the books say of their deliveries."""

from datetime import datetime

from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping
from dicomnode.bookkeeping import ACTOR, Books, Result
from dicomnode.jobs import State
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.test_bookkeeping import order, result, series_of


def finished_job(books: Books, spool: Spool, now: datetime, state: State = State.SENDING) -> str:
    """A job in SENDING, or still in PROCESSING, whose three captures lie in the spool, to be sent to "pacs"."""
    series_of(books, now)
    opened = bookkeeping.open_job(books, order(books), now, now)
    assert opened is not None
    bookkeeping.claim(books, opened, ACTOR, now)
    rows: list[Result] = []
    for n, ds in enumerate(phantom.head(phantom.even(12), matrix=16)[:3]):
        row = result(opened, n)
        row.sop_instance_uid = f"2.25.10{n}"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = row.sop_instance_uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.1", row.series_instance_uid
        spool.path(row.path).parent.mkdir(exist_ok=True)
        ds.save_as(spool.path(row.path), enforce_file_format=True)
        rows.append(row)
    bookkeeping.note_results(books, ACTOR, rows, [("pacs", frozenset({"sc", "pm"}))], now)
    if state is State.SENDING:
        bookkeeping.advance(books, opened, ACTOR, state, "3 files written", now)
    return opened


def told(books: Books) -> list[tuple[str, str, str | None, int]]:
    """Destination, state, status and how many, for the one study of the books."""
    return [(where, str(state), status, n) for _, where, state, status, n in bookkeeping.story(books, "1.1").deliveries]
