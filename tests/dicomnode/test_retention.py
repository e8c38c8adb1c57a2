"""dicomnode.retention: what is delivered goes in time, what is not never does, and a crash in between loses nothing."""

import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from sqlalchemy import select

from dicomnode import bookkeeping, config, explain
from dicomnode.bookkeeping import ACTOR, Answer, Books, Kind
from dicomnode.bookkeeping.tables import Delivery, Instance, Job, Result, Series
from dicomnode.jobs import DeliveryState, Lane, SeriesState, State
from dicomnode.recovery import recover
from dicomnode.retention import Keeper
from dicomnode.spool import Spool
from tests.dicomnode.arrivals import peer
from tests.dicomnode.deliveries import finished_job
from tests.dicomnode.test_bookkeeping import order, received, series_of
from tests.walks.node import Node, dicomnode

DAY = timedelta(days=1)
FREE = 2**40  # bytes; plenty
GIB = 2**30


def keeper(books: Books, spool: Spool, free: int = FREE, **retention: float) -> Keeper:
    parsed = config.parse(
        {"retention": {"sources_days": 30, "results_days": 60, **retention}}, folder=spool.root.parent
    )
    return Keeper(parsed, books, spool, lambda: free)


def confirm(books: Books, job: str, now: datetime, state: DeliveryState = DeliveryState.CONFIRMED) -> None:
    due = bookkeeping.due(books, job, "pacs", now)
    bookkeeping.note_answers(books, job, "pacs", [Answer(d.delivery, state, "told", now) for d in due], now)


def delivered(books: Books, spool: Spool, now: datetime) -> str:
    """A study of three instances whose three results are confirmed at the PACS; all its files lie in the spool."""
    job = finished_job(books, spool, now)
    for path in paths_of(books):
        spool.path(path).write_bytes(b"source")
    confirm(books, job, now)
    bookkeeping.claim_sending(books, job, ACTOR, now)
    bookkeeping.advance(books, job, ACTOR, State.DONE, "all there", now)
    return job


def paths_of(books: Books) -> list[str]:
    with bookkeeping.store.reading(books) as session:
        return list(session.scalars(select(Instance.path)))


def left(spool: Spool) -> tuple[int, int]:
    """How many received files and results lie there."""
    return len(list((spool.root / "in").iterdir())), len(list((spool.root / "results").rglob("*.dcm")))


def test_delivered_files_go_by_age_sources_before_results_and_the_books_say_so(books: Books, spool: Spool, now):
    job = delivered(books, spool, now)
    keep = keeper(books, spool)
    assert (keep.once(now + 29 * DAY), left(spool)) == (0, (3, 3))
    assert (keep.once(now + 31 * DAY), left(spool)) == (1, (0, 3))
    assert (keep.once(now + 61 * DAY), left(spool)) == (1, (0, 0))
    assert keep.once(now + 62 * DAY) == 0
    story = "\n".join(explain.tell(books, "1.1", now + 62 * DAY))
    assert "the files were removed on 2026-04-02" in story
    assert "the results were removed on 2026-05-02" in story
    assert "3 files removed: older than 30 days" in story
    deleted = [m for _, m in bookkeeping.trail(books) if m["EventIdentification"]["EventActionCode"] == "D"]
    assert [m["EventIdentification"]["EventID"]["csd-code"] for m in deleted] == ["110105", "110105"]
    assert bookkeeping.resend(books, job, [("pacs", frozenset({"sc"}))], now + 63 * DAY) == {}
    assert bookkeeping.find_held(books, "1.1", received=True) == []
    assert bookkeeping.recorded(books, ["1.3.0"]) == set()  # storage commitment no longer vouches for it
    assert recover(books, spool, Lane.ROUTINE, now + 63 * DAY).missing == {}


def test_zero_days_keep_everything(books: Books, spool: Spool, now: datetime):
    delivered(books, spool, now)
    assert keeper(books, spool, sources_days=0, results_days=0).once(now + 4000 * DAY) == 0
    assert left(spool) == (3, 3)


def _still_pending(books: Books, job: str, now: datetime) -> None:
    bookkeeping.resend(books, job, [("second", frozenset({"sc"}))], now)


def _failed(books: Books, job: str, now: datetime) -> None:
    _set(books, Job, Job.id == job, state=State.FAILED)


