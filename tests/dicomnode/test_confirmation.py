"""dicomnode.confirmation and dicomnode.commitment: a file counts as delivered when the PACS says that it keeps it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage, Verification

from dicomnode import bookkeeping, commitment, confirmation, delivery, explain
from dicomnode.bookkeeping import ACTOR, Books
from dicomnode.config import Settings
from dicomnode.demo import free_port
from dicomnode.jobs import State
from dicomnode.sender.inquiry import Inquiry, Report, report_of
from dicomnode.spool import Spool
from tests.dicomnode.deliveries import finished_job, told
from tests.pacs import Pacs
from tests.walks.node import Orthanc

# A report that comes while its association is being released raises in pynetdicom's thread; the next round tells.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def job_id(books: Books, spool: Spool, now: datetime) -> str:
    return finished_job(books, spool, now)


@contextmanager
def listener(settings: Settings, books: Books, spool: Spool) -> Iterator[int]:
    """The listener as far as commitment goes: what it offers, whom it admits, what it binds."""
    ae, port, refused = AE("DICOMNODE"), free_port(), []
    for context in (Verification, *(cx.abstract_syntax for cx in AllStoragePresentationContexts[:100])):
        ae.add_supported_context(context)
    commitment.offer(ae)

    def on_requested(event: evt.Event) -> None:
        if not commitment.admits(event.assoc, settings):
            refused.append(event.assoc)
            event.assoc.acse.send_reject(1, 1, 3)
            event.assoc.kill()

    handlers = commitment.handlers(settings, books, spool, lambda: datetime.now(UTC))
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_REQUESTED, on_requested), *handlers]
    )
    try:
        yield port
    finally:
        server.shutdown()


def run(job_id: str, pacs: Pacs, settings, books: Books, spool: Spool, at: timedelta = timedelta(0), **other) -> State:
    """One delivery run, as if so much later."""
    object.__setattr__(settings, "destination", (pacs.destination(**other),))
    present = type("_At", (datetime,), {"now": classmethod(lambda cls, tz=None: datetime.now(tz) + at)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "datetime", present)
        job = bookkeeping.claim_sending(books, job_id, ACTOR, present.now(UTC))
        assert job is not None
        delivery.run(job, settings, books, spool)
        bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id).state


def how(books: Books, job_id: str) -> set[str | None]:
    """What the books say the files were confirmed by."""
    return {line.confirmed_by for line in bookkeeping.deliveries(books, job_id)}


def test_a_report_on_the_association_that_asked_confirms(job_id, settings, books: Books, spool: Spool):
    with Pacs(commits="same", finds=True).running() as pacs:
        assert run(job_id, pacs, settings, books, spool) is State.DONE
    assert how(books, job_id) == {"storage commitment"}
    assert told(books) == [("pacs", "CONFIRMED", "confirmed by storage commitment", 3)]
    (request,) = pacs.asked
    assert {i.ReferencedSOPClassUID for i in request.ReferencedSOPSequence} == {SecondaryCaptureImageStorage}
    assert pacs.report_statuses == [0x0000]
    assert pacs.queries == []


def test_a_report_on_a_new_association_confirms(job_id, settings, books: Books, spool: Spool, monkeypatch):
    monkeypatch.setattr(confirmation, "WAIT", 10.0)
    pacs = Pacs(commits="new")
    object.__setattr__(settings, "destination", (pacs.destination(),))
    with listener(settings, books, spool) as port, pacs.running():
        pacs.node = ("DICOMNODE", port)
        assert run(job_id, pacs, settings, books, spool) is State.DONE
        until(lambda: pacs.report_statuses == [0x0000])
    assert how(books, job_id) == {"storage commitment"}


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_late_report_closes_the_job_in_the_next_sweep(job_id, settings, books: Books, spool: Spool, monkeypatch):
    monkeypatch.setattr(confirmation, "WAIT", 0.0)
    with Pacs(commits="never").running() as pacs:
        assert run(job_id, pacs, settings, books, spool) is State.SENDING
        assert told(books)[0][1] == "SENT"
        (request,) = pacs.asked
        kept = frozenset(str(i.ReferencedSOPInstanceUID) for i in request.ReferencedSOPSequence)
        report = Report(str(request.TransactionUID), kept, {})
        present = datetime.now(UTC)
        assert not confirmation.hear(books, settings.destination, "STRANGER", report, present)
        assert confirmation.hear(books, settings.destination, "PACS", report, present)
        assert bookkeeping.to_send(books, ["pacs"], present) == [job_id]
        assert run(job_id, pacs, settings, books, spool) is State.DONE
    assert how(books, job_id) == {"storage commitment"}
    assert pacs.requests == 3


def test_a_pacs_that_never_reports_is_queried(job_id, settings, books: Books, spool: Spool):
    with Pacs(commits="never", finds=True).running() as pacs:
        assert run(job_id, pacs, settings, books, spool) is State.DONE
    assert how(books, job_id) == {"C-FIND"}
    (query,) = pacs.queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID) == ("IMAGE", "1.1")


def test_without_commitment_a_query_confirms_instance_by_instance(job_id, settings, books: Books, spool: Spool):
    first = bookkeeping.results(books, job_id)[0].sop_instance_uid
    with Pacs(finds=True, loses={first}).running() as pacs:
        assert run(job_id, pacs, settings, books, spool) is State.SENDING
        assert {(state, n) for _, state, _, n in told(books)} == {("CONFIRMED", 2), ("SENT", 1)}
        pacs.loses.clear()  # it was only slow to file it
        assert run(job_id, pacs, settings, books, spool, timedelta(seconds=5)) is State.DONE
    assert pacs.requests == 3


def test_what_the_pacs_has_lost_is_sent_again(job_id, settings, books: Books, spool: Spool):
    first = bookkeeping.results(books, job_id)[0].sop_instance_uid
    with Pacs(finds=True, loses={first}).running() as pacs:
        run(job_id, pacs, settings, books, spool)
        assert run(job_id, pacs, settings, books, spool, timedelta(minutes=11)) is State.SENDING
        assert any("not found by C-FIND 10 minutes" in (status or "") for *_, status, _ in told(books))
        pacs.loses.clear()
        assert run(job_id, pacs, settings, books, spool, timedelta(minutes=13)) is State.DONE
    assert pacs.requests == 4


def test_what_the_pacs_does_not_commit_to_is_sent_again(job_id, settings, books: Books, spool: Spool):
    first = bookkeeping.results(books, job_id)[0].sop_instance_uid
    with Pacs(commits="same", loses={first}).running() as pacs:
        assert run(job_id, pacs, settings, books, spool) is State.SENDING
        assert any("0x0112 it does not hold the instance" in (status or "") for *_, status, _ in told(books))
        pacs.loses.clear()
        assert run(job_id, pacs, settings, books, spool, timedelta(minutes=2)) is State.DONE
    assert pacs.requests == 4
    assert pacs.asked[0].TransactionUID != pacs.asked[1].TransactionUID


@pytest.mark.parametrize(
    ("pacs", "mode", "at", "words"),
    [
        (Pacs(), "auto", 0, "offers neither storage commitment nor query"),
        (Pacs(finds=True), "status", 0, "confirmed by C-STORE status"),
        (Pacs(commits="never"), "auto", 61, "no storage commitment report within 60 s"),
        (Pacs(finds=True, find_status=0xA900), "auto", 61, "it answers a C-FIND request with 0xA900"),
    ],
)
def test_a_status_alone_is_said_to_be_one(pacs: Pacs, mode, at, words, job_id, settings, books: Books, spool: Spool):
    with pacs.running():
        first = run(job_id, pacs, settings, books, spool, confirm=mode)
        assert first is (State.SENDING if at else State.DONE)
        if at:
            assert run(job_id, pacs, settings, books, spool, timedelta(seconds=at), confirm=mode) is State.DONE
    assert how(books, job_id) == {"C-STORE status"}
    assert words in "\n".join(explain.tell(books, job_id))


@pytest.mark.parametrize(("pacs", "mode"), [(Pacs(finds=True), "commitment"), (Pacs(commits="same"), "query")])
def test_a_proof_that_is_demanded_and_not_offered_fails_with_the_remedy(
    pacs: Pacs, mode, job_id, settings, books: Books, spool: Spool
):
    with pacs.running():
        assert run(job_id, pacs, settings, books, spool, confirm=mode) is State.FAILED
    ((_, state, status, count),) = told(books)
    assert (state, count) == ("DEAD", 3)
    assert f'offers no {mode}; enable {mode} for us there, or set confirm = "auto"' in (status or "")


def test_demanded_commitment_waits_and_asks_again_until_a_day_has_passed(
    job_id, settings, books: Books, spool: Spool, monkeypatch
):
    monkeypatch.setattr(confirmation, "WAIT", 0.0)
    with Pacs(commits="never", finds=True).running() as pacs:
        for hours in (0, 2, 4):
            at = timedelta(hours=hours)
            assert run(job_id, pacs, settings, books, spool, at, confirm="commitment") is State.SENDING
        assert len(pacs.asked) == 3
        assert run(job_id, pacs, settings, books, spool, timedelta(hours=25), confirm="commitment") is State.FAILED
    assert pacs.queries == []
    assert "no storage commitment report within a day" in (told(books)[0][2] or "")


def test_a_destination_may_report_and_store_nothing(settings, books: Books, spool: Spool):
    object.__setattr__(settings, "destination", (Pacs().destination(),))
    with listener(settings, books, spool) as port:
        ae = AE("PACS")
        for sop_class in (SecondaryCaptureImageStorage, commitment.StorageCommitmentPushModel, Verification):
            ae.add_requested_context(sop_class)
        assoc = ae.associate("127.0.0.1", port)
        accepted = {cx.abstract_syntax for cx in assoc.accepted_contexts}
        assert accepted == {commitment.StorageCommitmentPushModel, Verification}
        status, _ = assoc.send_n_event_report(unknown_report(), 1, *commitment_model())
        assert status.Status == 0x0112
        status, _ = assoc.send_n_event_report(unknown_report(), 3, *commitment_model())
        assert status.Status == 0x0115
        assoc.release()
        stranger = AE("STRANGER")
        stranger.add_requested_context(Verification)
        assert stranger.associate("127.0.0.1", port).is_rejected


class Gate(threading.Event):
    """The checkpoint of an association's thread. Between closing it and passing it, a report is served to its end."""

    def __init__(self, serve: threading.Event, served: threading.Event) -> None:
        super().__init__()
        self.set()
        self._serve, self._served = serve, served

    def clear(self) -> None:
        super().clear()
        time.sleep(0.1)  # so that the association's thread has come to rest here
        self._serve.set()
        self._served.wait(10)


