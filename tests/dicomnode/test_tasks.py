"""dicomnode.tasks: three outcomes, decided in one place, and a queue that may lose or double a message."""

import errno
import os
import threading
import time
from datetime import datetime, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import ChannelError, OperationalError
from kombu.transport import filesystem
from sqlalchemy import text

from dicomnode import bookkeeping, delivery, pipeline, tasks
from dicomnode.bookkeeping import ACTOR, Books, LeaseLost
from dicomnode.config import Settings
from dicomnode.jobs import Lane, State
from dicomnode.spool import Spool
from dicomnode.tasks import Desk
from inference.refusal import Refused
from tests.dicomnode.test_bookkeeping import order, result, series_of


@pytest.fixture
def job_id(books: Books, now: datetime) -> str:
    series_of(books, now)
    opened = bookkeeping.open_job(books, order(books), now, now)
    assert opened is not None
    return opened


@pytest.fixture
def woken(settings: Settings, books: Books, spool: Spool, monkeypatch) -> list[str]:
    """The desk of a worker without a broker; the ids that were handed to the senders."""
    handed: list[str] = []
    monkeypatch.setattr(tasks, "desk", lambda: Desk(settings, books, spool))
    monkeypatch.setattr(tasks, "wake_deliver", handed.append)
    return handed


def outcome(books: Books, job_id: str, monkeypatch, computed) -> bookkeeping.Job:
    monkeypatch.setattr(pipeline, "run", computed)
    tasks.process(job_id)
    return bookkeeping.get_job(books, job_id)


def raising(error: Exception):
    def run(*_):
        raise error

    return run


def test_a_computed_job_goes_to_the_senders(job_id, books: Books, woken, monkeypatch):
    job = outcome(books, job_id, monkeypatch, lambda *_: 150)
    assert (job.state, job.reason, job.lease_owner) == (State.SENDING, "150 files written", None)
    assert woken == [job_id]


def test_what_is_finished_goes_to_the_senders_while_the_rest_is_written(job_id, books: Books, woken, monkeypatch):
    outcome(books, job_id, monkeypatch, lambda *given: given[4]() or 150)
    assert woken == [job_id, job_id]


def test_the_same_message_twice_computes_once(job_id, books: Books, woken, monkeypatch):
    times = []
    for _ in range(2):
        outcome(books, job_id, monkeypatch, lambda *_: times.append(1) or 150)
    assert len(times) == 1


def test_a_study_that_is_not_ours_is_rejected_with_its_reason(job_id, books: Books, woken, monkeypatch):
    job = outcome(books, job_id, monkeypatch, raising(Refused("phantom", "this is a phantom")))
    assert (job.state, job.reason_code, job.reason) == (State.REJECTED, "phantom", "this is a phantom")
    assert woken == []


def test_a_failing_world_is_tried_three_times(job_id, books: Books, woken, monkeypatch):
    states = [outcome(books, job_id, monkeypatch, raising(OSError("disk full"))).state for _ in range(3)]
    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    assert bookkeeping.get_job(books, job_id).reason == "OSError: disk full"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_serve_us_costs_only_time(job_id, books: Books, woken, monkeypatch, now, code):
    states = []
    monkeypatch.setattr(tasks, "now", lambda: now)
    for _ in range(5):
        states.append(outcome(books, job_id, monkeypatch, raising(OSError(code, os.strerror(code)))).state)
    assert states == [State.QUEUED] * 5
    assert outcome(books, job_id, monkeypatch, lambda *_: 150).state is State.SENDING


def test_work_that_passes_its_limit_fails_and_says_what_to_do(job_id, books: Books, woken, monkeypatch):
    job = outcome(books, job_id, monkeypatch, raising(SoftTimeLimitExceeded()))
    assert (job.state, job.attempts) == (State.FAILED, 1)
    assert f"not computed within 600 s; `dicomnode retry {job_id}` if the machine was overloaded" == job.reason


def test_our_own_mistake_fails_the_job_at_once(job_id, books: Books, woken, monkeypatch):
    job = outcome(books, job_id, monkeypatch, raising(ZeroDivisionError("of ours")))
    assert (job.state, job.reason) == (State.FAILED, "ZeroDivisionError: of ours")