def _receiving(books: Books, job: str, now: datetime) -> None:
    _set(books, Series, Series.study == "1.1", state=SeriesState.RECEIVING)


def _open_association(books: Books, job: str, now: datetime) -> None:
    bookkeeping.note_instance(books, received(7, path="in/7.dcm"), peer(now, "A2"), now)
    _set(books, Series, Series.study == "1.1", state=SeriesState.NOT_SELECTED)


def _promised(books: Books, job: str, now: datetime) -> None:
    bookkeeping.note_request(books, "9.9", ("CT1", "127.0.0.1"), [("1.2.840", "1.3.1")], now)


def _at_work(books: Books, job: str, now: datetime) -> None:
    _set(books, Job, Job.id == job, lease_owner="w", lease_until=now + 400 * DAY)


def _nowhere(books: Books, job: str, now: datetime) -> None:
    _set(books, Delivery, Delivery.id > 0, state=DeliveryState.DEAD)


def _set(books: Books, table, where, **values) -> None:
    with bookkeeping.store.writing(books) as session:
        for row in session.scalars(select(table).where(where)):
            for key, value in values.items():
                setattr(row, key, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_still_pending, "wait for a destination"),
        (_failed, "failed and was not dismissed"),
        (_receiving, "received"),
        (_open_association, "association"),
        (_promised, "storage commitment"),
        (_at_work, "holds|not finished"),
        (_nowhere, "at no destination"),
    ],
    ids=lambda v: v.__name__.strip("_") if callable(v) else "",
)
def test_what_is_not_through_stays_however_old_and_however_full_the_disk(books, spool, now, change, words):
    job = delivered(books, spool, now)
    change(books, job, now)
    before, later = left(spool), now + 300 * DAY
    assert keeper(books, spool, free=0, keep_free_gib=10).once(later) == 0
    assert left(spool) == before
    if change is _at_work:
        return
    held = bookkeeping.held_by(books, "1.1", later, later)
    assert re.search(words, held), held
    assert bookkeeping.purge(books, "1.1", tuple(Kind), later, "asked", later) is None


def test_space_takes_the_oldest_first_and_nothing_of_the_last_day(books: Books, spool: Spool, now: datetime):
    delivered(books, spool, now)
    _another_study(books, spool, now + 5 * DAY)
    free = iter([0, 0, *[2 * GIB] * 5])  # enough after one study
    keep = keeper(books, spool, sources_days=0, results_days=0, keep_free_gib=1)
    keep = Keeper(keep.settings, books, spool, lambda: next(free))
    assert keep.once(now + 10 * DAY) == 1
    assert {path.name for path in (spool.root / "in").iterdir()} == {"other.dcm"}
    starved = keeper(books, spool, free=0, sources_days=0, results_days=0, keep_free_gib=1)
    assert starved.once(now + 5 * DAY + timedelta(hours=23)) == 0
    assert starved.once(now + 7 * DAY) == 1


def _another_study(books: Books, spool: Spool, now: datetime) -> None:
    other = {"study_instance_uid": "2.1", "series_instance_uid": "2.2", "path": "in/other.dcm"}
    bookkeeping.note_instance(books, received(50, **other), peer(now, "B1"), now)
    bookkeeping.release(books, "B1", now)
    (series,) = bookkeeping.receiving(books)
    bookkeeping.close_series(books, series, SeriesState.REFUSED, "no head", now, code="not-head")
    spool.path("in/other.dcm").write_bytes(b"other")


def test_what_is_sent_again_after_it_was_removed_is_kept_again(books: Books, spool: Spool, now: datetime):
    delivered(books, spool, now)
    keep = keeper(books, spool)
    keep.once(now + 31 * DAY)
    again = received(0, path="in/again.dcm")
    spool.path("in/again.dcm").write_bytes(b"source")
    assert bookkeeping.note_instances(books, [(again, peer(now, "A3"), now + 32 * DAY)]) == ["in/again.dcm"]
    bookkeeping.release(books, "A3", now + 32 * DAY)
    assert left(spool)[0] == 1
    assert [path for *_, path in bookkeeping.recorded(books, ["1.3.0"])] == ["in/again.dcm"]
    assert recover(books, spool, Lane.ROUTINE, now + 33 * DAY).missing == {}


