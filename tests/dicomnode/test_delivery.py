"""dicomnode.delivery: what each answer means, when to try again, and when a job is done."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping, delivery
from dicomnode.bookkeeping import ACTOR, Books, Due, Result
from dicomnode.config import Settings
from dicomnode.jobs import DeliveryState, State
from dicomnode.sender import ClassRefused
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.test_bookkeeping import order, result, series_of
from tests.pacs import Pacs

SECOND = timedelta(seconds=1)


def due(attempts: int = 0) -> Due:
    return Due(1, "results/J/sc-CBF-001.dcm", SecondaryCaptureImageStorage, "2.25.1", "2.25.2", attempts)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0x0000, DeliveryState.CONFIRMED),
        (0xB000, DeliveryState.CONFIRMED),
        (0xB007, DeliveryState.CONFIRMED),
        (0x0111, DeliveryState.CONFIRMED),
        (0xA700, DeliveryState.PENDING),
        (0xA7FF, DeliveryState.PENDING),
        (0x0110, DeliveryState.PENDING),
        (0xA900, DeliveryState.REFUSED),
        (0xC000, DeliveryState.REFUSED),
        (0xCFFF, DeliveryState.REFUSED),
        (0x0122, DeliveryState.REFUSED),
        (0x0124, DeliveryState.REFUSED),
        (ClassRefused("no"), DeliveryState.REFUSED),
    ],
)
def test_what_a_status_means(status, state, now: datetime):
    answer = delivery.answer(due(), status, now)
    assert answer.state is state
    assert answer.status
    assert (answer.confirmed_by == "C-STORE status") is (state is DeliveryState.CONFIRMED)
    assert (answer.next_at > now) is (state is DeliveryState.PENDING)


@given(st.integers(0, delivery.GIVE_UP_AFTER - 2))
def test_retries_begin_within_five_seconds_and_never_wait_longer_than_a_minute_and_a_half(attempts):
    now = datetime(2026, 3, 2).astimezone()
    delay = (delivery.later(due(attempts), "away", now).next_at - now).total_seconds()
    assert 0 < delay <= 90
    assert attempts > 0 or delay <= 5


def test_after_a_day_of_retries_a_file_is_dead_and_says_why(now: datetime):
    answer = delivery.later(due(delivery.GIVE_UP_AFTER - 1), "away", now)
    assert answer.state is DeliveryState.DEAD
    assert "1500 attempts: away" in answer.status


@pytest.fixture
def job_id(books: Books, spool: Spool, now: datetime) -> str:
    """A job whose three captures lie in the spool, ready to send."""
    series_of(books, now)
    opened = bookkeeping.open_job(books, order(books), now, now)
    assert opened is not None
    bookkeeping.claim(books, opened, ACTOR, now)
    rows: list[Result] = []
    for n, ds in enumerate(phantom.head(phantom.even(12), matrix=16)[:3]):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        row = result(opened, n)
        spool.path(row.path).parent.mkdir(exist_ok=True)
        ds.save_as(spool.path(row.path), enforce_file_format=True)
        rows.append(row)
    bookkeeping.note_results(books, ACTOR, rows, [("pacs", frozenset({"sc", "pm"}))], now)
    bookkeeping.advance(books, opened, ACTOR, State.SENDING, "3 files written", now)
    return opened


def run(job_id: str, pacs: Pacs, settings: Settings, books: Books, spool: Spool, now: datetime) -> State:
    object.__setattr__(settings, "destination", (pacs.destination(),))
    job = bookkeeping.claim_sending(books, job_id, ACTOR, now)
    assert job is not None
    delivery.run(job, settings, books, spool)
    bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id).state


def told(books: Books) -> list[tuple[str, str, str | None, int]]:
    return [(where, str(state), status, n) for _, where, state, status, n in bookkeeping.story(books, "1.1").deliveries]


def test_a_delivered_job_is_done(job_id, settings, books: Books, spool: Spool, now: datetime):
    with Pacs().running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert len(pacs.received) == 3
    assert told(books) == [("pacs", "CONFIRMED", "0x0000: stored", 3)]


def test_a_pacs_that_is_away_costs_nothing_but_the_wait(
    job_id, settings, books: Books, spool: Spool, now: datetime, monkeypatch
):
    pacs = Pacs()
    assert run(job_id, pacs, settings, books, spool, now) is State.SENDING
    ((_, state, status, count),) = told(books)
    assert (state, count) == ("PENDING", 3)
    assert "is it running" in (status or "")
    monkeypatch.setattr(delivery, "datetime", _Later)
    with pacs.running():
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert len(pacs.received) == 3


class _Later(datetime):
    """A minute from now."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + 60 * SECOND


