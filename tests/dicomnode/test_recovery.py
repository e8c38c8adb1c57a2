"""dicomnode.recovery: after a crash, disk and books agree again, and nothing is deleted that somebody may want."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books
from dicomnode.bookkeeping.tables import Instance
from dicomnode.intake import Intake
from dicomnode.jobs import Lane, SeriesState
from dicomnode.recovery import recover
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.arrivals import arrive, only_series, part10, peer

LATER = timedelta(minutes=5)


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(12), matrix=32)


@pytest.fixture
def intake(books: Books, spool: Spool) -> Intake:
    return Intake(books, spool)


def again(intake: Intake, now: datetime):
    return recover(intake.books, intake.spool, Lane.STROKE, now)


def stray(spool: Spool, content: bytes) -> str:
    """A file in in/ that nobody recorded: the crash came between rename and commit."""
    with spool.part() as part:
        part.write(content)
        return part.keep()


def test_where_disk_and_books_agree_nothing_happens(intake: Intake, head, now: datetime):
    arrive(intake, head, now)
    findings = again(intake, now + LATER)
    assert (findings.cleared, findings.recorded, findings.set_aside, dict(findings.missing)) == (0, 0, 0, {})
    assert len(only_series(intake.books).instances) == len(head)


def test_a_file_without_a_row_is_recorded_from_its_header(intake: Intake, spool: Spool, head, now: datetime):
    arrive(intake, head[:-1], now)
    path = stray(spool, part10(head[-1]))
    assert again(intake, now + LATER).recorded == 1
    series = only_series(intake.books)
    found = next(i for i in series.instances if i.sop_instance_uid == head[-1].SOPInstanceUID)
    assert (found.path, found.bytes) == (path, len(part10(head[-1])))
    assert series.open_associations == 0
    arrive(intake, [head[-1]], now + LATER, "A2")  # its sender was never answered and sends it again
    assert len(only_series(intake.books).instances) == len(head) == len(list(spool.received()))
    assert again(intake, now + LATER).recorded == 0


def test_a_study_known_only_from_its_files_is_as_urgent_as_it_might_be(intake: Intake, spool: Spool, head, now):
    stray(spool, part10(head[0]))
    again(intake, now)
    study = bookkeeping.story(intake.books, head[0].StudyInstanceUID).study
    assert study.lane is Lane.STROKE


def test_a_second_copy_of_what_is_recorded_goes(intake: Intake, spool: Spool, head, now: datetime):
    arrive(intake, head, now)
    extra = stray(spool, part10(head[0]))
    again(intake, now + LATER)
    assert not spool.path(extra).exists()
    assert len(list(spool.received())) == len(head)


def test_a_file_that_cannot_be_read_is_set_aside_with_its_reason(intake: Intake, spool: Spool, head, now: datetime):
    stray(spool, part10(head[0])[:-100])
    stray(spool, b"junk")
    assert again(intake, now).set_aside == 2
    assert list(spool.received()) == []
    kept = sorted(path.read_bytes() for path in (spool.root / "quarantine").iterdir())
    assert kept == sorted([part10(head[0])[:-100], b"junk"])
    assert {code for code, *_ in bookkeeping.refusals(intake.books, "instance", now)} == {"not-dicom", "truncated"}


def test_a_row_without_a_file_is_told_once_and_sending_again_mends_it(
    intake: Intake, spool: Spool, head, now: datetime
):
    arrive(intake, head, now)
    (gone, other, *_) = only_series(intake.books).instances
    spool.remove(gone.path)
    spool.remove(other.path)
    for _ in range(2):
        assert again(intake, now + LATER).missing == {head[0].SeriesInstanceUID: 2}
    ((code, why, times, _),) = bookkeeping.refusals(intake.books, "instance", now)
    assert (code, times) == ("file-missing", 1)
    assert why.startswith("2 received files")
    (series,) = bookkeeping.story(intake.books, head[0].StudyInstanceUID).series
    assert (series.state, series.reason_code) == (SeriesState.REFUSED, "file-missing")
    arrive(intake, head, now + 2 * LATER, "A2")
    assert all(spool.path(i.path).exists() for i in only_series(intake.books).instances)
    assert len(list(spool.received())) == len(head)
    assert not again(intake, now + 3 * LATER).missing


def test_a_closed_series_stays_closed_though_a_file_is_gone(intake: Intake, spool: Spool, head, now: datetime):
    arrive(intake, head, now)
    series = only_series(intake.books)
    bookkeeping.close_series(intake.books, series, SeriesState.NOT_SELECTED, "another was", now)
    spool.remove(series.instances[0].path)
    again(intake, now + LATER)
    assert bookkeeping.story(intake.books, head[0].StudyInstanceUID).series[0].state is SeriesState.NOT_SELECTED
    assert bookkeeping.refusals(intake.books, "instance", now)


def test_half_written_files_of_dead_receivers_are_cleared(intake: Intake, spool: Spool, now: datetime):
    spool.part(b"half")._file.close()  # as if killed
    assert again(intake, now).cleared == 1
    assert list((spool.root / "tmp").iterdir()) == []


def test_books_that_were_lost_are_made_again_from_the_files(intake: Intake, spool: Spool, head, now: datetime):
    arrive(intake, head, now)
    with bookkeeping.store.writing(intake.books) as session:
        session.execute(delete(Instance))
    assert again(intake, now + LATER).recorded == len(head)
    assert len(only_series(intake.books).instances) == len(head)


def test_a_receiver_that_records_what_recovery_recorded_first_keeps_the_file(
    intake: Intake, spool: Spool, head, now: datetime
):
    """Another host starts over the same spool between our rename and our commit."""
    with spool.part() as part:
        part.write(part10(head[0]))
        keep = part.keep

        def keep_and_lose_the_race():
            path = keep()
            again(intake, now)
            return path

        part.keep = keep_and_lose_the_race  # type: ignore[method-assign]
        intake.file(part, peer(now), now)
    (instance,) = only_series(intake.books).instances
    assert spool.path(instance.path).exists()
