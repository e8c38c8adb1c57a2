"""Who may associate, what is negotiated, and which data path receives."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification
from ulid import ULID

from dicomnode import bookkeeping, commitment
from dicomnode.bookkeeping import Peer
from dicomnode.config import Settings, Source
from dicomnode.crashpoints import crashpoint
from dicomnode.intake import Intake
from dicomnode.room import Room
from dicomnode.scp import stock
from dicomnode.scp.direct import MAXIMUM_PDU, Reader
from dicomnode.scp.hooks import install
from dicomnode.scp.server import Server, listening_socket
from dicomnode.scp.store import Store

log = logging.getLogger(__name__)

REJECTED_PERMANENT, SERVICE_USER = 0x01, 0x01  # PS3.8 Table 9-21: result, source
CALLING_NOT_RECOGNISED, CALLED_NOT_RECOGNISED = 0x03, 0x07  # PS3.8 Table 9-21: reason
MAXIMUM_ASSOCIATIONS = 64  # of one receiver

# Explicit VR Little Endian first: what the sender holds explicitly is then not re-encoded on its way to us.
TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, *(s for s in ALL_TRANSFER_SYNTAXES if s != ExplicitVRLittleEndian)]

STORAGE_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]


@dataclass(slots=True)
class Listener:
    """Answers associations. `clock` is the only source of time.

    receiver: which of several receivers on one port this is; empty where there is but one.
    listening: their common socket; without it the listener makes its own.
    """

    settings: Settings
    intake: Intake
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    receiver: str = ""
    listening: socket.socket | None = None
    tls: ssl.SSLContext | None = None
    _peers: dict[int, Peer] = field(default_factory=dict)
    _server: Server | None = None

    def start(self) -> None:
        """Listen in background threads; raises OSError where the port cannot be had."""
        ended = bookkeeping.release_all(self.intake.books, self.clock(), self._mark)
        if ended:
            log.warning("%d associations ended with the last listener", ended)
        address = (self.settings.listen.host, self.settings.listen.port)
        store = self._store()
        listening = self.listening or listening_socket(*address)
        self._server = self._entity().make_server(
            address,
            ssl_context=self.tls,
            evt_handlers=self._handlers(store),
            server_class=Server,
            listening=listening,
            install=lambda assoc: self._install(assoc, store),
        )
        if listening is not self.listening:
            listening.close()
        threading.Thread(target=self._server.serve_forever, name="listener", daemon=True).start()
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
        elif source is None and not commitment.admits(event.assoc, self.settings):
            why = f"{calling} at {address} is not a [[source]] in node.toml; add it there if it may send"
            self._reject(event, CALLING_NOT_RECOGNISED, "unlisted-source", why)
        elif source:
            self._peers[id(event.assoc)] = self._peer(source, address)
            if event.assoc.dul.socket.socket is None:  # gone meanwhile, and on_ended has been and found nobody
                self._peers.pop(id(event.assoc), None)

    def on_ended(self, event: evt.Event) -> None:
        """The association was released, aborted or lost; what it brought may now be whole."""
        peer = self._peers.pop(id(event.assoc), None)
        if peer:
            crashpoint("association.ended")
            bookkeeping.release(self.intake.books, peer.association, self.clock())

    @property
    def _mark(self) -> str:
        return f"-{self.receiver}" if self.receiver else ""

    def _entity(self) -> AE:
        ae = AE(self.settings.node.ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU
        ae.maximum_associations = MAXIMUM_ASSOCIATIONS
        ae.add_supported_context(Verification)
        for sop_class in STORAGE_CLASSES:
            ae.add_supported_context(sop_class, TRANSFER_SYNTAXES)
        commitment.offer(ae)
        return ae

    def _handlers(self, store: Store) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_STORE, lambda event: stock.on_c_store(event, store, self._peers[id(event.assoc)])),
            (evt.EVT_RELEASED, self.on_ended),
            (evt.EVT_ABORTED, self.on_ended),
            (evt.EVT_CONN_CLOSE, self.on_ended),
            *commitment.handlers(self.settings, self.intake.books, self.intake.spool, self.clock),
        ]

    def _install(self, assoc: Association, store: Store) -> None:
        if self.settings.listen.data_path == "direct":
            install(assoc, Reader(assoc, store, lambda of: self._peers[id(of)]))

    def _store(self) -> Store:
        listen = self.settings.listen
        room = Room(self.intake.spool.root, int(listen.keep_free_gib * 2**30))
        return Store(self.intake, room, listen.largest_instance_mib * 2**20, self.clock)

    def _peer(self, source: Source, address: str) -> Peer:
        now = self.clock()
        return Peer(f"{ULID.from_datetime(now)}{self._mark}", source.ae_title, address, now, source.lane)

    def _reject(self, event: evt.Event, reason: int, code: str, why: str) -> None:
        log.warning("association rejected: %s", code)
        event.assoc.acse.send_reject(REJECTED_PERMANENT, SERVICE_USER, reason)
        event.assoc.kill()
        if event.assoc.requestor.primitive.calling_ae_title.strip() == self.settings.node.ae_title:
            return  # `dicomnode doctor` asking whether it is us
        bookkeeping.note_refusal(
            self.intake.books, "association", event.assoc.requestor.address, code, why, self.clock()
        )
