"""dicomnode.bookkeeping: atomic, append-only, UTC, and the same on SQLite and PostgreSQL."""

import threading
from collections import Counter
from datetime import datetime, timedelta

import pytest
from sqlalchemy import inspect, text

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Answer, Books, BooksOutdated, LeaseLost, Order, Peer, Received, Result
from dicomnode.bookkeeping.tables import Base
from dicomnode.jobs import DeliveryState, Lane, SeriesState, State
from tests.dicomnode.arrivals import only_series, peer

SECOND = timedelta(seconds=1)


def received(n: int = 0, **other: str) -> Received:
    values: dict = {
        "study_instance_uid": "1.1",
        "series_instance_uid": "1.2",
        "sop_instance_uid": f"1.3.{n}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "patient_id": "P",
        "accession_number": "A",
        "modality": "CT",
        "series_description": "Head",
        "transfer_syntax": "1.2.840.10008.1.2.1",
        "sha256": f"{n:064d}",
        "path": f"in/{n}.dcm",
        "bytes": 100,
    }
    return Received(**{**values, **other})


def series_of(books: Books, now: datetime, count: int = 3) -> None:
    for n in range(count):
        bookkeeping.note_instance(books, received(n), peer(now), now)
    bookkeeping.release(books, "A1", now)


def order(books: Books, key: str = "k1", **other) -> Order:
    series = only_series(books)
    values = {
        "key": key,
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "route": "ncct",
        "engine": "torch",
        "instances": tuple(i.id for i in series.instances),
        "completed_by": "geometry",
        "why": "3 slices, complete by geometry",
    }
    return Order(**{**values, **other})


@pytest.fixture
def job(books: Books, now: datetime) -> str:
    """A queued job of three instances."""
    series_of(books, now)
    job_id = bookkeeping.open_job(books, order(books), now, now)
    assert job_id is not None
    return job_id


def result(job_id: str, index: int = 0, kind: str = "sc") -> Result:
    return Result(
        sop_instance_uid=f"2.25.{kind == 'pm':d}{index}",
        job=job_id,
        series_instance_uid="2.25.9",
        sop_class="1.2.840.10008.5.1.4.1.1.7",
        kind=kind,
        map="CBF",
        index=index,
        path=f"results/{job_id}/{kind}-CBF-{index:03d}.dcm",
        sha256="0" * 64,
    )


def history(books: Books, job_id: str) -> list[tuple[str | None, str]]:
    (study,) = bookkeeping.find_studies(books, job_id)
    return [(h.before, h.after) for h in bookkeeping.story(books, study).history if h.subject == "job"]


# Tables


def test_the_migration_makes_exactly_the_tables_of_the_code(books_url: str):
    bookkeeping.migrate(books_url)
    bookkeeping.migrate(books_url)  # a second time changes nothing
    engine = bookkeeping.open_books(books_url).kw["bind"]
    inspector = inspect(engine)
    for table in Base.metadata.sorted_tables:
        assert {c["name"] for c in inspector.get_columns(table.name)} == {c.name for c in table.columns}
        unique = {tuple(u["column_names"]) for u in inspector.get_unique_constraints(table.name)}
        assert unique == {
            tuple(c.name for c in k.columns) for k in table.constraints if type(k).__name__ == "UniqueConstraint"
        }
    engine.dispose()


def test_books_of_another_version_are_not_opened(books_url: str):
    with pytest.raises(BooksOutdated, match="dicomnode migrate"):
        bookkeeping.open_books(books_url)


def test_a_moment_without_a_zone_is_refused(books: Books, now: datetime):
    with pytest.raises(Exception, match="no time zone"):
        bookkeeping.note_instance(books, received(), peer(now), now.replace(tzinfo=None))


def test_moments_come_back_in_utc(books: Books, now: datetime):
    zone = now.astimezone().tzinfo
    bookkeeping.note_instance(books, received(), peer(now), now.astimezone(zone))
    assert only_series(books).last_received_at == now
    assert only_series(books).last_received_at.utcoffset() == timedelta(0)


# Arrivals