def test_a_late_slice_of_a_removed_series_is_judged_by_what_is_there(books: Books, spool: Spool, now: datetime):
    delivered(books, spool, now)
    keeper(books, spool).once(now + 31 * DAY)
    bookkeeping.note_instance(books, received(9), peer(now, "A3"), now + 32 * DAY)
    (series,) = bookkeeping.receiving(books)
    assert [instance.sop_instance_uid for instance in series.instances] == ["1.3.9"]
    assert bookkeeping.selected_series(books, "1.1") is None


def test_a_job_whose_inputs_are_gone_is_not_brought_back(books: Books, now: datetime):
    series_of(books, now)
    job = bookkeeping.open_job(books, order(books), now, now) or ""
    bookkeeping.claim(books, job, ACTOR, now)
    bookkeeping.advance(books, job, ACTOR, State.FAILED, "no", now)
    assert bookkeeping.dismiss(books, job, "seen", now, "ann")
    assert bookkeeping.purge(books, "1.1", (Kind.SOURCES,), now + DAY, "age", now + DAY) is not None
    assert not bookkeeping.retry(books, job, now + DAY)


def test_quarantine_goes_by_its_age(books: Books, spool: Spool, now: datetime):
    old = spool.root / "quarantine" / "old.bin"
    old.write_bytes(b"junk")
    keep = keeper(books, spool, quarantine_days=30)
    written = datetime.fromtimestamp(old.stat().st_mtime, now.tzinfo)
    keep.once(written + 29 * DAY)
    assert old.exists()
    keep.once(written + 31 * DAY)
    assert not old.exists()


