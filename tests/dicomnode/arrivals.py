"""Instances as bytes on the wire, and their arrival without a wire."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from io import BytesIO

from pydicom import Dataset

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, OpenSeries, Peer
from dicomnode.intake import Intake
from dicomnode.jobs import Lane


def part10(ds: Dataset) -> bytes:
    """The data set as a DICOM file."""
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def peer(now: datetime, association: str = "A1", lane: Lane = Lane.STROKE) -> Peer:
    return Peer(association, "CT1", "127.0.0.1", now, lane)


def arrive(intake: Intake, datasets: Iterable[Dataset], now: datetime, association: str = "A1") -> None:
    """All of one association, and its release, at one moment."""
    for ds in datasets:
        intake.receive(part10(ds), peer(now, association), now)
    bookkeeping.release(intake.books, association, now)


def only_series(books: Books) -> OpenSeries:
    (series,) = bookkeeping.receiving(books)
    return series


def states(books: Books, uids: Sequence[str]) -> list[str]:
    """The states of the series of one study, in the order of their UIDs given."""
    story = bookkeeping.story(books, bookkeeping.find_studies(books, uids[0])[0])
    by_uid = {s.series_instance_uid: s.state.value for s in story.series}
    return [by_uid[uid] for uid in uids]
