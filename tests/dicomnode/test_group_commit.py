"""dicomnode.group_commit: those who come together share a commit, and nobody pays for another's trouble."""

import threading
import time
from datetime import datetime

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, BooksAway, CommitInDoubt
from dicomnode.bookkeeping.tables import Base
from dicomnode.group_commit import GroupCommit
from dicomnode.intake import Intake
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.arrivals import part10, peer
from tests.dicomnode.test_bookkeeping import received

received_of = received


@pytest.fixture
def commits(books: Books, spool: Spool) -> GroupCommit:
    return GroupCommit(books, spool)


def together(commits: GroupCommit, numbers: range, now: datetime, held: threading.Event, begun: threading.Event):
    """Record all of them while the first commit is held up; what each got."""
    outcome: dict[int, object] = {}

    def record(n: int) -> None:
        try:
            outcome[n] = commits.record(received(n), peer(now, f"A{n}"), now)
        except Exception as error:
            outcome[n] = error

    threads = [threading.Thread(target=record, args=(n,)) for n in numbers]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(commits._waiting) < len(threads) - 1:
        pass
    held.set()
    for thread in threads:
        thread.join(20)
    return outcome


@pytest.fixture
def hold(monkeypatch):
    """Hold the first commit until told; how large each was."""
    held, begun, sizes = threading.Event(), threading.Event(), []
    note_instances = bookkeeping.note_instances

    def slowly(books, arrivals, met):
        sizes.append(len(arrivals))
        begun.set()
        assert held.wait(10)
        if any(r.patient_id == "poison" for r, _, _ in arrivals):
            raise OperationalError("INSERT", {}, Exception("no"))
        return note_instances(books, arrivals, met)

    monkeypatch.setattr(bookkeeping, "note_instances", slowly)
    return held, begun, sizes


def test_who_comes_during_a_commit_shares_the_next(commits: GroupCommit, books: Books, now: datetime, hold):
    held, begun, sizes = hold
    outcome = together(commits, range(6), now, held, begun)
    assert outcome == dict.fromkeys(range(6))
    assert sizes == [1, 5]
    (series,) = bookkeeping.receiving(books)
    assert len(series.instances) == 6
    assert series.open_associations == 6


def test_one_that_the_books_refuse_costs_the_others_nothing(
    commits: GroupCommit, books: Books, now: datetime, hold, monkeypatch
):
    held, begun, sizes = hold
    monkeypatch.setattr(
        "tests.dicomnode.test_group_commit.received",
        lambda n: received_of(n, patient_id="poison") if n == 3 else received_of(n),
    )
    outcome = together(commits, range(5), now, held, begun)
    assert isinstance(outcome.pop(3), BooksAway)
    assert outcome == dict.fromkeys([0, 1, 2, 4])
    assert sizes == [1, 4, 1, 1, 1, 1]
    assert len(bookkeeping.receiving(books)[0].instances) == 4


def test_what_stands_in_the_books_is_not_said_again(commits: GroupCommit, books: Books, now: datetime):
    said: list[str] = []
    event.listen(books.kw["bind"], "before_cursor_execute", lambda *about: said.append(about[2].split()[0]))
    first, second = (_said_by(commits, said, n, now) for n in range(2))
    assert second.count("INSERT") == 1 < first.count("INSERT")
    assert "SELECT" not in second


def _said_by(commits: GroupCommit, said: list[str], n: int, now: datetime) -> list[str]:
    said.clear()
    assert commits.record(received(n), peer(now, "A1"), now) is None
    return said[:]


def test_books_that_come_back_from_a_backup_are_told_everything_again(
    commits: GroupCommit, books: Books, now: datetime
):
    assert commits.record(received(1), peer(now, "A1"), now) is None
    with bookkeeping.store.writing(books) as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    with pytest.raises(BooksAway):  # the sender is told 0xA700 and sends it again
        commits.record(received(2), peer(now, "A1"), now)
    assert commits.record(received(2), peer(now, "A1"), now) is None
    assert len(bookkeeping.receiving(books)[0].instances) == 1


def test_one_turn_ends_before_the_next_begins_and_a_turn_that_never_ends_is_not_waited_for(
    books: Books, monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []

    def other() -> None:
        with bookkeeping.turn(books):
            order.append("other")

    with bookkeeping.turn(books):
        thread = threading.Thread(target=other)
        thread.start()
        if on_sqlite := books.kw["bind"].dialect.name == "sqlite":
            time.sleep(0.1)
        else:
            thread.join()  # a server lets both write at once
        order.append("mine")
    thread.join()
    assert order == (["mine", "other"] if on_sqlite else ["other", "mine"])
    monkeypatch.setattr(bookkeeping.store, "COURTESY", 0.05)
    with bookkeeping.turn(books), bookkeeping.turn(books):
        pass


def test_the_same_bytes_twice_in_one_commit_are_kept_once(books: Books, now: datetime):
    first, second = received(1, path="in/a.dcm"), received(1, path="in/b.dcm")
    known = bookkeeping.note_instances(books, [(first, peer(now, "A1"), now), (second, peer(now, "A2"), now)])
    assert known == [None, "in/a.dcm"]


def test_a_commit_of_which_nobody_knows_the_end_keeps_the_file(books: Books, spool: Spool, now: datetime, monkeypatch):
    """The connection breaks while COMMIT is on its way: the row may be there, so the file must be."""

    def torn(_):
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    head = phantom.head(phantom.even(12), matrix=32)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_commit_impl", torn)
        with pytest.raises(CommitInDoubt):
            Intake(books, spool).receive(part10(head[0]), peer(now), now)
    assert len(list(spool.received())) == 1