@pytest.mark.parametrize("last", ["find", "release"])
def test_a_report_while_we_ask_or_go_makes_nobody_wait_for_ever(last: str, settings: Settings, monkeypatch):
    """What pynetdicom says of its threads while it serves a report stopped a sender for good; see docs/upstream."""
    pacs, serve, served = Pacs(commits="same", finds=True), threading.Event(), threading.Event()
    on_report, answer = Inquiry._on_report, Inquiry._serve

    def report_later(self: Inquiry, event: evt.Event) -> tuple[int, None]:
        serve.wait(10)
        return on_report(self, event)

    def answer_and_tell(self: Inquiry, *given) -> None:
        answer(self, *given)
        served.set()

    monkeypatch.setattr(Inquiry, "_on_report", report_later)
    monkeypatch.setattr(Inquiry, "_serve", answer_and_tell)

    def ask() -> None:
        with Inquiry(pacs.destination(), "DICOMNODE") as inquiry:
            assert inquiry.commit("1.2.3", [("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4")]) == 0
            time.sleep(0.3)  # the report has come, and waits
            if last == "find":
                inquiry._assoc._reactor_checkpoint = Gate(serve, served)
                assert inquiry.find("1.2", "1.3") == set()
            else:
                threading.Timer(0.3, serve.set).start()  # the release waits for it

    with pacs.running():
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(20)
        assert not asking.is_alive()
        assert served.is_set()
        assert pacs.report_statuses == [0x0000]


