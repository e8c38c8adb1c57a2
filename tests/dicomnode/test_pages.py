"""dicomnode.pages: a study that had a candidate and got no maps says so, once, and not when maps come after all."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from pydicom import dcmread

from dicomnode import bookkeeping, config, delivery, explain, pages, pipeline, tasks
from dicomnode.bookkeeping import ACTOR, Answer, Books, Result
from dicomnode.config import Settings
from dicomnode.jobs import NO_MAPS, DeliveryState, State
from dicomnode.spool import Spool
from dicomnode.tasks import Desk
from dicomnode.writer import page
from inference.refusal import Refused
from tests import phantom
from tests.dicomnode.arrivals import arrive
from tests.dicomnode.test_sweep import Bench, other_series
from tests.pacs import Pacs

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(20), matrix=16)


@pytest.fixture
def bench(settings: Settings, books: Books, spool: Spool, monkeypatch) -> Bench:
    """A sweep, and a worker's desk over the same books."""
    monkeypatch.setattr(tasks, "desk", lambda: Desk(settings, books, spool))
    monkeypatch.setattr(tasks, "wake_deliver", lambda job_id: None)
    return Bench(settings, books, spool)


def opened(bench: Bench, study: str) -> list[bookkeeping.Job]:
    return [job for job in bookkeeping.story(bench.books, study).jobs if job.route == NO_MAPS]


def refused(bench: Bench, head, now: datetime) -> bookkeeping.Job:
    """The job of the page of a study whose only series is too short."""
    arrive(bench.intake, head[:6], now)
    bench.sweep.once(now + 61 * SECOND)
    (job,) = opened(bench, head[0].StudyInstanceUID)
    return job


def deliver(bench: Bench, job_id: str) -> bookkeeping.Job:
    job = bookkeeping.claim_sending(bench.books, job_id, ACTOR, datetime.now(UTC))
    assert job is not None
    delivery.run(job, bench.sweep.settings, bench.books, bench.spool)
    bookkeeping.let_go(bench.books, job_id, ACTOR)
    return bookkeeping.get_job(bench.books, job_id)


def test_a_refused_study_gets_its_page_in_the_pacs_and_explain_tells_it(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    assert (job.id, "stroke") in bench.processed
    tasks.process(job.id)
    with Pacs().running() as pacs:
        object.__setattr__(bench.sweep.settings, "destination", (pacs.destination(),))
        assert deliver(bench, job.id).state is State.DONE
    (ds,) = pacs.received
    assert ds.StudyInstanceUID == head[0].StudyInstanceUID
    assert ds.SeriesDescription == "No synthetic perfusion: too-few-slices"
    assert "the series holds 6 slices" in ds.ImageComments
    assert {item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence} == {s.SOPInstanceUID for s in head[:6]}
    said = "\n".join(explain.tell(bench.books, job.id))
    assert f"Page for want of maps {job.id}" not in said
    assert "Page for want of maps, revision 1" in said
    assert "no maps: too-few-slices: the series holds 6 slices" in said
    assert "From the last slice" not in said


def test_there_is_one_page_and_no_other(bench: Bench, head, now: datetime):
    refused(bench, head, now)
    for late in (62, 70, 200):
        bench.sweep.once(now + late * SECOND)
    arrive(bench.intake, head[6:8], now + 300 * SECOND, "A2")
    for late in (362, 400):
        bench.sweep.once(now + late * SECOND)
    assert len(opened(bench, head[0].StudyInstanceUID)) == 1


def test_no_page_while_the_study_is_still_coming(bench: Bench, head, now: datetime):
    arrive(bench.intake, head[:6], now)
    arrive(bench.intake, other_series(head)[:1], now + 50 * SECOND, "A2")
    bench.sweep.once(now + 61 * SECOND)
    assert opened(bench, head[0].StudyInstanceUID) == []
    bench.sweep.once(now + 111 * SECOND)
    (job,) = opened(bench, head[0].StudyInstanceUID)
    series = {i.series for i in bookkeeping.inputs(bench.books, job.id)}
    assert series == {head[0].SeriesInstanceUID}  # the one with more slices came nearer


@pytest.mark.parametrize(
    "elements",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"BodyPartExamined": "CHEST"},
        {"SyntheticData": "YES"},
        {"ContrastBolusAgent": "Iomeprol"},
    ],
)
def test_nobody_waits_for_maps_of_what_was_no_candidate(bench: Bench, head, now: datetime, elements):
    arrive(bench.intake, other_series(head, **elements), now)
    bench.sweep.once(now + 61 * SECOND)
    assert opened(bench, head[0].StudyInstanceUID) == []


def test_a_study_whose_other_series_is_used_gets_no_page(bench: Bench, head, now: datetime):
    arrive(bench.intake, other_series(head)[:6], now)
    arrive(bench.intake, head, now, "A2")
    for late in (3, 61, 200):
        bench.sweep.once(now + late * SECOND)
    assert opened(bench, head[0].StudyInstanceUID) == []


