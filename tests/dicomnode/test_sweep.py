"""dicomnode.sweep: whole series become jobs, others become a reason, and nothing lost stays lost."""

from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from dicomnode import bookkeeping, config, header
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.intake import Intake
from dicomnode.jobs import State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep, job_key
from inference import weights
from tests import phantom
from tests.dicomnode.arrivals import arrive, only_series, states

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(20), matrix=16)


class Bench:
    """A sweep with its wake-up calls written down, and the intake that feeds it."""

    def __init__(self, settings: Settings, books: Books, spool: Spool) -> None:
        self.processed: list[tuple[str, str]] = []
        self.delivered: list[str] = []
        self.foretold: list[tuple[str, list[int], str]] = []
        self.books, self.spool = books, spool
        self.intake = Intake(books, spool)
        self.sweep = Sweep(
            settings,
            books,
            spool,
            weights.read(weights.shipped()),
            lambda job_id, lane: self.processed.append((job_id, lane)),
            self.delivered.append,
        )
        self.seer = replace(
            self.sweep,
            foretell=lambda key, instances, lane: self.foretold.append((key, list(instances), lane)),
        )


@pytest.fixture
def bench(settings: Settings, books: Books, spool: Spool) -> Bench:
    return Bench(settings, books, spool)


def other_series(head, suffix: str = ".9", **elements):
    series = deepcopy(head)
    for ds in series:
        ds.SeriesInstanceUID = ds.SeriesInstanceUID[:-2] + suffix
        ds.SOPInstanceUID = ds.SOPInstanceUID[:-2] + suffix
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return series


def test_a_whole_series_becomes_one_job_two_seconds_after_the_release(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 1.9 * SECOND)
    assert bench.processed == []
    for late in (2.0, 2.5, 3.0):
        bench.sweep.once(now + late * SECOND)
    ((job_id, lane),) = bench.processed
    assert lane == "stroke"
    job = bookkeeping.get_job(bench.books, job_id)
    assert (job.state, job.route, job.revision, job.created_at) == (State.QUEUED, "ncct", 1, now + 2 * SECOND)
    assert len(bookkeeping.inputs(bench.books, job_id)) == 20
    assert states(bench.books, [head[0].SeriesInstanceUID]) == ["SELECTED"]