def test_the_same_bytes_twice_are_one_instance_and_other_bytes_are_another(books: Books, now: datetime):
    assert bookkeeping.note_instance(books, received(), peer(now), now)
    assert not bookkeeping.note_instance(books, received(path="in/again.dcm"), peer(now), now + SECOND)
    assert only_series(books).last_received_at == now
    assert bookkeeping.note_instance(books, received(sha256="f" * 64), peer(now), now)


def test_associations_in_parallel_lose_and_double_nothing(books: Books, now: datetime):
    def send(association: int) -> None:
        for n in range(20):
            bookkeeping.note_instance(books, received(n), peer(now, f"A{association}"), now)

    threads = [threading.Thread(target=send, args=(a,)) for a in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paths = Counter(i.sop_instance_uid for i in only_series(books).instances)
    assert len(paths) == 20
    assert set(paths.values()) == {1}


def test_open_associations_are_counted_until_they_are_released(books: Books, now: datetime):
    bookkeeping.note_instance(books, received(0), peer(now, "A1"), now)
    bookkeeping.note_instance(books, received(1), peer(now, "A2"), now)
    assert only_series(books).open_associations == 2
    bookkeeping.release(books, "A1", now + SECOND)
    bookkeeping.release(books, "A1", now + 5 * SECOND)  # the first release counts
    assert (only_series(books).open_associations, only_series(books).last_released_at) == (1, now + SECOND)
    assert bookkeeping.release_all(books, now + 2 * SECOND) == 1
    assert (only_series(books).open_associations, only_series(books).last_released_at) == (0, now + 2 * SECOND)


def test_a_late_instance_opens_a_closed_series_again(books: Books, now: datetime):
    series_of(books, now)
    series = only_series(books)
    assert bookkeeping.close_series(books, series, SeriesState.REFUSED, "too few", now, code="too-few-slices")
    assert bookkeeping.receiving(books) == []
    bookkeeping.note_instance(books, received(9), peer(now, "A2"), now + SECOND)
    assert len(only_series(books).instances) == 4
    assert bookkeeping.story(books, "1.1").series[0].reason_code is None


def test_a_series_is_not_closed_over_an_instance_that_came_in_between(books: Books, now: datetime):
    series_of(books, now)
    stale = only_series(books)
    bookkeeping.note_instance(books, received(9), peer(now), now + SECOND)
    assert not bookkeeping.close_series(books, stale, SeriesState.REFUSED, "too few", now)
    assert bookkeeping.open_job(books, order(books), stale.last_received_at, now) is None
    assert only_series(books).last_received_at == now + SECOND


def test_the_first_sender_sets_the_lane(books: Books, now: datetime):
    bookkeeping.note_instance(books, received(0), peer(now, "A1", Lane.ROUTINE), now)
    bookkeeping.note_instance(books, received(1), peer(now, "A2", Lane.STROKE), now)
    assert bookkeeping.story(books, "1.1").study.lane is Lane.ROUTINE


# Jobs


def test_the_same_inputs_are_the_same_job(books: Books, now: datetime, job: str):
    bookkeeping.note_instance(books, received(9), peer(now, "A2"), now + SECOND)
    again = bookkeeping.open_job(books, order(books), now + SECOND, now + SECOND)
    assert again is None
    assert bookkeeping.receiving(books) == []
    assert [j.id for j in bookkeeping.story(books, "1.1").jobs] == [job]


def test_more_inputs_are_the_next_revision(books: Books, now: datetime, job: str):
    bookkeeping.note_instance(books, received(9), peer(now, "A2"), now + SECOND)
    second = bookkeeping.open_job(books, order(books, key="k2"), now + SECOND, now + SECOND)
    assert second is not None
    found = bookkeeping.get_job(books, second)
    assert (found.revision, found.supersedes, found.lane) == (2, job, Lane.STROKE)
    assert bookkeeping.revision_of(books, found.supersedes) == 1
    assert len(bookkeeping.inputs(books, second)) == 4
    assert len(bookkeeping.inputs(books, job)) == 3


def test_one_of_many_workers_claims_a_job(books: Books, now: datetime, job: str):
    won = []

    def claim(owner: str) -> None:
        if bookkeeping.claim(books, job, owner, now):
            won.append(owner)

    threads = [threading.Thread(target=claim, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert bookkeeping.get_job(books, job).attempts == 1


def test_only_the_holder_of_the_lease_moves_a_job(books: Books, now: datetime, job: str):
    bookkeeping.claim(books, job, "w1", now)
    assert bookkeeping.heartbeat(books, job, "w1", now + SECOND)
    assert not bookkeeping.heartbeat(books, job, "w2", now + SECOND)
    with pytest.raises(LeaseLost):
        bookkeeping.advance(books, job, "w2", State.SENDING, "stolen", now)
    bookkeeping.advance(books, job, "w1", State.SENDING, "5 files written", now)
    assert bookkeeping.get_job(books, job).lease_owner is None
    assert history(books, job) == [(None, "QUEUED"), ("QUEUED", "PROCESSING"), ("PROCESSING", "SENDING")]


def test_a_transition_outside_the_table_does_not_happen(books: Books, now: datetime, job: str):
    bookkeeping.claim(books, job, "w1", now)
    with pytest.raises(LeaseLost, match="DONE was not recorded"):
        bookkeeping.advance(books, job, "w1", State.DONE, "too early", now)
    assert bookkeeping.get_job(books, job).state is State.PROCESSING


def test_a_vanished_worker_costs_the_lease_and_three_cost_the_job(books: Books, now: datetime, job: str):
    for attempt in range(1, bookkeeping.ATTEMPTS + 1):
        assert bookkeeping.claim(books, job, f"w{attempt}", now)
        assert bookkeeping.reap(books, now + 20 * SECOND) == []
        assert bookkeeping.reap(books, now + 21 * SECOND) == [job]
    found = bookkeeping.get_job(books, job)
    assert found.state is State.FAILED
    assert "attempt 3 of 3" in (found.reason or "")
    assert bookkeeping.claim(books, job, "w4", now) is None


@pytest.mark.parametrize("books_url", ["postgresql"], indirect=True)
def test_the_reaper_leaves_a_job_that_its_worker_is_finishing(books: Books, now: datetime, job: str):
    """SQLite has one writer, so the two cannot meet there."""
    bookkeeping.claim(books, job, "w1", now)
    with books.begin() as finishing:
        finishing.execute(text("UPDATE job SET state = 'SENDING' WHERE id = :id"), {"id": job})
        assert bookkeeping.reap(books, now + 60 * SECOND) == []
    assert bookkeeping.get_job(books, job).state is State.SENDING


def test_a_heartbeat_keeps_the_reaper_away(books: Books, now: datetime, job: str):
    bookkeeping.claim(books, job, "w1", now)
    bookkeeping.heartbeat(books, job, "w1", now + 19 * SECOND)
    assert bookkeeping.reap(books, now + 38 * SECOND) == []


def test_a_forgotten_job_is_offered_again_every_five_seconds(books: Books, now: datetime, job: str):
    assert bookkeeping.unclaimed(books, Lane.STROKE, now + 5 * SECOND) == []
    assert bookkeeping.unclaimed(books, Lane.ROUTINE, now + 6 * SECOND) == []
    assert bookkeeping.unclaimed(books, Lane.STROKE, now + 6 * SECOND) == [job]
    assert bookkeeping.unclaimed(books, Lane.STROKE, now + 7 * SECOND) == []


# Results and deliveries


@pytest.fixture
def sending(books: Books, now: datetime, job: str) -> str:
    """A job with two captures and a parametric map, for two destinations of which one wants captures only."""
    bookkeeping.claim(books, job, "w1", now)
    rows = [result(job, 0), result(job, 1), result(job, 0, "pm")]
    both = [("pacs", frozenset({"sc", "pm"})), ("archive", frozenset({"sc"}))]
    bookkeeping.note_results(books, "w1", rows, both, now)
    bookkeeping.note_results(books, "w1", [result(job, 0)], both, now)  # a resumed job records nothing twice
    bookkeeping.advance(books, job, "w1", State.SENDING, "3 files written", now)
    return job


def deliver(books: Books, job_id: str, destination: str, now: datetime, state: DeliveryState, kind: str = "") -> None:
    due = [d for d in bookkeeping.due(books, job_id, destination, now) if kind in d.path]
    answers = [Answer(d.delivery, state, "said so", now) for d in due]
    bookkeeping.note_answers(books, job_id, destination, answers, now)


def test_results_are_due_where_they_are_wanted_captures_first(books: Books, now: datetime, sending: str):
    assert [d.path.split("/")[-1][:2] for d in bookkeeping.due(books, sending, "pacs", now)] == ["sc", "sc", "pm"]
    assert len(bookkeeping.due(books, sending, "archive", now)) == 2
    assert bookkeeping.due(books, sending, "pacs", now - SECOND) == []
    assert len(bookkeeping.results(books, sending)) == 3


def test_files_of_a_lost_lease_are_not_recorded(books: Books, now: datetime, job: str):
    bookkeeping.claim(books, job, "w1", now)
    with pytest.raises(LeaseLost):
        bookkeeping.note_results(books, "w2", [result(job)], [], now)
    assert bookkeeping.results(books, job) == []


def test_a_job_is_done_when_every_required_destination_holds_everything(books: Books, now: datetime, sending: str):
    deliver(books, sending, "archive", now, DeliveryState.CONFIRMED)
    assert bookkeeping.outcome(books, sending, ["pacs", "archive"]) is None
    assert bookkeeping.outcome(books, sending, ["archive"]) == (State.DONE, "2 sc CONFIRMED at archive")
    deliver(books, sending, "pacs", now, DeliveryState.CONFIRMED)
    ended = bookkeeping.outcome(books, sending, ["pacs", "archive"])
    assert ended is not None
    assert ended[0] is State.DONE


@pytest.mark.parametrize(
    ("kind", "state", "ended"),
    [
        ("pm", DeliveryState.REFUSED, State.DONE),  # a PACS may not take parametric maps
        ("sc", DeliveryState.REFUSED, State.FAILED),  # a picture series with holes misleads
        ("pm", DeliveryState.DEAD, State.FAILED),
    ],
)
def test_what_may_be_refused_and_what_not(books: Books, now: datetime, sending: str, kind, state, ended):
    deliver(books, sending, "pacs", now, state, f"/{kind}-")
    deliver(books, sending, "pacs", now, DeliveryState.CONFIRMED)
    outcome = bookkeeping.outcome(books, sending, ["pacs"])
    assert outcome is not None
    assert outcome[0] is ended
    assert f"{kind} {state}" in outcome[1]


def test_nothing_stored_is_never_done(books: Books, now: datetime, sending: str):
    deliver(books, sending, "pacs", now, DeliveryState.REFUSED)
    outcome = bookkeeping.outcome(books, sending, ["pacs"])
    assert outcome is not None
    assert outcome[0] is State.FAILED


def test_a_job_is_offered_to_senders_when_something_is_due_and_nobody_holds_it(
    books: Books, now: datetime, sending: str
):
    def offered(seconds: float) -> bool:
        return bookkeeping.to_send(books, ["pacs", "archive"], now + seconds * SECOND) == [sending]

    assert not offered(1)
    assert offered(3)
    assert not offered(4)  # every two seconds at most
    assert offered(6)
    assert bookkeeping.claim_sending(books, sending, "s1", now + 7 * SECOND) is not None
    assert bookkeeping.claim_sending(books, sending, "s2", now + 7 * SECOND) is None
    assert not offered(20)
    assert offered(28)  # the sender has vanished


def test_an_optional_destination_is_served_after_the_job_is_done(books: Books, now: datetime, sending: str):
    deliver(books, sending, "pacs", now, DeliveryState.CONFIRMED)
    due = bookkeeping.due(books, sending, "archive", now)
    later = [Answer(d.delivery, DeliveryState.PENDING, "away", now + 60 * SECOND) for d in due]
    bookkeeping.note_answers(books, sending, "archive", later, now)
    bookkeeping.claim_sending(books, sending, "s1", now)
    bookkeeping.advance(books, sending, "s1", State.DONE, "pacs has all", now)
    assert bookkeeping.to_send(books, ["pacs", "archive"], now + 59 * SECOND) == []
    assert bookkeeping.to_send(books, ["pacs"], now + 61 * SECOND) == []  # archive is configured no more
    assert bookkeeping.to_send(books, ["pacs", "archive"], now + 61 * SECOND) == [sending]
    assert bookkeeping.claim_sending(books, sending, "s1", now + 61 * SECOND) is not None


def test_an_operator_brings_back_what_failed_and_nothing_else(books: Books, now: datetime, sending: str):
    assert not bookkeeping.retry(books, sending, now)
    deliver(books, sending, "pacs", now, DeliveryState.REFUSED)
    bookkeeping.claim_sending(books, sending, "s1", now)
    bookkeeping.advance(books, sending, "s1", State.FAILED, "refused", now)
    assert bookkeeping.due(books, sending, "pacs", now) == []
    assert bookkeeping.retry(books, sending, now)
    assert bookkeeping.get_job(books, sending).state is State.SENDING  # its files are finished; no worker is needed
    assert history(books, sending)[-1] == ("FAILED", "SENDING")
    assert len(bookkeeping.due(books, sending, "pacs", now)) == 3
    assert len(bookkeeping.results(books, sending)) == 3  # finished files are kept
    assert bookkeeping.to_send(books, ["pacs"], now) == [sending]


def test_a_job_that_failed_before_its_files_were_finished_goes_through_a_worker_again(books: Books, now, job: str):
    bookkeeping.claim(books, job, "w1", now)
    bookkeeping.advance(books, job, "w1", State.FAILED, "our mistake", now)
    assert bookkeeping.retry(books, job, now)
    assert bookkeeping.get_job(books, job).state is State.QUEUED
    assert bookkeeping.unclaimed(books, Lane.STROKE, now + SECOND) == [job]


def test_what_the_world_made_fail_waits_ever_longer_and_loses_no_attempt(books: Books, now: datetime, job: str):
    waits = []
    for minutes in (0, 0.5, 10):
        at = now + minutes * 60 * SECOND
        bookkeeping.claim(books, job, "w1", at)
        bookkeeping.put_off(books, job, "w1", "OSError: disk full", at)
        offered = next(s for s in range(200) if bookkeeping.unclaimed(books, Lane.STROKE, at + s * SECOND))
        waits.append(offered)
        assert (bookkeeping.get_job(books, job).state, bookkeeping.get_job(books, job).attempts) == (State.QUEUED, 0)
    assert waits == [6, 31, 61]
    with pytest.raises(LeaseLost):
        bookkeeping.put_off(books, job, "w1", "disk full", now)
    late = now + timedelta(days=1)
    bookkeeping.claim(books, job, "w1", late)
    bookkeeping.put_off(books, job, "w1", "OSError: disk full", late)
    assert bookkeeping.get_job(books, job).state is State.FAILED


def test_an_unchanged_answer_is_no_news(books: Books, now: datetime, sending: str):
    for _ in range(5):
        due = bookkeeping.due(books, sending, "pacs", now)
        away = [Answer(d.delivery, DeliveryState.PENDING, "away", now) for d in due]
        bookkeeping.note_answers(books, sending, "pacs", away, now)
    assert [after for _, after in history(books, sending)].count("3 files PENDING at pacs") == 1
    assert {d.attempts for d in bookkeeping.due(books, sending, "pacs", now)} == {5}


def test_when_the_chosen_series_fails_the_others_are_judged_again(books: Books, now: datetime, job: str):
    bookkeeping.note_instance(books, received(20, series_instance_uid="1.2.9"), peer(now, "A3"), now)
    assert bookkeeping.selected_series(books, "1.1").series_instance_uid == "1.2"
    other = only_series(books)
    bookkeeping.close_series(books, other, SeriesState.NOT_SELECTED, "series 1.2 was chosen", now)
    bookkeeping.claim(books, job, "w1", now)
    bookkeeping.advance(books, job, "w1", State.REJECTED, "no brain", now, "not-head")
    assert only_series(books).series_instance_uid == "1.2.9"
    assert bookkeeping.selected_series(books, "1.1") is None
    second = bookkeeping.open_job(books, order(books, key="k9"), now, now)
    assert second is not None
    found = bookkeeping.get_job(books, second)
    assert (found.revision, found.supersedes) == (1, None)  # what left nothing is not replaced


def test_the_patients_of_a_study_are_those_of_its_newest_instances(books: Books, now: datetime):
    series_of(books, now)
    bookkeeping.note_instance(books, received(1, patient_id="Q ", sha256="9" * 64, path="in/9.dcm"), peer(now), now)
    assert bookkeeping.patients(books, "1.1") == {"P", "Q"}
    for n in (0, 2):
        again = received(n, patient_id="Q", sha256=f"{n + 50:064d}", path=f"in/{n + 50}.dcm")
        bookkeeping.note_instance(books, again, peer(now), now)
    assert bookkeeping.patients(books, "1.1") == {"Q"}
    bookkeeping.note_instance(books, received(4, patient_id=""), peer(now), now)
    assert bookkeeping.patients(books, "1.1") == {"Q"}  # who names nobody contradicts nobody
    assert bookkeeping.patients(books, "1.9") == set()


def test_warnings_are_added_to_a_job_once_and_told(books: Books, now: datetime, job: str):
    for _ in range(2):
        assert bookkeeping.note_warnings(books, job, ("It is small.", "It is old."), now) == (
            "It is small.",
            "It is old.",
        )
    assert bookkeeping.get_job(books, job).warnings == "It is small.\nIt is old."
    assert [after for _, after in history(books, job)].count("WARNED") == 1


def test_a_refused_series_that_is_sent_again_is_judged_again(books: Books, now: datetime):
    series_of(books, now)
    bookkeeping.close_series(books, only_series(books), SeriesState.REFUSED, "simulated", now, code="simulated-input")
    assert not bookkeeping.note_instance(books, received(0), peer(now, "A2"), now + SECOND)
    assert len(only_series(books).instances) == 3


def test_an_instance_that_came_with_other_bytes_counts_once_and_the_newest(books: Books, now: datetime):
    series_of(books, now)
    bookkeeping.note_instance(books, received(1, sha256="f" * 64, path="in/new.dcm"), peer(now, "A2"), now)
    assert sorted(i.path for i in only_series(books).instances) == ["in/0.dcm", "in/2.dcm", "in/new.dcm"]


def test_our_own_objects_are_known(books: Books, sending: str):
    assert bookkeeping.are_ours(books, ["1.2.3", "2.25.00"])
    assert not bookkeeping.are_ours(books, ["1.2.3"])


def test_a_story_is_found_by_any_of_its_names(books: Books, sending: str):
    for key in ("A", "1.1", "1.2", sending):
        assert bookkeeping.find_studies(books, key) == ["1.1"]
    assert bookkeeping.find_studies(books, "nothing") == []
    assert bookkeeping.find_studies(books, "") == []


def test_history_is_only_ever_added_to(books: Books, now: datetime, sending: str):
    """No statement of the books updates or deletes history: the rows read before stand unchanged after everything."""
    with books() as session:
        earlier = session.execute(text("SELECT id, at, after, why FROM history ORDER BY id")).all()
    deliver(books, sending, "pacs", now, DeliveryState.CONFIRMED)
    with books() as session:
        later = session.execute(text("SELECT id, at, after, why FROM history ORDER BY id")).all()
    assert later[: len(earlier)] == earlier
    assert len(later) == len(earlier) + 1


def test_refusals_at_the_door_are_counted(books: Books, now: datetime):
    for n in range(3):
        bookkeeping.note_refusal(
            books, "association", "192.0.2.9", "unlisted-source", "X is not listed", now + n * SECOND
        )
    assert bookkeeping.refusals(books, "association", now) == [
        ("unlisted-source", "X is not listed", 3, now + 2 * SECOND)
    ]
    assert bookkeeping.refusals(books, "association", now + 3 * SECOND) == []


def test_counts_and_recent_jobs(books: Books, sending: str):
    assert bookkeeping.counts(books) == {
        "series": {"SELECTED": 1},
        "jobs": {"SENDING": 1},
        "deliveries": {"PENDING": 5},
    }
    assert [(j.id, a) for j, a in bookkeeping.recent_jobs(books)] == [(sending, "A")]


def test_peers_keep_their_names(books: Books, now: datetime):
    bookkeeping.note_instance(books, received(), Peer("A9", "CT2", "192.0.2.9", now, Lane.ROUTINE), now)
    assert only_series(books).instances[0].calling_ae_title == "CT2"
