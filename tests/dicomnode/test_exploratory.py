"""Captures at another ratio, from the request in the books to the PACS: once each, and the same objects again."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping, config, exploratory, pipeline, tasks
from dicomnode.bookkeeping import ACTOR, Books, Job
from dicomnode.config import Settings
from dicomnode.jobs import Lane, State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from dicomnode.tasks import Desk
from inference import pilo
from tests import phantom
from tests.dicomnode.deliveries import finished_job
from tests.pacs import Pacs
from tests.walks.test_sides import Copier, walk

SECONDS = timedelta(seconds=1)


def told(books: Books, job_id: str) -> list[tuple[str, str]]:
    """What the history says of ratios, and who did it."""
    (study,) = bookkeeping.find_studies(books, job_id)
    lines = bookkeeping.story(books, study).history
    return [(row.after, row.actor) for row in lines if row.after.startswith("captures at ratio")]


def ask(books: Books, job_id: str, percent: int, now: datetime) -> bool:
    return bookkeeping.ask_for_ratio(books, job_id, percent, ["pacs"], now, "anna")


def test_a_request_is_recorded_once_with_who_made_it(books: Books, spool: Spool, now: datetime):
    job = finished_job(books, spool, now)
    assert ask(books, job, 75, now)
    assert ask(books, job, 75, now + SECONDS)
    assert [(r.percent, r.asked_at, r.done_at) for r in bookkeeping.renderings(books, job)] == [(75, now, None)]
    assert told(books, job) == [("captures at ratio 0.75 ASKED FOR", "anna")] * 2


def test_nothing_is_asked_of_a_job_without_files_or_for_nobody(books: Books, spool: Spool, now: datetime):
    job = finished_job(books, spool, now, State.PROCESSING)
    assert not ask(books, job, 75, now)
    bookkeeping.advance(books, job, ACTOR, State.SENDING, "3 files written", now)
    assert not bookkeeping.ask_for_ratio(books, job, 75, [], now, "anna")
    assert bookkeeping.renderings(books, job) == []


def test_a_request_is_offered_at_once_then_every_few_seconds_while_nobody_holds_the_job(
    books: Books, spool: Spool, now: datetime
):
    job = finished_job(books, spool, now)
    ask(books, job, 75, now)
    assert bookkeeping.unrendered(books, now) == [(job, Lane.STROKE)]
    assert bookkeeping.unrendered(books, now + SECONDS) == []
    assert bookkeeping.claim_sending(books, job, "somebody", now) is not None
    assert bookkeeping.unrendered(books, now + 6 * SECONDS) == []
    bookkeeping.let_go(books, job, "somebody")
    assert bookkeeping.unrendered(books, now + 7 * SECONDS) == [(job, Lane.STROKE)]


def test_what_fails_three_times_is_given_up_and_may_be_asked_for_again(books: Books, spool: Spool, now: datetime):
    job = finished_job(books, spool, now)
    ask(books, job, 75, now)
    attempts = [len(bookkeeping.take_renderings(books, job, now)) for _ in range(4)]
    assert attempts == [1, 1, 1, 0]
    assert told(books, job)[-1] == ("captures at ratio 0.75 GIVEN UP", ACTOR)
    assert ask(books, job, 75, now)
    assert len(bookkeeping.take_renderings(books, job, now)) == 1


@pytest.fixture
def house(settings: Settings, books: Books, spool: Spool, now: datetime, monkeypatch) -> tuple[Settings, Job]:
    """A head whose map is its CT, computed and in SENDING; the worker's desk stands in it."""
    monkeypatch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
    monkeypatch.setattr(tasks, "desk", lambda: Desk(settings, books, spool))
    monkeypatch.setattr(tasks, "wake_deliver", lambda job_id: None)
    monkeypatch.setattr(tasks, "now", lambda: now)
    slices = phantom.head(phantom.even(14, 9.0, -60.0), matrix=64, thickness=9.0)
    walk(slices, settings, books, spool, now)
    job = bookkeeping.recent_jobs(books)[0][0]
    bookkeeping.advance(books, job.id, ACTOR, State.SENDING, "files written", now)
    return settings, bookkeeping.get_job(books, job.id)


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_the_captures_are_written_sent_and_sent_again_byte_for_byte(
    house, books: Books, spool: Spool, now: datetime, monkeypatch
):
    settings, job = house
    assert spool.pilo(job.id).exists()
    assert ask(books, job.id, 75, now)
    sweep_offers = []
    wake = {"wake_render": lambda *given: sweep_offers.append(given)}
    Sweep(settings, books, spool, Copier.manifest, print, print, **wake).once(now)
    assert sweep_offers == [(job.id, Lane.STROKE)]
    tasks.render(job.id)
    tasks.render(job.id)  # a message that came twice
    mine = [r for r in bookkeeping.results(books, job.id) if r.kind == "pilo"]
    assert [(r.map, r.index) for r in mine] == [("Tmax-r075", i) for i in range(14)]
    with Pacs(ae_title="PACS", finds=True).running() as pacs:
        moved = config.parse(
            {"destination": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}]},
            folder=settings.node.data_dir.parent,
        )
        monkeypatch.setattr(tasks, "desk", lambda: Desk(moved, books, spool))
        tasks.deliver(job.id)
        first = sorted(raw for ds, raw in zip(pacs.received, pacs.encoded, strict=True) if at_75(ds))
        assert len(first) == 14
        assert {ds.SOPClassUID for ds in pacs.received if at_75(ds)} == {SecondaryCaptureImageStorage}
        pacs.received.clear()
        pacs.encoded.clear()
        assert ask(books, job.id, 75, now + SECONDS)
        tasks.render(job.id)
        tasks.deliver(job.id)
        assert sorted(pacs.encoded) == first  # over two associations, in no order
    assert [after for after, _ in told(books, job.id)] == [
        "captures at ratio 0.75 ASKED FOR",
        "captures at ratio 0.75 WRITTEN",
        "captures at ratio 0.75 ASKED FOR",
    ]


