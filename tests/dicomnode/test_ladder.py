"""dicomnode.ladder: what is refused is replaced, step by step, and every step stands in the books."""

from datetime import UTC, datetime

import pytest
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode import bookkeeping, config, delivery, explain, ladder, pipeline
from dicomnode.bookkeeping import ACTOR, Books
from dicomnode.config import Settings
from dicomnode.jobs import State
from dicomnode.spool import Spool
from dicomnode.writer import ALWAYS, OBJECTS
from tests import phantom
from tests.dicomnode.test_bookkeeping import order, series_of
from tests.dicomnode.writer import studies
from tests.pacs import ALL_CLASSES, Pacs


@pytest.fixture(params=["sqlite"])
def books_url(request: pytest.FixtureRequest, tmp_path) -> str:
    return f"sqlite:///{tmp_path}/books.db"


def written(books: Books, settings: Settings, spool: Spool, now: datetime, key: str = "k1") -> str:
    """A job whose objects, and what may stand in for them, lie in the spool."""
    series_of(books, now)
    opened = bookkeeping.open_job(books, order(books, key), now, now)
    assert opened is not None
    job = bookkeeping.claim(books, opened, ACTOR, now)
    assert job is not None
    study = studies.stroke(phantom.head(phantom.even(10, 14.0), matrix=64), job_key=key)
    pipeline.keep(study, job, settings, books, spool, wake_deliver=lambda: None)
    bookkeeping.advance(books, opened, ACTOR, State.SENDING, "written", now)
    return opened


def sent(books: Books, settings: Settings, spool: Spool, job_id: str) -> bookkeeping.Job:
    job = bookkeeping.claim_sending(books, job_id, ACTOR, datetime.now(UTC))
    assert job is not None
    delivery.run(job, settings, books, spool)
    bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id)


def use(settings: Settings, pacs: Pacs, **other) -> None:
    object.__setattr__(settings, "destination", (pacs.destination(**other),))


def falls(books: Books, job_id: str) -> dict[str, str]:
    """What fell to what, as the history tells it."""
    (study,) = bookkeeping.find_studies(books, job_id)
    steps = [row.after for row in bookkeeping.story(books, study).history if " -> " in row.after]
    assert len(set(steps)) == len(steps)
    return dict(step.removesuffix(" at pacs").split(" -> ") for step in steps)


def rungs(books: Books, job_id: str) -> dict[str, set[int]]:
    kinds = {row.sop_instance_uid: row.kind for row in bookkeeping.results(books, job_id)}
    found: dict[str, set[int]] = {}
    for each in bookkeeping.deliveries(books, job_id):
        found.setdefault(kinds[each.result], set()).add(each.rung)
    return found


def test_a_strict_peer_that_takes_nothing_but_captures_gets_them_and_the_books_tell_each_step(
    books: Books, settings: Settings, spool: Spool, now: datetime
):
    strict = Pacs(classes=[SecondaryCaptureImageStorage], syntaxes=[ImplicitVRLittleEndian])
    use(settings, strict, objects=("sc", "pm", "seg", "sr", "pdf"), stand_ins=("ct", "mosaic"))
    job_id = written(books, settings, spool, now)
    with strict.running():
        job = sent(books, settings, spool, job_id)
    assert job.state is State.DONE
    assert {ds.SOPClassUID for ds in strict.received} == {SecondaryCaptureImageStorage}
    assert len(strict.received) == 2 * 10 + 1  # two maps, and the mosaic in place of three others
    assert falls(books, job_id) == {
        "pm": "ct",
        "ct": "sc",
        "seg": "mosaic",
        "sr": "sr-comprehensive",
        "sr-comprehensive": "mosaic",
        "pdf": "mosaic",
    }
    assert rungs(books, job_id)["ct"] == rungs(books, job_id)["mosaic"] == {1}
    said = "\n".join(explain.tell(books, job_id))
    assert "pm -> ct at pacs: 20 files stand in: pacs does not accept Parametric Map Storage" in said
    assert "ct -> sc at pacs: 20 files stand in" in said