def unknown_report() -> Dataset:
    ds = Dataset()
    ds.TransactionUID = "2.25.1"
    return ds


def commitment_model() -> tuple[str, str]:
    return commitment.StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"


def test_an_instance_that_is_named_twice_is_not_kept():
    ds, item = Dataset(), Dataset()
    ds.TransactionUID, item.ReferencedSOPInstanceUID, item.FailureReason = "2.25.1", "1.2.3", 0x0110
    ds.ReferencedSOPSequence = ds.FailedSOPSequence = [item]
    assert report_of(2, ds) == Report("2.25.1", frozenset(), {"1.2.3": 0x0110})
    with pytest.raises(ValueError, match="event type 3"):
        report_of(3, ds)


def test_a_real_orthanc_commits_over_an_association_of_its_own(
    job_id, settings, books: Books, spool: Spool, tmp_path, monkeypatch
):
    monkeypatch.setattr(confirmation, "WAIT", 30.0)
    pacs = Pacs(ae_title="ORTHANC")
    object.__setattr__(settings, "destination", (pacs.destination(),))
    with (
        listener(settings, books, spool) as port,
        Orthanc(tmp_path / "orthanc", pacs.port, free_port(), node_port=port).running(),
    ):
        assert run(job_id, pacs, settings, books, spool, confirm="commitment") is State.DONE
    assert how(books, job_id) == {"storage commitment"}


def test_a_real_orthanc_that_cannot_reach_us_is_queried(job_id, settings, books: Books, spool: Spool, tmp_path):
    pacs = Pacs(ae_title="ORTHANC")
    with Orthanc(tmp_path / "orthanc", pacs.port, free_port()).running():
        assert run(job_id, pacs, settings, books, spool) is State.DONE
    assert how(books, job_id) == {"C-FIND"}