def test_what_is_whole_is_computed_while_its_quiet_time_runs(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    for late in (0.5, 1.0, 1.9):
        bench.seer.once(now + late * SECOND)
    ((key, instances, lane),) = bench.foretold
    bench.seer.once(now + 2 * SECOND)
    job_id = bookkeeping.job_of_key(bench.books, key)
    assert sorted(instances) == [instance.id for instance in bookkeeping.inputs(bench.books, job_id)]
    assert [instance.id for instance in bookkeeping.instances(bench.books, instances)] == sorted(instances)
    assert (lane, bench.processed) == ("stroke", [])  # whoever computes it looks for the job
    for late in (2.5, 3.0):
        bench.seer.once(now + late * SECOND)
    assert bench.processed == [(job_id, "stroke")]  # and where nobody does, somebody is woken, once


def test_a_slice_that_comes_in_the_quiet_time_is_another_job(bench: Bench, head, now: datetime):
    arrive(bench.intake, head[:-1], now)
    bench.seer.once(now + SECOND)
    arrive(bench.intake, head[-1:], now + 1.5 * SECOND, "A2")
    for late in (1.6, 2.5, 3.5):
        bench.seer.once(now + late * SECOND)
    ((key, instances, _),) = bench.foretold  # once: slices that come one by one are not computed one by one
    assert (len(instances), bookkeeping.job_of_key(bench.books, key)) == (19, None)
    ((job_id, _),) = bench.processed
    assert len(bookkeeping.inputs(bench.books, job_id)) == 20


def test_nothing_is_computed_ahead_while_a_job_waits(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    bench.seer.once(now + 2 * SECOND)
    second = other_series(head, StudyInstanceUID="1.2.3.4.5")
    arrive(bench.intake, second, now + 3 * SECOND, "A2")
    bench.seer.once(now + 4 * SECOND)
    assert bench.foretold == []


def test_of_several_series_the_best_is_computed_ahead_and_what_is_refused_is_not(bench: Bench, head, now: datetime):
    arrive(bench.intake, other_series(head, ConvolutionKernel="UNHEARD OF"), now, "A1")
    arrive(bench.intake, head, now, "A2")
    arrive(bench.intake, other_series(head, ".8", ImageType=["DERIVED", "SECONDARY", "MPR"]), now, "A3")
    bench.seer.once(now + SECOND)
    ((key, _, _),) = bench.foretold
    bench.seer.once(now + 2.1 * SECOND)
    job_id = bookkeeping.job_of_key(bench.books, key)
    assert {i.series for i in bookkeeping.inputs(bench.books, job_id)} == {head[0].SeriesInstanceUID}


def test_the_same_series_again_is_no_second_job(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 2 * SECOND)
    arrive(bench.intake, head, now + 10 * SECOND, "A2")
    bench.sweep.once(now + 13 * SECOND)
    assert len({job_id for job_id, _ in bench.processed}) == 1


def test_a_late_slice_is_the_next_revision(bench: Bench, head, now: datetime):
    arrive(bench.intake, head[:-1], now)
    bench.sweep.once(now + 2 * SECOND)
    arrive(bench.intake, head[-1:], now + 10 * SECOND, "A2")
    bench.sweep.once(now + 12 * SECOND)
    first, second = dict.fromkeys(job_id for job_id, _ in bench.processed)
    assert bookkeeping.get_job(bench.books, second).supersedes == first
    assert bookkeeping.get_job(bench.books, second).revision == 2


def test_a_series_with_one_gap_waits_a_minute_and_carries_a_warning(bench: Bench, head, now: datetime):
    arrive(bench.intake, head[:8] + head[9:], now)
    bench.sweep.once(now + 59 * SECOND)
    assert bench.processed == []
    bench.sweep.once(now + 60 * SECOND)
    ((job_id, _),) = bench.processed
    assert "INCOMPLETE SERIES" in bookkeeping.get_job(bench.books, job_id).warnings


@pytest.mark.parametrize(
    ("choose", "code"),
    [(lambda s: s[:6], "too-few-slices"), (lambda s: s[:5] + s[6:12] + s[13:], "gap"), (lambda s: s * 1, None)],
)
def test_a_series_that_cannot_be_used_is_refused_with_its_reason(bench: Bench, head, now: datetime, choose, code):
    arrive(bench.intake, choose(head), now)
    bench.sweep.once(now + 61 * SECOND)
    story = bookkeeping.story(bench.books, head[0].StudyInstanceUID)
    assert story.series[0].reason_code == code
    assert len([job for job in story.jobs if job.route == "ncct"]) == (code is None)


def test_a_localizer_is_refused_at_once_and_does_not_wait_for_a_minute(bench: Bench, head, now: datetime):
    localizer = other_series(head[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    arrive(bench.intake, [*localizer, *head], now)
    bench.sweep.once(now + 2 * SECOND)
    uids = [localizer[0].SeriesInstanceUID, head[0].SeriesInstanceUID]
    assert states(bench.books, uids) == ["REFUSED", "SELECTED"]


def test_a_second_series_of_the_study_is_not_selected_and_says_why(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 2 * SECOND)
    arrive(bench.intake, other_series(head), now + 5 * SECOND, "A2")
    bench.sweep.once(now + 8 * SECOND)
    series = bookkeeping.story(bench.books, head[0].StudyInstanceUID).series
    assert [s.state for s in series] == ["SELECTED", "NOT_SELECTED"]
    assert head[0].SeriesInstanceUID in (series[1].reason or "")
    assert len({job_id for job_id, _ in bench.processed}) == 1


THICK_BONE_STRANGE = ({"SliceThickness": 8.0}, {"ConvolutionKernel": "H60s"}, {"ConvolutionKernel": "made-here"})


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_of_many_series_one_is_used_in_whatever_order_they_come(bench: Bench, head, now: datetime, order):
    series = [head, *(other_series(head, f".{n}", **e) for n, e in enumerate(THICK_BONE_STRANGE, start=7))]
    arrive(bench.intake, [ds for i in order for ds in series[i]], now)
    bench.sweep.once(now + 2 * SECOND)
    uids = [each[0].SeriesInstanceUID for each in series]
    assert states(bench.books, uids) == ["SELECTED", "NOT_SELECTED", "REFUSED", "NOT_SELECTED"]
    story = bookkeeping.story(bench.books, head[0].StudyInstanceUID)
    why = {s.series_instance_uid: s.reason for s in story.series}
    assert "the thickness of its slices suits better" in why[uids[1]]
    assert "its kernel is known to be a soft one" in why[uids[3]]
    assert len(story.jobs) == 1


def test_a_better_series_that_comes_later_makes_the_next_revision(bench: Bench, head, now: datetime):
    strange = other_series(head, ".8", ConvolutionKernel="made-here")
    arrive(bench.intake, strange, now)
    bench.sweep.once(now + 2 * SECOND)
    arrive(bench.intake, head, now + 5 * SECOND, "A2")
    for late in (8, 9):
        bench.sweep.once(now + late * SECOND)
    first, second = dict.fromkeys(job_id for job_id, _ in bench.processed)
    assert bookkeeping.get_job(bench.books, second).supersedes == first
    story = bookkeeping.story(bench.books, head[0].StudyInstanceUID)
    state = {s.series_instance_uid: s for s in story.series}
    assert state[head[0].SeriesInstanceUID].state == "SELECTED"
    assert state[strange[0].SeriesInstanceUID].state == "NOT_SELECTED"
    assert "instead: its kernel is known" in state[strange[0].SeriesInstanceUID].reason


def test_a_scan_that_was_repeated_is_used_in_place_of_the_first(bench: Bench, head, now: datetime):
    again = other_series(head, AcquisitionTime="084500")
    arrive(bench.intake, [*again, *head], now)
    bench.sweep.once(now + 2 * SECOND)
    uids = [head[0].SeriesInstanceUID, again[0].SeriesInstanceUID]
    assert states(bench.books, uids) == ["NOT_SELECTED", "SELECTED"]


def test_a_better_series_that_comes_to_nothing_leaves_the_first_maps_in_place(bench: Bench, head, now: datetime):
    plain = other_series(head, ConvolutionKernel="made-here")
    arrive(bench.intake, plain, now)
    bench.sweep.once(now + 2 * SECOND)
    arrive(bench.intake, head, now + 5 * SECOND, "A2")
    bench.sweep.once(now + 8 * SECOND)
    first, second = dict.fromkeys(job_id for job_id, _ in bench.processed)
    bookkeeping.claim(bench.books, second, "w1", now + 9 * SECOND)
    bookkeeping.advance(bench.books, second, "w1", State.REJECTED, "it moved", now + 10 * SECOND, "motion")
    bench.sweep.once(now + 11 * SECOND)
    assert states(bench.books, [plain[0].SeriesInstanceUID]) == ["SELECTED"]
    assert {job_id for job_id, _ in bench.processed} == {first, second}
    assert bookkeeping.get_job(bench.books, first).state is State.QUEUED


def test_an_image_shown_again_replaces_the_older_one(bench: Bench, head, now: datetime):
    twin = deepcopy(head[7])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = twin.SOPInstanceUID[:-2] + ".9"
    twin.InstanceNumber = 99
    arrive(bench.intake, [*head, twin], now)
    bench.sweep.once(now + 2 * SECOND)
    ((job_id, _),) = bench.processed
    used = {instance.sop_instance_uid for instance in bookkeeping.inputs(bench.books, job_id)}
    assert len(used) == 20
    assert twin.SOPInstanceUID in used
    assert "Left out: 1 older images" in bookkeeping.get_job(bench.books, job_id).warnings


def test_nothing_is_made_of_a_study_with_two_patients_until_it_has_one(bench: Bench, head, now: datetime):
    localizer = other_series(head[:1], PatientID="OTHER", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    arrive(bench.intake, [*localizer, *head], now)
    bench.sweep.once(now + 2 * SECOND)
    series = bookkeeping.story(bench.books, head[0].StudyInstanceUID).series
    codes = {each.series_instance_uid: each.reason_code for each in series}
    assert codes[head[0].SeriesInstanceUID] == "patient-conflict"
    localizer = other_series(localizer, localizer[0].SeriesInstanceUID[-2:], PatientID=head[0].PatientID)
    arrive(bench.intake, localizer, now + 5 * SECOND, "A2")
    for late in (8, 9):
        bench.sweep.once(now + late * SECOND)
    assert states(bench.books, [head[0].SeriesInstanceUID]) == ["SELECTED"]


def test_a_series_that_cannot_be_judged_fails_alone(bench: Bench, head, now: datetime):
    arrive(bench.intake, [*other_series(head), *head], now)
    broken = bookkeeping.receiving(bench.books)[0]
    for instance in broken.instances:
        bench.spool.path(instance.path).write_bytes(b"the disk has lost this")
    bench.sweep.once(now + 2 * SECOND)
    story = bookkeeping.story(bench.books, head[0].StudyInstanceUID)
    assert sorted(s.state for s in story.series) == ["REFUSED", "SELECTED"]


def test_a_disk_that_fails_for_a_moment_refuses_nothing(bench: Bench, head, now: datetime, monkeypatch):
    def failing(_):
        raise OSError(5, "Input/output error")

    arrive(bench.intake, head, now)
    with monkeypatch.context() as broken:
        broken.setattr(header, "of_file", failing)
        bench.sweep.once(now + 2 * SECOND)
    assert states(bench.books, [head[0].SeriesInstanceUID]) == ["RECEIVING"]
    bench.sweep.once(now + 3 * SECOND)
    assert states(bench.books, [head[0].SeriesInstanceUID]) == ["SELECTED"]


def test_nothing_is_read_while_nothing_can_be_said(bench: Bench, head, now: datetime, monkeypatch):
    read = []
    arrive(bench.intake, head, now)
    monkeypatch.setattr(header, "of_file", lambda path: read.append(path))
    bench.sweep.once(now + SECOND)
    assert read == []


def test_what_was_lost_is_offered_again(bench: Bench, head, now: datetime):
    """A lost message, a vanished worker and results that wait for a sender are all found by looking at the books."""
    arrive(bench.intake, head, now)
    bench.sweep.once(now + 2 * SECOND)
    ((job_id, _),) = bench.processed
    bench.sweep.once(now + 8 * SECOND)
    assert bench.processed == [(job_id, "stroke")] * 2
    bookkeeping.claim(bench.books, job_id, "w1", now + 9 * SECOND)
    bench.sweep.once(now + 30 * SECOND)
    assert bookkeeping.get_job(bench.books, job_id).state is State.QUEUED
    bookkeeping.claim(bench.books, job_id, "w2", now + 31 * SECOND)
    bookkeeping.advance(bench.books, job_id, "w2", State.SENDING, "written", now + 32 * SECOND)
    bench.sweep.once(now + 35 * SECOND)
    assert bench.delivered == [job_id]


def test_the_key_knows_inputs_weights_and_settings_and_nothing_else(bench: Bench, head, now: datetime):
    arrive(bench.intake, head, now)
    sweep = bench.sweep
    candidate = sweep.judge(only_series(bench.books), now + 2 * SECOND)
    series = candidate.series
    key = job_key(candidate, sweep.manifest, sweep.settings)
    turned = replace(series, instances=series.instances[::-1])
    assert key == job_key(replace(candidate, series=turned), sweep.manifest, sweep.settings)
    assert key == job_key(candidate, sweep.manifest, replace(sweep.settings, listen=config.Listen(port=104)))
    assert key != job_key(replace(candidate, instances=candidate.instances[1:]), sweep.manifest, sweep.settings)
    assert key != job_key(candidate, replace(sweep.manifest, sha256="0" * 64), sweep.settings)
    assert key != job_key(candidate, replace(sweep.manifest, preprocessing="2"), sweep.settings)
    other = replace(sweep.settings, processing=config.Processing(threads=1))
    assert key != job_key(candidate, sweep.manifest, other)
