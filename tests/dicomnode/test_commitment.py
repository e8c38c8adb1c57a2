"""dicomnode.commitment towards scanners: a report names as kept only what is durable and recorded."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association

from dicomnode import bookkeeping, commitment, config, explain
from dicomnode.bookkeeping import Books
from dicomnode.commitment import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from dicomnode.config import Settings
from dicomnode.demo import free_port
from dicomnode.sender.inquiry import Report, report_of, request_of
from dicomnode.spool import Spool
from tests.dicomnode.test_bookkeeping import series_of

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
MODEL = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


class Scanner:
    """Asks for commitment, and remembers the reports and whether they came over the association that asked."""

    def __init__(self) -> None:
        self.reports: list[tuple[Report, bool]] = []
        self.ae = AE("CT1")
        self.ae.add_requested_context(StorageCommitmentPushModel)
        self.ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def on_report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((report_of(event.event_type, event.event_information), event.assoc.is_requestor))
        return 0x0000, None

    @contextmanager
    def asking(self, port: int) -> Iterator[Association]:
        assoc = self.ae.associate("127.0.0.1", port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.on_report)])
        assert assoc.is_established
        try:
            yield assoc
        finally:
            assoc.release()

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        handlers = [(evt.EVT_N_EVENT_REPORT, self.on_report)]
        server = self.ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def node(settings: Settings, books: Books, spool: Spool) -> Iterator[int]:
    ae, port = AE("DICOMNODE"), free_port()
    commitment.offer(ae)
    handlers = commitment.handlers(settings, books, spool, lambda: datetime.now(UTC))
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port
    finally:
        server.shutdown()


def settings_with(commitment_port: int) -> Settings:
    source = {"ae_title": "CT1", "addresses": ["127.0.0.1"], "commitment_port": commitment_port}
    return config.parse({"source": [source]})


def ask(assoc: Association, references: list[tuple[str, str]], transaction: str = "2.25.7", action: int = 1) -> int:
    status, _ = assoc.send_n_action(request_of(transaction, references), action, *MODEL)
    return int(status.Status)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def kept(books: Books, spool: Spool, now: datetime) -> list[tuple[str, str]]:
    """Two CT instances on the disk and in the books; a third, 1.3.2, is in the books alone."""
    series_of(books, now)
    for n in (0, 1):
        (spool.root / f"in/{n}.dcm").write_bytes(b"DICM")
    return [(CT, "1.3.0"), (CT, "1.3.1")]


def test_what_is_durable_recorded_and_named_by_its_class_is_committed_to(books: Books, spool: Spool, kept):
    scanner, asked = Scanner(), [kept[0], (CT, "1.3.2"), (MR, "1.3.1"), (CT, "9.9")]
    with node(settings_with(0), books, spool) as port, scanner.asking(port) as assoc:
        assert ask(assoc, asked) == 0x0000
        until(lambda: scanner.reports)
    ((report, on_same),) = scanner.reports
    assert on_same
    assert report == Report("2.25.7", frozenset({"1.3.0"}), {"1.3.2": 0x0112, "1.3.1": 0x0119, "9.9": 0x0112})
    until(lambda: bookkeeping.unanswered(books) == [])


def test_a_scanner_that_hangs_up_is_told_over_a_new_association(books: Books, spool: Spool, kept, monkeypatch):
    monkeypatch.setattr(commitment, "BREATH", 1.0)
    scanner, port_of_scanner = Scanner(), free_port()
    with scanner.listening(port_of_scanner), node(settings_with(port_of_scanner), books, spool) as port:
        with scanner.asking(port) as assoc:
            assert ask(assoc, kept) == 0x0000
        until(lambda: scanner.reports)
    ((report, on_same),) = scanner.reports
    assert not on_same
    assert report == Report("2.25.7", frozenset({"1.3.0", "1.3.1"}), {})


def test_a_scanner_that_is_away_is_told_when_it_is_back(books: Books, spool: Spool, kept, now, monkeypatch):
    monkeypatch.setattr(commitment, "PERIOD", 0.05)
    monkeypatch.setattr(commitment, "GIVE_UP", timedelta(days=10_000))
    monkeypatch.setattr(commitment, "delay", lambda attempts: timedelta(0))
    scanner, port_of_scanner, stop = Scanner(), free_port(), threading.Event()
    bookkeeping.note_request(books, "2.25.8", ("CT1", "127.0.0.1"), kept, now)
    (line,) = [line for line in explain.state_of_the_node(books, now) if line.startswith("commitment")]
    assert "CT1 waits for 1 Storage Commitment reports" in line
    commitment.start(settings_with(port_of_scanner), books, spool, stop)
    try:
        time.sleep(0.3)
        with scanner.listening(port_of_scanner):
            until(lambda: scanner.reports)
            until(lambda: bookkeeping.unanswered(books) == [])
    finally:
        stop.set()
    assert [report.kept for report, _ in scanner.reports] == [{"1.3.0", "1.3.1"}]


def test_what_is_no_request_of_a_source_is_refused(books: Books, spool: Spool, kept):
    scanner = Scanner()
    with node(settings_with(0), books, spool) as port, scanner.asking(port) as assoc:
        assert ask(assoc, kept, action=2) == 0x0123
        without_transaction = request_of("2.25.1", kept)
        del without_transaction.TransactionUID
        status, _ = assoc.send_n_action(without_transaction, 1, *MODEL)
        assert status.Status == 0x0115
    with node(config.parse({}), books, spool) as port, scanner.asking(port) as assoc:
        assert ask(assoc, kept) == 0x0124
    assert bookkeeping.unanswered(books) == []


def test_a_request_is_taken_by_one_process_and_may_be_asked_again(books: Books, kept, now):
    peer, minute = ("CT1", "127.0.0.1"), timedelta(seconds=61)
    first = bookkeeping.note_request(books, "2.25.9", peer, kept, now)
    assert bookkeeping.take_requests(books, now + timedelta(seconds=1)) == []  # who wrote it down is answering it
    (taken,) = bookkeeping.take_requests(books, now + minute)
    assert (taken.id, taken.attempts) == (first.id, 2)
    assert bookkeeping.take_requests(books, now + minute) == []
    bookkeeping.note_answer(books, first.id, "reported", now + minute)
    assert bookkeeping.take_requests(books, now + 9 * minute) == []
    again = bookkeeping.note_request(books, "2.25.9", peer, kept, now + minute)
    assert (again.id, again.answered_at) == (first.id, None)