def test_only_what_was_not_stored_is_sent_again(
    job_id, settings, books: Books, spool: Spool, now: datetime, monkeypatch
):
    with Pacs(answer=lambda n: 0xA700 if n == 1 else 0x0000).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.SENDING
        monkeypatch.setattr(delivery, "datetime", _Later)
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert len(pacs.received) == 3
    assert len({ds.SOPInstanceUID for ds in pacs.received}) == 3


def test_refused_captures_fail_the_job_loudly(job_id, settings, books: Books, spool: Spool, now: datetime):
    with Pacs(answer=lambda n: 0xA900).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.FAILED
    job = bookkeeping.get_job(books, job_id)
    assert "3 sc REFUSED at pacs" in (job.reason or "")
    assert f"dicomnode explain {job_id}" in (job.reason or "")


def test_without_a_destination_the_results_stay_and_the_job_says_so(
    job_id, settings, books: Books, spool: Spool, now: datetime, tmp_path: Path
):
    object.__setattr__(settings, "destination", ())
    job = bookkeeping.claim_sending(books, job_id, ACTOR, now)
    assert job is not None
    delivery.run(job, settings, books, spool)
    ended = bookkeeping.get_job(books, job_id)
    assert (ended.state, ended.reason) == (State.DONE, "no destination is required; the results stay on the node")


def test_a_destination_that_is_away_is_tried_once_in_a_run(
    job_id, settings, books: Books, spool: Spool, now, monkeypatch
):
    monkeypatch.setattr(delivery, "BATCH", 1)
    monkeypatch.setattr(delivery, "ASSOCIATIONS", 1)
    tried = []
    real = delivery.sender.send
    monkeypatch.setattr(delivery.sender, "send", lambda *a: tried.append(1) or real(*a))
    assert run(job_id, Pacs(), settings, books, spool, now) is State.SENDING
    assert len(tried) == 1


def test_a_host_that_cannot_be_resolved_is_a_destination_that_is_away(
    job_id, settings, books: Books, spool: Spool, now
):
    pacs = Pacs()
    object.__setattr__(settings, "destination", (pacs.destination(host="no.such.host.invalid"),))
    job = bookkeeping.claim_sending(books, job_id, ACTOR, now)
    assert job is not None
    delivery.run(job, settings, books, spool)
    ((_, state, status, count),) = told(books)
    assert (state, count) == ("PENDING", 3)
    assert "no association with pacs" in (status or "")


def test_a_result_that_is_gone_from_the_disk_fails_loudly_and_the_others_are_sent(
    job_id, settings, books: Books, spool: Spool, now, monkeypatch
):
    first = bookkeeping.results(books, job_id)[0]
    spool.path(first.path).unlink()
    with Pacs().running() as pacs:
        run(job_id, pacs, settings, books, spool, now)
        monkeypatch.setattr(delivery, "datetime", _Later)
        assert run(job_id, pacs, settings, books, spool, now) is State.FAILED
    assert len(pacs.received) == 2
    assert "1 sc DEAD at pacs" in (bookkeeping.get_job(books, job_id).reason or "")
