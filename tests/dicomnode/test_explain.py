"""dicomnode.explain: one answer to "where are my maps?"."""

from datetime import datetime, timedelta

import pytest

from dicomnode import bookkeeping, eligibility, explain
from dicomnode.bookkeeping import ACTOR, Answer, Books
from dicomnode.jobs import DeliveryState, SeriesState, State
from tests.dicomnode.arrivals import only_series
from tests.dicomnode.test_bookkeeping import order, result, series_of

SECOND = timedelta(seconds=1)


def test_a_delivered_study_is_told_from_the_first_slice_to_the_last_answer(books: Books, now: datetime):
    series_of(books, now)
    job_id = bookkeeping.open_job(books, order(books), now, now + 2 * SECOND)
    assert job_id is not None
    bookkeeping.claim(books, job_id, ACTOR, now + 3 * SECOND)
    bookkeeping.note_results(books, ACTOR, [result(job_id)], [("pacs", frozenset({"sc"}))], now + 5 * SECOND)
    bookkeeping.advance(books, job_id, ACTOR, State.SENDING, "1 files written", now + 5 * SECOND)
    due = bookkeeping.due(books, job_id, "pacs", now + 6 * SECOND)
    answer = Answer(due[0].delivery, DeliveryState.CONFIRMED, "0x0000: stored", now, "C-STORE status")
    bookkeeping.note_answers(books, job_id, "pacs", [answer], now + 7 * SECOND)
    bookkeeping.claim_sending(books, job_id, ACTOR, now + 7 * SECOND)
    bookkeeping.advance(books, job_id, ACTOR, State.DONE, "1 sc CONFIRMED at pacs", now + 7.5 * SECOND)
    text = "\n".join(explain.tell(books, "A"))
    for words in (
        "Study 1.1",
        "Accession number A, lane stroke",
        "3 instances, 09:00:00.000 to 09:00:00.000",
        "SELECTED: 3 slices, complete by geometry",
        "DONE: 1 sc CONFIRMED at pacs",
        "pacs: 1 files CONFIRMED (0x0000: stored)",
        "09:00:03.000     3.00 s  job    QUEUED -> PROCESSING: attempt 1 by ",
        "From the last slice to the last confirmation: 7.50 s",
    ):
        assert words in text


def test_a_refusal_says_what_to_do(books: Books, now: datetime):
    series_of(books, now)
    series = only_series(books)
    bookkeeping.close_series(books, series, SeriesState.REFUSED, "contrast was given", now, code="contrast")
    text = "\n".join(explain.tell(books, "1.1"))
    assert "REFUSED: contrast: contrast was given" in text
    assert "What to do (contrast): send the non-contrast series" in text


def test_an_unknown_key_tells_nothing(books: Books):
    assert list(explain.tell(books, "1.2.3")) == []


def test_status_shows_what_waits_and_what_was_refused_at_the_door(books: Books, now: datetime):
    series_of(books, now)
    bookkeeping.note_refusal(books, "association", "192.0.2.9", "unlisted-source", "X is not a [[source]]", now)
    text = "\n".join(explain.state_of_the_node(books, now + 30 * SECOND))
    assert "series      1 RECEIVING" in text
    assert "3 instances, quiet for 30 s" in text
    assert "1 x association" in text
    assert "add the sender to node.toml" in text


def test_a_job_that_waits_or_whose_worker_is_silent_is_told_with_the_moment(books: Books, now: datetime):
    series_of(books, now)
    job_id = bookkeeping.open_job(books, order(books), now, now)
    assert job_id is not None
    text = "\n".join(explain.state_of_the_node(books, now + 40 * SECOND))
    assert "waiting     1 stroke, the first since 09:00:00.000 (40 s)" in text
    bookkeeping.claim(books, job_id, "north:7", now + 50 * SECOND)
    assert bookkeeping.heartbeat(books, job_id, "north:7", now + 55 * SECOND)
    for moment, silent in ((now + 74 * SECOND, False), (now + 76 * SECOND, True)):
        for text in (
            "\n".join(explain.state_of_the_node(books, moment)),
            "\n".join(explain.tell(books, job_id, moment)),
        ):
            assert ("stalled since 09:00:55.000: worker north:7 gives no sign" in text) is silent
            assert "waiting  " not in text


@pytest.mark.parametrize("code", [code for code, _ in eligibility.RULES])
def test_every_refusal_by_header_is_told_apart_from_the_others(code):
    assert code == code.lower()
    assert " " not in code
