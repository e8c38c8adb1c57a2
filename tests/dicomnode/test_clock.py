"""A clock that is set an hour forward or back costs no job, no delivery and no series more than seconds."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from dicomnode import bookkeeping, retries
from dicomnode.bookkeeping import Answer, Books
from dicomnode.clock import Watch
from dicomnode.completeness import Quiet
from dicomnode.config import Settings
from dicomnode.jobs import DeliveryState, State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import weights
from tests.dicomnode.arrivals import only_series
from tests.dicomnode.deliveries import finished_job
from tests.dicomnode.test_bookkeeping import order, series_of

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.fixture
def at_work(books: Books, now: datetime) -> str:
    """A job that a worker holds."""
    series_of(books, now)
    job_id = bookkeeping.open_job(books, order(books), now, now)
    assert job_id is not None
    assert bookkeeping.claim(books, job_id, "w1", now)
    return job_id


@pytest.fixture
def sweep(settings: Settings, books: Books, spool: Spool, offered: list[str]) -> Sweep:
    manifest = weights.read(weights.shipped())
    return Sweep(settings, books, spool, manifest, lambda job_id, _: offered.append(job_id), lambda job_id: None)


@pytest.fixture
def offered() -> list[str]:
    """The jobs that the sweep offers to workers."""
    return []


def test_a_jump_is_told_from_time_that_passes(now: datetime):
    passed = iter([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    watch = Watch(monotonic=lambda: next(passed))
    clock = [0.0, 0.5, 1.9, 3602.4, 3602.9, 3.4]  # a slow correction, an hour forward, an hour back
    jumps = [round(watch.jump(now + seconds * SECOND)) for seconds in clock]
    assert jumps == [0, 0, 0, 3600, 0, -3600]


def test_forward_a_worker_at_work_keeps_its_job_and_a_dead_one_loses_it(sweep: Sweep, at_work: str, now: datetime):
    later = now + HOUR
    sweep.after(3600.0, later)
    sweep.once(later)
    assert bookkeeping.get_job(sweep.books, at_work).state is State.PROCESSING
    assert bookkeeping.heartbeat(sweep.books, at_work, "w1", later + 5 * SECOND)
    sweep.once(later + 24 * SECOND)
    assert bookkeeping.get_job(sweep.books, at_work).state is State.PROCESSING
    sweep.once(later + 26 * SECOND)
    assert bookkeeping.get_job(sweep.books, at_work).state is State.QUEUED


def test_back_a_dead_worker_loses_its_job_as_soon_as_ever(sweep: Sweep, at_work: str, now: datetime, offered):
    earlier = now - HOUR
    sweep.after(-3600.0, earlier)
    sweep.once(earlier + 19 * SECOND)
    assert bookkeeping.get_job(sweep.books, at_work).state is State.PROCESSING
    sweep.once(earlier + 21 * SECOND)
    assert bookkeeping.get_job(sweep.books, at_work).state is State.QUEUED
    assert offered == [at_work]


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.SENT])
def test_back_a_delivery_is_tried_at_once(books: Books, spool: Spool, now: datetime, state: DeliveryState):
    job_id = finished_job(books, spool, now)
    due = bookkeeping.due(books, job_id, "pacs", now)
    again = now + timedelta(seconds=retries.LONGEST * 1.5)
    bookkeeping.note_answers(books, job_id, "pacs", [Answer(d.delivery, state, "away", again) for d in due], now)
    bookkeeping.note_away(books, "pacs", "it is away", lambda n: timedelta(seconds=90), now)
    earlier = now - HOUR
    assert bookkeeping.to_send(books, ["pacs"], earlier + 3 * SECOND) == []
    bookkeeping.set_back(books, earlier)
    assert bookkeeping.to_send(books, ["pacs"], earlier + 3 * SECOND) == [job_id]


def test_back_a_whole_series_is_judged_after_two_seconds(books: Books, now: datetime):
    series_of(books, now)
    earlier = now - HOUR
    bookkeeping.set_back(books, earlier)
    series = only_series(books)
    quiet = Quiet(earlier + 2 * SECOND, series.last_received_at, series.open_associations, series.last_released_at)
    assert quiet.since_release(2.0)


def test_forward_a_series_on_its_way_is_not_judged_before_it_has_been_quiet(books: Books, now: datetime):
    series_of(books, now)
    later = now + HOUR
    bookkeeping.set_forward(books, later)
    series = only_series(books)
    quiet = Quiet(later + SECOND, series.last_received_at, series.open_associations, series.last_released_at)
    assert not quiet.since_last_slice(60.0)
    assert not quiet.since_release(2.0)


def test_what_may_wait_for_long_is_left_alone(books: Books, now: datetime, at_work: str):
    """A start of the sweep, when nobody knows what the clock did, shortens no lease and no wait."""
    before = bookkeeping.get_job(books, at_work)
    bookkeeping.set_back(books, now)
    after = bookkeeping.get_job(books, at_work)
    assert (after.lease_until, after.enqueued_at) == (before.lease_until, before.enqueued_at)


def test_a_moment_just_ahead_is_another_hosts_clock_and_is_left_alone(books: Books, now: datetime):
    series_of(books, now)
    bookkeeping.set_back(books, now - SECOND)
    assert only_series(books).last_received_at == now


def test_the_running_sweep_sees_the_jump(sweep: Sweep, at_work: str, monkeypatch: pytest.MonkeyPatch):
    """The books away at that moment: it is mended when they are back."""
    stop, seen, moments = threading.Event(), [], iter([0.0, 0.5, -3599.0, -3598.5, -3598.0, -3597.5])
    begin = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            try:
                return begin + next(moments) * SECOND
            except StopIteration:
                stop.set()
                return begin - 3597 * SECOND

    def set_back(books: Books, now: datetime) -> None:
        seen.append((now - begin).total_seconds())
        if len(seen) == 2:
            raise bookkeeping.BooksAway("UPDATE", {}, Exception("away"))

    monkeypatch.setattr("dicomnode.sweep.datetime", Clock)
    monkeypatch.setattr("dicomnode.sweep.PERIOD", 0.01)
    monkeypatch.setattr(bookkeeping, "set_back", set_back)
    sweep.run(stop)
    assert seen[:3] == [0.0, -3599.0, -3598.5]
    assert len(seen) == 3
