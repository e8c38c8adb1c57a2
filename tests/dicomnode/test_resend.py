"""dicomnode resend: the finished files go out again, byte for byte, and no state changes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command

from dicomnode import bookkeeping, delivery
from dicomnode.bookkeeping import ACTOR, Books, store
from dicomnode.jobs import State
from dicomnode.spool import Spool
from tests.dicomnode.deliveries import finished_job, told
from tests.dicomnode.test_bookkeeping import order, result, series_of
from tests.pacs import Pacs
from tests.walks.node import dicomnode

SC = frozenset({"sc"})


def deliver(job_id: str, settings, books: Books, spool: Spool) -> State:
    job = bookkeeping.claim_sending(books, job_id, ACTOR, datetime.now(UTC))
    assert job is not None
    delivery.run(job, settings, books, spool)
    bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id).state


def test_a_job_that_is_done_is_sent_again_byte_for_byte_and_stays_done(settings, books: Books, spool: Spool, now):
    job_id = finished_job(books, spool, now)
    with Pacs().running() as pacs:
        object.__setattr__(settings, "destination", (pacs.destination(),))
        assert deliver(job_id, settings, books, spool) is State.DONE
        present = datetime.now(UTC)
        assert bookkeeping.resend(books, job_id, [("pacs", SC)], present) == {"pacs": 3}
        assert bookkeeping.get_job(books, job_id).state is State.DONE
        assert told(books) == [("pacs", "PENDING", None, 3)]
        assert bookkeeping.to_send(books, ["pacs"], datetime.now(UTC)) == []  # offered again two seconds later
        assert deliver(job_id, settings, books, spool) is State.DONE
    assert len(pacs.encoded) == 6
    files = [spool.path(row.path).read_bytes() for row in bookkeeping.results(books, job_id)]
    for encoded in pacs.encoded:
        assert sum(file.endswith(encoded) for file in files) == 1
    assert {state for _, state, _, _ in told(books)} == {"CONFIRMED"}


def test_a_destination_that_came_later_gets_what_was_finished_before(settings, books: Books, spool: Spool, now):
    job_id = finished_job(books, spool, now)
    assert bookkeeping.resend(books, job_id, [("second", SC), ("third", frozenset({"pm"}))], now) == {"second": 3}
    assert {(where, n) for where, _, _, n in told(books)} == {("pacs", 3), ("second", 3)}


def test_a_failed_job_is_sent_again_and_stays_failed(settings, books: Books, spool: Spool, now):
    job_id = finished_job(books, spool, now)
    with Pacs(answer=lambda n: 0xA900 if n < 3 else 0x0000).running() as pacs:
        object.__setattr__(settings, "destination", (pacs.destination(),))
        assert deliver(job_id, settings, books, spool) is State.FAILED
        bookkeeping.resend(books, job_id, [("pacs", SC)], datetime.now(UTC))
        assert deliver(job_id, settings, books, spool) is State.FAILED
    assert {state for _, state, _, _ in told(books)} == {"CONFIRMED"}


def test_a_job_that_never_finished_its_files_has_nothing_to_resend(books: Books, now):
    series_of(books, now)
    job_id = bookkeeping.open_job(books, order(books), now, now)
    assert job_id is not None
    bookkeeping.claim(books, job_id, ACTOR, now)
    bookkeeping.note_results(books, ACTOR, [result(job_id)], [("pacs", SC)], now)
    bookkeeping.advance(books, job_id, ACTOR, State.FAILED, "our mistake", now)
    assert bookkeeping.resend(books, job_id, [("pacs", SC)], now) == {}
    assert bookkeeping.current(books, "A") == []
    assert bookkeeping.claim_sending(books, job_id, ACTOR, now) is None
    assert bookkeeping.to_send(books, ["pacs"], datetime.now(UTC)) == []


def test_the_command_finds_the_job_by_any_key_and_knows_the_destinations(tmp_path: Path, now):
    dicomnode("init", "--source", "CT1@192.0.2.10", "--destination", "PACS@127.0.0.1:1", cwd=tmp_path)
    books = bookkeeping.open_books(f"sqlite:///{tmp_path}/data/books.db")
    job_id = finished_job(books, Spool(tmp_path / "data").make(), now)
    for key in ("A", "1.1", job_id):
        said = dicomnode("resend", key, "--to", "pacs", cwd=tmp_path).stdout
        assert f"3 files of job {job_id} go to pacs again" in said
    books.kw["bind"].dispose()
    for arguments, code, words in (
        (("A", "--to", "nowhere"), 2, "no destination is called 'nowhere'; there are pacs"),
        (("unknown",), 1, "unknown has no finished files to send"),
    ):
        failed = dicomnode("resend", *arguments, cwd=tmp_path, check=False)
        assert (failed.returncode, words in failed.stderr) == (code, True), failed.stderr


def test_the_books_go_down_to_the_first_version_and_up_again_and_keep_their_deliveries(books_url: str, spool, now):
    bookkeeping.migrate(books_url)
    books = bookkeeping.open_books(books_url)
    finished_job(books, spool, now)
    engine = books.kw["bind"]
    with engine.connect() as connection:
        config = store._alembic(books_url)
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.commit()
    engine.dispose()
    with pytest.raises(bookkeeping.BooksOutdated, match="at revision 0001"):
        bookkeeping.open_books(books_url)
    bookkeeping.migrate(books_url)
    books = bookkeeping.open_books(books_url)
    assert told(books) == [("pacs", "PENDING", None, 3)]
    books.kw["bind"].dispose()