CRASH = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from dicomnode import bookkeeping, config
from dicomnode.retention import Keeper
from dicomnode.spool import Spool
books, spool = bookkeeping.open_books(sys.argv[1]), Spool(Path(sys.argv[2]))
settings = config.parse({"retention": {"sources_days": 30, "results_days": 30}})
Keeper(settings, books, spool, lambda: 2**40).once(datetime.fromisoformat(sys.argv[3]))
"""


@pytest.mark.parametrize("point", ["purge.noted", "purge.recorded"])
def test_a_crash_leaves_either_everything_or_files_that_the_next_start_removes(
    books: Books, books_url: str, spool: Spool, now: datetime, point: str, monkeypatch
):
    delivered(books, spool, now)
    later = now + 31 * DAY
    monkeypatch.setenv("DICOMNODE_CRASH", point)
    command = [sys.executable, "-c", CRASH, books_url, str(spool.root), later.isoformat()]
    assert subprocess.run(command, check=False).returncode == -9
    monkeypatch.delenv("DICOMNODE_CRASH")
    assert left(spool) == (3, 3)
    found = recover(books, spool, Lane.ROUTINE, later)
    assert (found.recorded, found.missing) == (0, {})
    assert left(spool) == ((3, 3) if point == "purge.noted" else (0, 3))
    keeper(books, spool, results_days=30).once(later)
    assert left(spool) == (0, 0)


def test_results_that_a_crash_left_go_at_the_next_start(books: Books, spool: Spool, now: datetime):
    job = delivered(books, spool, now)
    assert bookkeeping.purge(books, "1.1", (Kind.RESULTS,), now + DAY, "age", now + DAY) is not None
    assert left(spool) == (3, 3)
    recover(books, spool, Lane.ROUTINE, now + DAY)
    assert not spool.path(f"results/{job}").exists()
    assert left(spool) == (3, 0)


# Whatever the books hold, and whenever it is looked: no file of an undelivered study goes.

STUDY = st.fixed_dictionaries(
    {
        "series": st.sampled_from(list(SeriesState)),
        "job": st.none() | st.sampled_from(list(State)),
        "dismissed": st.booleans(),
        "deliveries": st.lists(st.sampled_from(list(DeliveryState)), max_size=3),
        "age": st.integers(0, 100),
        "open": st.booleans(),
        "promised": st.booleans(),
    }
)


def undelivered(study: dict) -> bool:
    """Said in other words than the code under test: somebody still waits for, works on or sends something of it."""
    if study["series"] in ("RECEIVING", "COMPLETE") or study["open"] or study["promised"]:
        return True
    if study["job"] in ("QUEUED", "PROCESSING", "SENDING"):
        return True
    if study["job"] == "FAILED" and not study["dismissed"]:
        return True
    if study["job"] and {"PENDING", "SENT"} & set(study["deliveries"]):
        return True
    return study["job"] == "DONE" and "CONFIRMED" not in study["deliveries"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "books.db"
    bookkeeping.migrate(f"sqlite:///{path}")
    return path


@how(max_examples=60)
@given(studies=st.lists(STUDY, min_size=1, max_size=6), free=st.sampled_from([0, FREE]), look=st.integers(0, 120))
def test_nothing_undelivered_is_ever_removed(template: Path, tmp_path_factory, studies, free: int, look: int):
    folder = tmp_path_factory.mktemp("property")
    shutil.copy(template, folder / "books.db")
    books, spool = bookkeeping.open_books(f"sqlite:///{folder}/books.db"), Spool(folder / "data").make()
    begin = datetime(2026, 3, 2, 9).astimezone()
    for n, study in enumerate(studies):
        _lay(books, spool, n, study, begin)
    keep = keeper(books, spool, free=free, sources_days=5, results_days=10, keep_free_gib=1)
    keep.once(begin + look * DAY)
    for n, study in enumerate(studies):
        there = spool.path(f"in/{n}.dcm").exists(), spool.path(f"results/job{n}/0.dcm").exists()
        wanted = undelivered(study) or look - study["age"] < 1
        assert there[0] or not wanted, study
        assert there[1] or not (wanted and study["job"]), study
    bookkeeping.close(books)


def _lay(books: Books, spool: Spool, n: int, study: dict, begin: datetime) -> None:
    at = begin + study["age"] * DAY
    names = {"study_instance_uid": f"{n}.1", "series_instance_uid": f"{n}.2", "path": f"in/{n}.dcm"}
    bookkeeping.note_instance(books, received(n, **names), peer(at, f"A{n}"), at)
    spool.path(f"in/{n}.dcm").write_bytes(b"source")
    if not study["open"]:
        bookkeeping.release(books, f"A{n}", at)
    if study["promised"]:
        bookkeeping.note_request(books, f"9.{n}", ("CT1", "127.0.0.1"), [("1.2.840", f"1.3.{n}")], at)
    with bookkeeping.store.writing(books) as session:
        session.get_one(Series, f"{n}.2").state = study["series"]
        if study["job"] is None:
            return
        dismissed = at if study["dismissed"] else None
        moments = {"enqueued_at": at, "created_at": at, "dismissed_at": dismissed}
        words = {"route": "ncct", "engine": "torch", "revision": 1, "lane": Lane.STROKE}
        session.add(Job(id=f"job{n}", key=str(n), study=f"{n}.1", state=study["job"], **words, **moments))
        session.flush()
        spool.path(f"results/job{n}").mkdir()
        for i, state in enumerate(study["deliveries"] or [None]):
            uid, path = f"2.25.{n}{i}", f"results/job{n}/{i}.dcm"
            about = {"series_instance_uid": "2.25.9", "sop_class": "1.2", "kind": "sc", "map": "CBF", "sha256": "0"}
            session.add(Result(sop_instance_uid=uid, job=f"job{n}", index=i, path=path, **about))
            session.flush()
            spool.path(path).write_bytes(b"result")
            if state:
                session.add(Delivery(result=uid, destination="pacs", state=state, next_at=at))


def test_the_command_removes_one_study_or_all_of_an_age_and_says_what_holds_the_others(tmp_path: Path, now: datetime):
    node = Node.init(tmp_path, "--source", "CT1@192.0.2.10")
    spool = Spool(node.settings.node.data_dir)
    job = delivered(node.books, spool, now)
    assert dicomnode("purge", cwd=tmp_path, check=False).returncode == 2
    assert "nothing is known" in dicomnode("purge", "0.0", cwd=tmp_path, check=False).stderr
    assert "would remove" in dicomnode("purge", job, "--dry-run", cwd=tmp_path).stdout
    assert "1 studies would lose" in dicomnode("purge", "--older-than", "30", "--dry-run", cwd=tmp_path).stdout
    assert left(spool) == (3, 3)
    _failed(node.books, job, now)
    refused = dicomnode("purge", "A", cwd=tmp_path, check=False)
    assert (refused.returncode, "not dismissed" in refused.stderr) == (1, True)
    _set(node.books, Job, Job.id == job, state=State.DONE)
    assert "removed the files" in dicomnode("purge", "A", cwd=tmp_path).stdout
    assert left(spool) == (0, 0)
    assert "at the command line)" in dicomnode("explain", "A", cwd=tmp_path).stdout
    node.books.kw["bind"].dispose()
