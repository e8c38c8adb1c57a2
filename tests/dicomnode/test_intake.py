"""dicomnode.intake: nothing is acknowledged that is not on disk and in the books."""

from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books
from dicomnode.intake import Intake
from dicomnode.spool import Spool
from inference.refusal import Refused
from tests import phantom
from tests.dicomnode.arrivals import arrive, only_series, part10, peer


@pytest.fixture
def intake(books: Books, spool: Spool) -> Intake:
    return Intake(books, spool)


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(12), matrix=32)


def kept(spool: Spool) -> list:
    return sorted((spool.root / "in").iterdir())


def test_the_bytes_are_kept_as_they_came_and_the_row_leads_to_them(intake: Intake, spool: Spool, head, now: datetime):
    intake.receive(part10(head[0]), peer(now), now)
    (instance,) = only_series(intake.books).instances
    assert spool.path(instance.path).read_bytes() == part10(head[0])
    assert instance.bytes == len(part10(head[0]))
    assert instance.sop_instance_uid == head[0].SOPInstanceUID
    assert instance.calling_ae_title == "CT1"


def test_a_series_sent_twice_is_kept_once(intake: Intake, spool: Spool, head, now: datetime):
    arrive(intake, head, now, "A1")
    arrive(intake, head, now, "A2")
    assert len(kept(spool)) == len(head) == len(only_series(intake.books).instances)


def test_what_cannot_be_filed_is_refused_with_its_bytes_and_reason_kept(intake: Intake, spool: Spool, now: datetime):
    with pytest.raises(Refused):
        intake.receive(b"not a data set", peer(now), now)
    (left,) = (spool.root / "quarantine").iterdir()
    assert left.read_bytes() == b"not a data set"
    ((code, why, count, _),) = bookkeeping.refusals(intake.books, "instance", now)
    assert (code, count) == ("not-dicom", 1)
    assert "CT1 at 127.0.0.1" in why
    assert left.name in why
    assert kept(spool) == []


def test_without_books_nothing_is_acknowledged(intake: Intake, head, now: datetime):
    with bookkeeping.store.writing(intake.books) as session:
        session.execute(text("DROP TABLE job_input"))
        session.execute(text("DROP TABLE instance"))
    with pytest.raises(DBAPIError):
        intake.receive(part10(head[0]), peer(now), now)


def test_without_a_writable_disk_nothing_is_acknowledged(intake: Intake, spool: Spool, head, now: datetime):
    (spool.root / "tmp").rmdir()
    with pytest.raises(OSError, match="tmp"):
        intake.receive(part10(head[0]), peer(now), now)
    assert bookkeeping.receiving(intake.books) == []