def test_no_destination_wants_a_page(bench: Bench, head, now: datetime):
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "refusal_page": False}
    object.__setattr__(bench.sweep.settings, "destination", config.parse({"destination": [peer]}).destination)
    arrive(bench.intake, head[:6], now)
    bench.sweep.once(now + 61 * SECOND)
    assert opened(bench, head[0].StudyInstanceUID) == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused("partial-brain", "the top of the brain is cut off"), "partial-brain", "the top of the brain"),
        (ZeroDivisionError("of ours"), "failed", "could not be computed"),
        (Refused("contrast", "vessels as dense as contrast"), "contrast", "vessels as dense"),
        (Refused("not-head", "no brain is found in the series"), None, ""),
        (Refused("phantom", "this is a phantom"), None, ""),
    ],
)
def test_a_job_of_which_no_maps_came_is_told_too(bench: Bench, head, now: datetime, monkeypatch, error, code, words):
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 2 * SECOND)
    ((job_id, _),) = bench.processed

    def run(*_):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "run", run)
        tasks.process(job_id)
    bench.sweep.once(now + 61 * SECOND)
    found = opened(bench, head[0].StudyInstanceUID)
    assert len(found) == (code is not None)
    for job in found:
        tasks.process(job.id)
        (row,) = bookkeeping.results(bench.books, job.id)
        ds = dcmread(bench.spool.path(row.path))
        assert ds.SeriesDescription == f"No synthetic perfusion: {code}"
        assert words in ds.ImageComments
        assert row.kind == page.KIND == pages.KIND
        assert len(ds.SourceImageSequence) == 20


@pytest.mark.parametrize(("taken", "pages_opened"), [(True, 0), (False, 1)])
def test_maps_of_which_some_stand_in_the_pacs_are_not_denied(bench: Bench, head, now: datetime, taken, pages_opened):
    """Files go out while the rest is written; where the job then fails, a page would contradict the viewer."""
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 2 * SECOND)
    ((job_id, _),) = bench.processed
    bookkeeping.claim(bench.books, job_id, "w1", now + 3 * SECOND)
    row = Result(
        sop_instance_uid="2.25.1",
        job=job_id,
        series_instance_uid="2.25.2",
        sop_class="1.2.840.10008.5.1.4.1.1.7",
        kind="sc",
        map="CBF",
        index=0,
        path="results/x/1.dcm",
        sha256="0" * 64,
    )
    bookkeeping.note_results(bench.books, "w1", [row], [("pacs", frozenset({"sc"}))], now + 4 * SECOND)
    (due,) = bookkeeping.due(bench.books, job_id, "pacs", now + 5 * SECOND)
    if taken:
        stored = Answer(due.delivery, DeliveryState.SENT, "stored", now + 5 * SECOND)
        bookkeeping.note_answers(bench.books, job_id, "pacs", [stored], now + 5 * SECOND)
    bookkeeping.advance(bench.books, job_id, "w1", State.FAILED, "not computed in time", now + 6 * SECOND)
    bench.sweep.once(now + 70 * SECOND)
    assert len(opened(bench, head[0].StudyInstanceUID)) == pages_opened


def usable(bench: Bench, head, now: datetime) -> None:
    """A series comes that maps can be made of."""
    arrive(bench.intake, other_series(head), now + 70 * SECOND, "A2")
    bench.sweep.once(now + 72 * SECOND)


def test_a_usable_series_before_the_page_is_made_means_no_page(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    usable(bench, head, now)
    tasks.process(job.id)
    job = bookkeeping.get_job(bench.books, job.id)
    assert (job.state, job.reason_code) == (State.REJECTED, "superseded")
    assert bookkeeping.results(bench.books, job.id) == []


def test_a_usable_series_before_the_page_is_sent_means_no_page(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    tasks.process(job.id)
    usable(bench, head, now)
    with Pacs().running() as pacs:
        object.__setattr__(bench.sweep.settings, "destination", (pacs.destination(),))
        assert deliver(bench, job.id).state is State.DONE
    assert pacs.received == []
    assert "1 files WITHDRAWN at pacs: maps of the study are being made" in "\n".join(explain.tell(bench.books, job.id))


def test_a_page_that_was_withdrawn_is_made_again_where_the_maps_fail(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    usable(bench, head, now)
    tasks.process(job.id)
    (maps,) = {job_id for job_id, _ in bench.processed} - {job.id}
    bookkeeping.claim(bench.books, maps, "w1", now + 73 * SECOND)
    bookkeeping.advance(bench.books, maps, "w1", State.REJECTED, "it moved", now + 74 * SECOND, "motion")
    bench.sweep.once(now + 140 * SECOND)
    again = [each for each in opened(bench, head[0].StudyInstanceUID) if each.id != job.id]
    assert [each.state for each in again] == [State.QUEUED]


def test_a_page_never_stands_in_for_maps_in_a_resend(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    tasks.process(job.id)
    study = head[0].StudyInstanceUID
    assert bookkeeping.current(bench.books, study) == [job.id]
    usable(bench, head, now)
    (maps,) = {job_id for job_id, _ in bench.processed} - {job.id}
    bookkeeping.claim(bench.books, maps, "w1", now + 73 * SECOND)
    bookkeeping.advance(bench.books, maps, "w1", State.SENDING, "written", now + 74 * SECOND)
    assert bookkeeping.current(bench.books, study) == [maps]


def test_a_pacs_that_refuses_the_page_fails_its_job_loudly(bench: Bench, head, now: datetime):
    job = refused(bench, head, now)
    tasks.process(job.id)
    with Pacs(answer=lambda n: 0xA900).running() as pacs:
        object.__setattr__(bench.sweep.settings, "destination", (pacs.destination(),))
        ended = deliver(bench, job.id)
    assert ended.state is State.FAILED
    assert "nothing is stored at pacs" in (ended.reason or "")


def test_a_refused_page_leaves_the_other_series_alone(bench: Bench, head, now: datetime):
    """Only a job of maps that fails has its siblings judged again."""
    job = refused(bench, head, now)
    usable(bench, head, now)
    arrive(bench.intake, other_series(deepcopy(head), ".8"), now + 75 * SECOND, "A3")
    bench.sweep.once(now + 78 * SECOND)
    tasks.process(job.id)
    story = bookkeeping.story(bench.books, head[0].StudyInstanceUID)
    assert sorted(s.state for s in story.series) == ["NOT_SELECTED", "REFUSED", "SELECTED"]
