"""dicomnode.delivery: what each answer means, when to try again, and when a job is done."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping, delivery, explain, retries, sender
from dicomnode.bookkeeping import ACTOR, Books, Due
from dicomnode.config import Destination, Settings
from dicomnode.jobs import DeliveryState, Lane, State
from dicomnode.sender import ClassRefused, association
from dicomnode.spool import Spool
from tests.dicomnode.arrivals import peer
from tests.dicomnode.deliveries import finished_job, told
from tests.dicomnode.test_bookkeeping import received
from tests.pacs import HangUp, Pacs, swallowing

SECOND = timedelta(seconds=1)


def due(attempts: int = 0) -> Due:
    return Due(1, "results/J/sc-CBF-001.dcm", SecondaryCaptureImageStorage, "2.25.1", "2.25.2", attempts)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0x0000, DeliveryState.SENT),
        (0xB000, DeliveryState.SENT),
        (0xB007, DeliveryState.SENT),
        (0x0111, DeliveryState.SENT),
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
    assert answer.confirmed_by is None
    assert (answer.next_at > now) is (state is DeliveryState.PENDING)


@given(st.integers(0, retries.GIVE_UP_AFTER - 2))
def test_retries_begin_within_five_seconds_and_never_wait_longer_than_a_minute_and_a_half(attempts):
    now = datetime(2026, 3, 2).astimezone()
    delay = (retries.later(due(attempts), "away", now).next_at - now).total_seconds()
    assert 0 < delay <= 90
    assert attempts > 0 or delay <= 5


def test_after_a_day_of_retries_a_file_is_dead_and_says_why(now: datetime):
    answer = retries.later(due(retries.GIVE_UP_AFTER - 1), "away", now)
    assert answer.state is DeliveryState.DEAD
    assert "1500 attempts: away" in answer.status


@pytest.fixture
def job_id(books: Books, spool: Spool, now: datetime) -> str:
    return finished_job(books, spool, now)


def run(job_id: str, pacs: Pacs, settings: Settings, books: Books, spool: Spool, now: datetime, **other) -> State:
    object.__setattr__(settings, "destination", (pacs.destination(**other),))
    return deliver(job_id, settings, books, spool, now)


def deliver(job_id: str, settings: Settings, books: Books, spool: Spool, now: datetime) -> State:
    job = bookkeeping.claim_sending(books, job_id, ACTOR, now)
    assert job is not None
    delivery.run(job, settings, books, spool)
    bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id).state


def test_nothing_is_sent_once_the_study_names_another_patient(job_id, settings, books: Books, spool: Spool, now):
    """A patient is merged while the maps are on their way: they bear the old name."""
    merged = received(0, patient_id="Q", sha256="7" * 64, path="in/7.dcm")
    bookkeeping.note_instance(books, merged, peer(now), now)
    with Pacs().running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.FAILED
    assert pacs.received == []
    job = bookkeeping.get_job(books, job_id)
    assert (job.reason_code, told(books)) == ("patient-conflict", [])
    lines = "\n".join(explain.tell(books, job_id))
    assert "3 files WITHDRAWN at pacs: the study names another patient" in lines
    assert "send the whole study again" in lines


def test_a_delivered_job_is_done(job_id, settings, books: Books, spool: Spool, now: datetime):
    with Pacs().running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert len(pacs.received) == 3
    alone = "confirmed by C-STORE status alone: the destination offers neither storage commitment nor query"
    assert told(books) == [("pacs", "CONFIRMED", alone, 3)]


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


# Permanent answers


@pytest.mark.parametrize(
    ("pacs", "other", "remedy"),
    [
        (Pacs(known=("SOMEONE",)), {}, "it does not know our AE title DICOMNODE; register it there"),
        (Pacs(), {"ae_title": "WRONG"}, "mend ae_title in [[destination]]"),
    ],
)
def test_a_destination_that_does_not_admit_us_is_not_asked_again_and_the_books_hold_the_remedy(
    pacs: Pacs, other, remedy, job_id, settings, books: Books, spool: Spool, now
):
    with pacs.running():
        assert run(job_id, pacs, settings, books, spool, now, **other) is State.FAILED
    ((_, state, status, count),) = told(books)
    assert (state, count) == ("DEAD", 3)
    assert remedy in (status or "")
    assert bookkeeping.absences(books) == []
    story = "\n".join(explain.tell(books, job_id))
    assert remedy in story
    assert f"`dicomnode retry {job_id}`" in story


def test_a_class_that_is_refused_says_where_to_enable_it(job_id, settings, books: Books, spool: Spool, now):
    with Pacs(classes=("1.2.840.10008.5.1.4.1.1.4",)).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.FAILED
    ((_, state, status, count),) = told(books)
    assert (state, count) == ("REFUSED", 3)
    assert "Secondary Capture Image Storage; enable it there, or take it out of objects" in (status or "")


@pytest.mark.parametrize("status", [0xA900, 0xC123, 0x0122, 0x0124])
def test_a_permanent_status_is_asked_for_once_and_says_what_to_do(
    status, job_id, settings, books: Books, spool: Spool, now
):
    with Pacs(answer=lambda n: status).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.FAILED
        assert pacs.requests == 3
    ((_, _, words, _),) = told(books)
    assert f"0x{status:04X}" in (words or "")
    assert any(remedy in (words or "") for remedy in ("show one of the files", "enable it there", "grant it there"))


# Passing trouble


def test_an_association_that_breaks_is_followed_by_a_new_one_with_the_same_uids(
    job_id, settings, books: Books, spool: Spool, now, monkeypatch
):
    def once(n: int) -> int:
        if n == 1:
            raise HangUp
        return 0x0000

    monkeypatch.setattr(delivery, "ASSOCIATIONS", 1)
    with Pacs(answer=once).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.SENDING
        assert len(pacs.received) == 2  # the one that broke it waits for its turn, the others do not
        monkeypatch.setattr(delivery, "datetime", _Later)
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert sorted(ds.SOPInstanceUID for ds in pacs.received) == sorted({ds.SOPInstanceUID for ds in pacs.received})
    assert len(pacs.received) == 3


def test_a_destination_that_breaks_every_association_counts_as_away(job_id, settings, books: Books, spool: Spool, now):
    def always(n: int) -> int:
        raise HangUp

    with Pacs(answer=always).running() as pacs:
        assert run(job_id, pacs, settings, books, spool, now) is State.SENDING
    (absence,) = bookkeeping.absences(books)
    assert "ended 3 associations in turn" in absence.why


def test_a_destination_that_does_not_answer_holds_up_no_other(
    job_id, settings, books: Books, spool: Spool, now, monkeypatch
):
    monkeypatch.setattr(association, "NEGOTIATE", 1.0)
    add_deliveries(books, job_id, "black hole", now)
    with swallowing() as port, Pacs().running() as pacs:
        hole = Destination("black hole", "HOLE", "127.0.0.1", port)
        object.__setattr__(settings, "destination", (hole, pacs.destination()))
        began = time.monotonic()
        assert deliver(job_id, settings, books, spool, now) is State.SENDING
        assert len(pacs.received) == 3
        assert time.monotonic() - began < sender.REPLY
    (absence,) = bookkeeping.absences(books)
    assert absence.destination == "black hole"
    while_away = absence.until - timedelta(milliseconds=1)
    assert bookkeeping.to_send(books, ["black hole", "pacs"], while_away) == []  # nobody waits for it again
    assert any("AWAY" in line and "does not answer as DICOM does" in line for line in explain.tell(books, job_id))


def add_deliveries(books: Books, job_id: str, destination: str, now: datetime) -> None:
    bookkeeping.resend(books, job_id, [(destination, frozenset({"sc"}))], now)


def test_a_file_is_not_tried_while_its_destination_is_away_and_loses_no_attempt(
    job_id, settings, books: Books, spool: Spool, now, monkeypatch
):
    monkeypatch.setattr(delivery, "delay", lambda attempts: timedelta(seconds=50))
    pacs = Pacs()
    for _ in range(3):
        assert run(job_id, pacs, settings, books, spool, now) is State.SENDING
    (absence,) = bookkeeping.absences(books)
    assert absence.attempts == 1
    assert bookkeeping.to_send(books, ["pacs"], datetime.now(UTC)) == []
    monkeypatch.setattr(delivery, "datetime", _Later)
    assert {due.attempts for due in bookkeeping.due(books, job_id, "pacs", _Later.now(UTC))} == {0}
    with pacs.running():
        assert run(job_id, pacs, settings, books, spool, now) is State.DONE
    assert bookkeeping.absences(books) == []
    story = "\n".join(explain.tell(books, job_id))
    assert "AWAY -> BACK: answers again after" in story


def test_an_hour_away_is_at_most_a_minute_and_a_half_between_two_tries(books: Books, now):
    until, tries = now, 0
    while until < now + timedelta(hours=1):
        again = bookkeeping.note_away(books, "pacs", "away", retries.delay, until)
        assert timedelta(0) < again - until <= timedelta(seconds=90)
        assert tries > 0 or again - until <= timedelta(seconds=5)
        until, tries = again, tries + 1
    assert tries > 40


def test_a_routine_job_makes_room_for_a_stroke(job_id, settings, books: Books, spool: Spool, now, monkeypatch):
    waits = iter([True])  # asked after every batch, so that each turn brings the job on
    monkeypatch.setattr(bookkeeping, "stroke_waits", lambda *_: next(waits))
    monkeypatch.setattr(delivery, "BATCH", 1)
    monkeypatch.setattr(delivery, "ASSOCIATIONS", 1)
    with Pacs().running() as pacs:
        object.__setattr__(settings, "destination", (pacs.destination(),))
        job = bookkeeping.claim_sending(books, job_id, ACTOR, now)
        assert job is not None
        job.lane = Lane.ROUTINE
        delivery.run(job, settings, books, spool)
        assert len(pacs.received) == 1
        job.lane = Lane.STROKE  # a stroke makes room for nobody
        delivery.run(job, settings, books, spool)
        assert len(pacs.received) == 3


def test_strokes_are_offered_to_the_senders_first(job_id, books: Books, now):
    assert bookkeeping.get_job(books, job_id).lane is Lane.STROKE
    later = now + timedelta(seconds=10)
    assert bookkeeping.stroke_waits(books, ["pacs"], later)
    assert not bookkeeping.stroke_waits(books, ["another"], later)
    bookkeeping.claim_sending(books, job_id, ACTOR, later)
    assert not bookkeeping.stroke_waits(books, ["pacs"], later)


def test_finished_files_are_sent_while_the_rest_is_written(settings, books: Books, spool: Spool, now: datetime):
    job_id = finished_job(books, spool, now, State.PROCESSING)
    with Pacs(finds=True).running() as pacs:
        object.__setattr__(settings, "destination", (pacs.destination(),))
        for _ in range(2):  # a message may come twice
            assert bookkeeping.claim_sending(books, job_id, ACTOR, now) is None
            job = bookkeeping.being_written(books, job_id)
            assert job is not None
            delivery.run(job, settings, books, spool)
        assert pacs.requests == 3
        assert told(books) == [("pacs", "CONFIRMED", "confirmed by C-FIND", 3)]
        job = bookkeeping.get_job(books, job_id)
        assert (job.state, job.lease_owner) == (State.PROCESSING, ACTOR)  # the writer goes on undisturbed
        bookkeeping.advance(books, job_id, ACTOR, State.SENDING, "3 files written", now)
        assert deliver(job_id, settings, books, spool, now) is State.DONE
        assert pacs.requests == 3


def test_a_file_that_is_taken_is_due_for_nobody_else_until_its_time_is_over(books: Books, spool: Spool, now: datetime):
    job_id = finished_job(books, spool, now, State.PROCESSING)
    assert len(bookkeeping.take(books, job_id, "pacs", now)) == 3
    assert bookkeeping.take(books, job_id, "pacs", now) == []
    assert bookkeeping.due(books, job_id, "pacs", now + 29 * SECOND) == []
    assert len(bookkeeping.take(books, job_id, "pacs", now + 30 * SECOND)) == 3  # whoever took them has died
