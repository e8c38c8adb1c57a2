"""The DIMSE listener: C-ECHO and C-STORE. It never imports torch and never decodes pixels."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer
from ulid import ULID

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Peer
from dicomnode.config import Settings, Source
from dicomnode.intake import Intake
from inference.refusal import Refused

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 Table B.2-1
REJECTED_PERMANENT, SERVICE_USER = 0x01, 0x01  # PS3.8 Table 9-21: result, source
CALLING_NOT_RECOGNISED, CALLED_NOT_RECOGNISED = 0x03, 0x07  # PS3.8 Table 9-21: reason
MAXIMUM_PDU = 131072  # measured: 17 % more instances a second than the usual 16 KiB

# Explicit VR Little Endian first: what the sender holds explicitly is then not re-encoded on its way to us.
TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, *(s for s in ALL_TRANSFER_SYNTAXES if s != ExplicitVRLittleEndian)]


@dataclass(slots=True)
class Listener:
    """Answers associations. `clock` is the only source of time."""

    settings: Settings
    intake: Intake
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _peers: dict[int, Peer] = field(default_factory=dict)
    _server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen in background threads; raises OSError where the port cannot be had."""
        ended = bookkeeping.release_all(self.intake.books, self.clock())
        if ended:
            log.warning("%d associations ended with the last listener", ended)
        ae = AE(self.settings.node.ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_STORE, self.on_c_store),
            (evt.EVT_RELEASED, self.on_ended),
            (evt.EVT_ABORTED, self.on_ended),
            (evt.EVT_CONN_CLOSE, self.on_ended),
        ]
        address = (self.settings.listen.host, self.settings.listen.port)
        self._server = ae.start_server(address, block=False, evt_handlers=handlers)
        log.info("%s listens on %s port %d", self.settings.node.ae_title, *address)

    def run(self, stop: threading.Event) -> None:
        """Listen until told to stop."""
        self.start()
        stop.wait()
        self.shutdown()

    def shutdown(self) -> None:
        """Stop listening and end the open associations."""
        if self._server:
            self._server.shutdown()

    def on_requested(self, event: evt.Event) -> None:
        """Reject who is not listed: PS3.8 9.3.4, rejected-permanent by the service user, with the reason."""
        request = event.assoc.requestor.primitive
        calling, address = request.calling_ae_title.strip(), event.assoc.requestor.address
        source = self.settings.source_of(calling, address)
        called, own = request.called_ae_title.strip(), self.settings.node.ae_title
        if called != own:
            why = f"{calling} at {address} called {called}; this node is {own}"
            self._reject(event, CALLED_NOT_RECOGNISED, "called-ae-title", why)
        elif source is None:
            why = f"{calling} at {address} is not a [[source]] in node.toml; add it there if it may send"
            self._reject(event, CALLING_NOT_RECOGNISED, "unlisted-source", why)
        else:
            self._peers[id(event.assoc)] = self._peer(source, address)

    def on_c_store(self, event: evt.Event) -> int:
        """Answer one C-STORE request; Success only once the instance is safely kept."""
        peer = self._peers[id(event.assoc)]
        try:
            self.intake.receive(event.encoded_dataset(), peer, self.clock())
        except Refused as refusal:
            log.warning("refused an instance from %s: %s", peer.calling_ae_title, refusal.code)
            return CANNOT_UNDERSTAND
        except (OSError, bookkeeping.BooksAway):
            log.exception("could not keep an instance from %s", peer.calling_ae_title)
            return OUT_OF_RESOURCES
        return SUCCESS

    def on_ended(self, event: evt.Event) -> None:
        """The association was released, aborted or lost; what it brought may now be whole."""
        peer = self._peers.pop(id(event.assoc), None)
        if peer:
            bookkeeping.release(self.intake.books, peer.association, self.clock())

    def _peer(self, source: Source, address: str) -> Peer:
        now = self.clock()
        return Peer(str(ULID.from_datetime(now)), source.ae_title, address, now, source.lane)

    def _reject(self, event: evt.Event, reason: int, code: str, why: str) -> None:
        log.warning("association rejected: %s", code)
        event.assoc.acse.send_reject(REJECTED_PERMANENT, SERVICE_USER, reason)
        event.assoc.kill()
        if event.assoc.requestor.primitive.calling_ae_title.strip() == self.settings.node.ae_title:
            return  # `dicomnode doctor` asking whether it is us
        bookkeeping.note_refusal(
            self.intake.books, "association", event.assoc.requestor.address, code, why, self.clock()
        )