def test_work_on_a_lost_lease_counts_for_nothing(job_id, books: Books, woken, monkeypatch, now: datetime):
    def run(*_):
        bookkeeping.reap(books, datetime.now(now.tzinfo) + timedelta(minutes=1))
        raise LeaseLost("another worker has it")

    job = outcome(books, job_id, monkeypatch, run)
    assert job.state is State.QUEUED
    assert woken == []


def test_our_own_mistake_in_sending_fails_the_job(job_id, books: Books, woken, monkeypatch, now: datetime):
    bookkeeping.claim(books, job_id, ACTOR, now)
    bookkeeping.note_results(books, ACTOR, [result(job_id)], [("pacs", frozenset({"sc"}))], now)
    bookkeeping.advance(books, job_id, ACTOR, State.SENDING, "1 file written", now)
    monkeypatch.setattr(delivery, "run", raising(ZeroDivisionError("of ours")))
    tasks.deliver(job_id)
    job = bookkeeping.get_job(books, job_id)
    assert (job.state, job.reason, job.lease_owner) == (State.FAILED, "ZeroDivisionError: of ours", None)


def test_the_lease_is_held_while_the_work_goes_on(job_id, books: Books, monkeypatch):
    monkeypatch.setattr(bookkeeping, "HEARTBEAT", timedelta(milliseconds=20))
    bookkeeping.claim(books, job_id, ACTOR, tasks.now())
    before = bookkeeping.get_job(books, job_id).lease_until
    with tasks.held(books, job_id):
        time.sleep(0.3)
    after = bookkeeping.get_job(books, job_id).lease_until
    assert before is not None
    assert after is not None
    assert after > before
    assert not [t for t in threading.enumerate() if t.name.startswith("heartbeat")]


def test_one_heartbeat_that_fails_does_not_end_the_lease(job_id, books: Books, monkeypatch):
    beats = []

    def beat(*_) -> bool:
        beats.append(1)
        if len(beats) == 1:
            raise bookkeeping.BooksAway("UPDATE job", {}, Exception("database is locked"))
        return True

    monkeypatch.setattr(bookkeeping, "HEARTBEAT", timedelta(milliseconds=20))
    monkeypatch.setattr(bookkeeping, "heartbeat", beat)
    with tasks.held(books, job_id):
        time.sleep(0.3)
    assert len(beats) > 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_routine_job_makes_room_at_the_sender_for_a_stroke(job_id, books: Books, woken, monkeypatch, now, waits):
    sent: list[str] = []
    bookkeeping.claim(books, job_id, ACTOR, now)
    bookkeeping.advance(books, job_id, ACTOR, State.SENDING, "written", now)
    with bookkeeping.store.writing(books) as session:
        session.execute(text("UPDATE job SET lane = 'routine'"))
    desk = tasks.desk()
    desk.turns.last = time.monotonic()  # another routine job had its turn just now
    monkeypatch.setattr(tasks, "desk", lambda: desk)
    monkeypatch.setattr(bookkeeping, "stroke_waits", lambda *_: waits)
    monkeypatch.setattr(delivery, "run", lambda job, *_: sent.append(job.id))
    tasks.deliver(job_id)
    assert sent == ([] if waits else [job_id])
    assert bookkeeping.get_job(books, job_id).lease_owner is None


def test_the_embedded_broker_carries_a_message_to_the_right_queue(settings: Settings, spool: Spool):
    filesystem.Transport.global_state.clear()  # it knows what other tests have declared in their folders
    tasks.configure(settings)
    tasks.declare()
    tasks.wake_process("J1", Lane.STROKE)
    tasks.wake_deliver("J1")
    messages = [p.name.split(".", 1)[1] for p in (spool.root / "broker").glob("*.msg")]
    assert sorted(messages) == ["deliver.msg", "process.stroke.msg"]
    declared = "".join(path.read_text() for path in (spool.root / "broker").glob("*.exchange"))
    assert all(queue in declared for queue in tasks.QUEUES)


@pytest.mark.parametrize("error", [OperationalError("no broker"), OSError("disk full"), ChannelError("disk full")])
def test_a_broker_that_is_away_stops_nobody(error, settings, spool, monkeypatch, caplog: pytest.LogCaptureFixture):
    tasks.configure(settings)
    monkeypatch.setattr(tasks.process, "apply_async", lambda **_: raising(error)())
    tasks.wake_process("J1", Lane.ROUTINE)
    assert "the sweep will offer job J1 again" in caplog.text
