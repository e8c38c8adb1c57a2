"""Storage commitment (PS3.4 Annex J) at the listener: reports on our results, and scanners' requests."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from dicomnode import bookkeeping, confirmation
from dicomnode.bookkeeping import Books, BooksAway, Commitment
from dicomnode.config import Destination, Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.retries import delay
from dicomnode.sender import Unreachable, associate
from dicomnode.sender.inquiry import COMMITTED, REQUEST_COMMITMENT, SOME_FAILED, report_of, report_to_send
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

SUCCESS, PROCESSING_FAILURE, NO_SUCH_OBJECT, INVALID_ARGUMENT = 0x0000, 0x0110, 0x0112, 0x0115  # PS3.7 Annex C
OTHER_CLASS, NO_SUCH_ACTION, NOT_AUTHORISED = 0x0119, 0x0123, 0x0124
PERIOD, BREATH = 2.0, 0.1  # seconds between two looks at what waits; until a response is out before a report follows
GIVE_UP = timedelta(days=1)


def offer(ae: AE) -> None:
    """Let the listener take commitment in both roles: a PACS that reports is the SCP, a scanner that asks the SCU."""
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)


def admits(assoc: Association, settings: Settings) -> bool:
    """True where a destination calls from its own address; it may then report and echo, and store nothing."""
    calling = assoc.requestor.primitive.calling_ae_title.strip()
    if not any(d.ae_title == calling and _lives_at(d, assoc.requestor.address) for d in settings.destination):
        return False
    taken = (StorageCommitmentPushModel, Verification)
    assoc.acceptor.supported_contexts = [cx for cx in assoc.acceptor.supported_contexts if cx.abstract_syntax in taken]
    return True


def _lives_at(destination: Destination, address: str) -> bool:
    try:
        found = socket.getaddrinfo(destination.host, None)
    except OSError:
        return False
    return address.removeprefix("::ffff:") in {str(each[4][0]) for each in found}


def handlers(settings: Settings, books: Books, spool: Spool, clock: Callable[[], datetime]) -> list[Any]:
    """What the listener binds besides its own handlers."""

    def on_report(event: evt.Event) -> tuple[int, None]:
        return _on_report(event, settings, books, clock()), None

    def on_request(event: evt.Event) -> tuple[int, None]:
        return _on_request(event, settings, books, spool, clock()), None

    return [(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_N_ACTION, on_request)]


def _on_report(event: evt.Event, settings: Settings, books: Books, now: datetime) -> int:
    peer = event.assoc.requestor.primitive.calling_ae_title.strip()
    try:
        report = report_of(event.event_type, event.event_information)
        known = confirmation.hear(books, settings.destination, peer, report, now)
    except (ValueError, AttributeError) as error:
        log.warning("a storage commitment report from %s cannot be read: %s", peer, error)
        return INVALID_ARGUMENT
    except BooksAway:
        log.exception("a storage commitment report from %s could not be recorded", peer)
        return PROCESSING_FAILURE
    if not known:
        log.warning("a storage commitment report from %s names a transaction that it was not asked for", peer)
        return NO_SUCH_OBJECT
    return SUCCESS


def _on_request(event: evt.Event, settings: Settings, books: Books, spool: Spool, now: datetime) -> int:
    peer = (event.assoc.requestor.primitive.calling_ae_title.strip(), event.assoc.requestor.address)
    if settings.source_of(*peer) is None:
        return NOT_AUTHORISED
    if event.action_type != REQUEST_COMMITMENT:
        return NO_SUCH_ACTION
    try:
        asked = event.action_information
        references = [
            (str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in asked.ReferencedSOPSequence
        ]
        request = bookkeeping.note_request(books, str(asked.TransactionUID), peer, references, now)
    except AttributeError as error:
        log.warning("a storage commitment request from %s cannot be read: %s", peer[0], error)
        return INVALID_ARGUMENT
    except BooksAway:
        log.exception("a storage commitment request from %s could not be recorded", peer[0])
        return PROCESSING_FAILURE
    crashpoint("commitment.noted")
    answerer = Answerer(settings, books, spool)
    threading.Thread(target=answerer.answer, args=(request, event.assoc), daemon=True, name="commitment").start()
    return SUCCESS


def start(settings: Settings, books: Books, spool: Spool, stop: threading.Event) -> None:
    """Answer in the background what could not be answered at once, until told to stop."""
    if any(source.commitment_port for source in settings.source):
        answerer = Answerer(settings, books, spool)
        threading.Thread(target=answerer.run, args=(stop,), daemon=True, name="commitments").start()


@dataclass(frozen=True, slots=True)
class Answerer:
    """Tells scanners what we keep: only what is durable, recorded and still there, under the class they named."""

    settings: Settings
    books: Books
    spool: Spool

    def run(self, stop: threading.Event) -> None:
        """Answer what waits, again and again."""
        while not stop.wait(PERIOD):
            try:
                for request in bookkeeping.take_requests(self.books, datetime.now(UTC)):
                    self.answer(request)
            except Exception:  # an edge: the loop must outlive a database that is away
                log.exception("storage commitment requests could not be answered; they wait")

    def answer(self, request: Commitment, assoc: Association | None = None) -> None:
        """One request: over the association that asked, else over a new one, else later."""
        try:
            report, event_type = self.report(request)
            told = self._over_the_same(assoc, report, event_type) if assoc else ""
            words, again = (told, False) if told else self._over_a_new(request, report, event_type)
            crashpoint("commitment.reported")
            now = datetime.now(UTC)
            if again and now - request.asked_at < GIVE_UP:
                bookkeeping.note_answer(self.books, request.id, words, now, now + delay(request.attempts - 1))
            else:
                bookkeeping.note_answer(self.books, request.id, words, now)
                log.info("storage commitment asked for by %s: %s", request.calling_ae_title, words)
        except BooksAway:
            log.exception("a storage commitment request waits until the books are back")

    def report(self, request: Commitment) -> tuple[Dataset, int]:
        """The event information and its Event Type ID (PS3.4 J.3.3.1)."""
        asked = [(line.split(" ")[0], line.split(" ")[1]) for line in request.instances.splitlines()]
        recorded = bookkeeping.recorded(self.books, [uid for _, uid in asked])
        there = {(uid, sop_class) for uid, sop_class, path in recorded if self.spool.path(path).is_file()}
        known = {uid for uid, _ in there}
        kept = [pair for pair in asked if (pair[1], pair[0]) in there]
        failed = [(*pair, OTHER_CLASS if pair[1] in known else NO_SUCH_OBJECT) for pair in asked if pair not in kept]
        return report_to_send(request.transaction_uid, kept, failed), SOME_FAILED if failed else COMMITTED

    def _over_the_same(self, assoc: Association, report: Dataset, event_type: int) -> str:
        time.sleep(BREATH)  # the response to the request goes first
        return "reported over the association that asked" if _send(assoc, report, event_type) else ""

    def _over_a_new(self, request: Commitment, report: Dataset, event_type: int) -> tuple[str, bool]:
        source = self.settings.source_of(request.calling_ae_title, request.address)
        if source is None or not source.commitment_port:
            return "not reported: the association has ended, and the [[source]] has no commitment_port", False
        scanner = Destination("the sender", source.ae_title, request.address, source.commitment_port)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        try:
            assoc = associate(scanner, self.settings.node.ae_title, [StorageCommitmentPushModel], roles=roles)
        except Unreachable as away:
            return f"not reported: {away}", True
        try:
            told = _send(assoc, report, event_type)
        finally:
            if assoc.is_established:
                assoc.release()
        return ("reported over a new association" if told else "not reported: it did not take the report", not told)


def _send(assoc: Association, report: Dataset, event_type: int) -> bool:
    try:
        status, _ = assoc.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError):  # pynetdicom's words for an association that has ended
        return False
    return bool(status.get("Status") == SUCCESS)