def at_75(ds) -> bool:
    return "ratio 0.75 no unit" in ds.SeriesDescription


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_a_worker_that_dies_between_files_leaves_the_rest_to_the_next(house, books: Books, now: datetime, monkeypatch):
    _, job = house
    ask(books, job.id, 20, now)
    monkeypatch.setattr(exploratory, "BATCH", 5)
    noted = bookkeeping.note_results

    def dies(books, owner, rows, *rest):
        noted(books, owner, rows, *rest)
        raise OSError("the disk went away")

    monkeypatch.setattr(bookkeeping, "note_results", dies)
    tasks.render(job.id)
    assert sum(r.kind == "pilo" for r in bookkeeping.results(books, job.id)) == 5
    monkeypatch.setattr(bookkeeping, "note_results", noted)
    tasks.render(job.id)
    assert sum(r.kind == "pilo" for r in bookkeeping.results(books, job.id)) == 14
    assert bookkeeping.get_job(books, job.id).lease_owner is None


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_what_cannot_be_written_is_given_up_at_once(house, books: Books, spool: Spool, now: datetime):
    _, job = house
    ask(books, job.id, 20, now)
    spool.pilo(job.id).write_bytes(b"no archive")
    tasks.render(job.id)
    assert told(books, job.id)[-1][0] == "captures at ratio 0.20 GIVEN UP"
    assert bookkeeping.renderings(books, job.id) == []


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_what_the_page_is_told_stands_in_the_file(house, spool: Spool):
    _, job = house
    kept = pilo.load(spool.pilo(job.id))
    with np.load(spool.pilo(job.id), allow_pickle=False) as found:
        assert set(found.files) >= {"about", "mask", "perfusion", "planes"}
    assert kept.manifest.kinds == ("Tmax",)
    assert kept.perfusion.shape == (1, kept.mask.sum())


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_retention_waits_for_what_is_asked_for_and_then_nothing_can_be_asked(house, books: Books, now: datetime):
    _, job = house
    with bookkeeping.store.writing(books) as session:
        found = session.get_one(Job, job.id)
        found.state = State.DONE
        for delivery in session.query(bookkeeping.tables.Delivery).all():
            delivery.state = "CONFIRMED"
    later, purge = now + timedelta(days=9), (bookkeeping.Kind.RESULTS,)
    assert ask(books, job.id, 75, now)
    assert bookkeeping.purge(books, job.study, purge, later, "by a test", later) is None
    bookkeeping.note_rendered(books, bookkeeping.renderings(books, job.id)[0], "14 files written", now)
    assert bookkeeping.purge(books, job.study, purge, later, "by a test", later) is not None
    assert not ask(books, job.id, 80, later)