def test_an_older_peer_gets_the_report_in_its_own_class(books: Books, settings: Settings, spool: Spool, now: datetime):
    older = Pacs(classes=[SecondaryCaptureImageStorage, ComprehensiveSRStorage, CTImageStorage])
    use(settings, older, objects=("sc", "pm", "seg", "sr"))
    job_id = written(books, settings, spool, now)
    with older.running():
        assert sent(books, settings, spool, job_id).state is State.DONE
    classes = {ds.SOPClassUID for ds in older.received}
    assert classes == {SecondaryCaptureImageStorage, ComprehensiveSRStorage}  # ct was not allowed to stand in
    assert falls(books, job_id) == {"pm": "sc", "seg": "mosaic", "sr": "sr-comprehensive"}
    again = bookkeeping.resend(books, job_id, [("pacs", frozenset({"sc"}))], now)
    assert again == {"pacs": 20 + 2 + 2 + 1 + 1 + 1}  # what was refused, and what stood in for it, too


def test_a_peer_that_refuses_captures_fails_the_job_loudly(books: Books, settings: Settings, spool: Spool, now):
    picky = Pacs(classes=[c for c in ALL_CLASSES if c != SecondaryCaptureImageStorage])
    use(settings, picky)
    job_id = written(books, settings, spool, now)
    with picky.running():
        job = sent(books, settings, spool, job_id)
    assert job.state is State.FAILED
    assert "sc REFUSED at pacs" in (job.reason or "")


def test_a_peer_that_was_to_get_no_captures_gets_them_before_it_gets_nothing(
    books: Books, settings: Settings, spool: Spool, now: datetime
):
    strict = Pacs(classes=[SecondaryCaptureImageStorage])
    use(settings, strict, objects=("pm",), stand_ins=())
    job_id = written(books, settings, spool, now)
    with strict.running():
        assert sent(books, settings, spool, job_id).state is State.DONE
    assert len(strict.received) == 20
    assert rungs(books, job_id) == {"pm": {0}, "sc": {1}}


def test_nothing_stands_in_for_what_was_taken_the_time_before(
    books: Books, settings: Settings, spool: Spool, now: datetime
):
    pacs = Pacs(classes=[SecondaryCaptureImageStorage, ParametricMapStorage])
    use(settings, pacs, objects=("sc", "pm", "pdf"), stand_ins=("ct", "mosaic"))
    assert ladder.stand_ins(books, settings.destination) == {"ct", "sc", "mosaic"}
    job_id = written(books, settings, spool, now)
    assert ladder.stand_ins(books, settings.destination) == {"ct", "sc", "mosaic"}  # nothing has been sent yet
    with pacs.running():
        sent(books, settings, spool, job_id)
    assert ladder.stand_ins(books, settings.destination) == {"sc", "mosaic"}


def test_every_kind_of_object_ends_at_a_capture_by_steps_that_exist():
    assert set(ladder.LADDER) == set(OBJECTS) - {"sc", "note"}
    for below in ladder.LADDER.values():
        assert below[-1] == "sc"
        assert set(below) <= set(OBJECTS)
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    (plain,) = config.parse({"destination": [peer]}).destination
    assert ladder.steps(plain)["pm"] == ("sc",)
    assert "sc" in ALWAYS


def test_a_rejection_note_names_what_its_destination_took_of_the_earlier_revision(
    books: Books, settings: Settings, spool: Spool, now: datetime
):
    pacs = Pacs(classes=[SecondaryCaptureImageStorage, ParametricMapStorage])
    use(settings, pacs, rejection_note=True)
    first = written(books, settings, spool, now)
    job = bookkeeping.get_job(books, first)
    assert "note" in settings.destination[0].kinds
    assert {row.kind for row in bookkeeping.results(books, first)} == {"sc", "pm", "note"}
    assert bookkeeping.replaced(books, job, ["pacs"]) == []
    with pacs.running():
        sent(books, settings, spool, first)
    job.supersedes = first  # as a job of the next revision has it
    taken = bookkeeping.replaced(books, job, ["pacs"])
    assert {row.kind for row in taken} == {"sc", "pm"}
    assert len(taken) == 22
    assert bookkeeping.replaced(books, job, ["another"]) == []
