"""Who may associate, what is negotiated, and which data path receives."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification
from ulid import ULID

from dicomnode import bookkeeping, commitment
from dicomnode.audit import printable
from dicomnode.bookkeeping import Peer
from dicomnode.config import Settings, Source
from dicomnode.crashpoints import crashpoint
from dicomnode.intake import Intake
from dicomnode.lately import Lately
from dicomnode.room import Room
from dicomnode.scp import stock
from dicomnode.scp.direct import MAXIMUM_PDU, Reader
from dicomnode.scp.door import Door
from dicomnode.scp.hooks import afterwards, install
from dicomnode.scp.server import Server, Share, Shares, listening_socket
from dicomnode.scp.store import Store
from dicomnode.selftest import permit

log = logging.getLogger(__name__)
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its errors repeat what strangers send, with line ends

# PS3.8 Table 9-21: result, source, reason
REJECTED_PERMANENT, REJECTED_TRANSIENT = 0x01, 0x02
SERVICE_USER, SERVICE_PRESENTATION = 0x01, 0x03
CALLING_NOT_RECOGNISED, CALLED_NOT_RECOGNISED, LOCAL_LIMIT_EXCEEDED = 0x03, 0x07, 0x02

# Explicit VR Little Endian first: what the sender holds explicitly is then not re-encoded on its way to us.
TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, *(s for s in ALL_TRANSFER_SYNTAXES if s != ExplicitVRLittleEndian)]

STORAGE_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]


@dataclass(slots=True)
class Listener:
    """Answers associations. `clock` is the only source of time.

    receiver: which of several receivers on one port this is; empty where there is but one.
    listening: their common socket; without it the listener makes its own.
    share: its part of the associations on that socket. turned: called in every turn of the accepting loop.
    """

    settings: Settings
    intake: Intake
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    receiver: str = ""
    listening: socket.socket | None = None
    tls: ssl.SSLContext | None = None
    share: Share = field(default_factory=lambda: Shares().of(0))
    turned: Callable[[], None] = lambda: None
    _peers: dict[int, Peer] = field(default_factory=dict)
    _server: Server | None = None
    _lately: Lately = field(default_factory=lambda: Lately(timedelta(minutes=1)))

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
            turned=self.turned,
            share=self.share,
            door=Door(self.settings.listen, self.settings.is_known),
            on_refused=self.on_refused,
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
        source = source or permit.source_of(self.intake.books, self.settings, calling, address, self.clock())
        called, own = request.called_ae_title.strip(), self.settings.node.ae_title
        here = sum(peer.address == address for peer in list(self._peers.values()))
        if called != own:
            why = f"{calling} at {address} called {called}; this node is {own}"
            self._reject(event, CALLED_NOT_RECOGNISED, "called-ae-title", why)
        elif source is None and not commitment.admits(event.assoc, self.settings):
            why = f"{calling} at {address} is not a [[source]] in node.toml; add it there if it may send"
            self._reject(event, CALLING_NOT_RECOGNISED, "unlisted-source", why)
        elif source and here >= self.settings.listen.max_per_address:
            why = f"{address} has {here} associations; see [listen] max_per_address"
            self._reject(event, LOCAL_LIMIT_EXCEEDED, "too-many", why, REJECTED_TRANSIENT, SERVICE_PRESENTATION)
        elif source:
            self._peers[id(event.assoc)] = self._peer(source, address)

    def on_ended(self, event: evt.Event) -> None:
        """The association was released, aborted or lost; what it brought may now be whole."""
        self._end(event.assoc)

    def _end(self, assoc: Association) -> None:
        peer = self._peers.pop(id(assoc), None)
        if peer:
            crashpoint("association.ended")
            bookkeeping.release(self.intake.books, peer.association, self.clock())

    @property
    def _mark(self) -> str:
        return f"-{self.receiver}" if self.receiver else ""

    def _entity(self) -> AE:
        ae = AE(self.settings.node.ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU
        ae.maximum_associations = self.settings.listen.max_associations
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
        afterwards(assoc, lambda: self._end(assoc))
        if self.settings.listen.data_path == "direct":
            install(assoc, Reader(assoc, store, lambda of: self._peers[id(of)], self.on_tls_failed))

    def _store(self) -> Store:
        listen = self.settings.listen
        room = Room(self.intake.spool.root, int(listen.keep_free_gib * 2**30))
        return Store(self.intake, room, listen.largest_instance_mib * 2**20, self.clock)

    def _peer(self, source: Source, address: str) -> Peer:
        now = self.clock()
        return Peer(f"{ULID.from_datetime(now)}{self._mark}", source.ae_title, address, now, source.lane)

    def on_refused(self, address: str, why: str) -> None:
        """A connection was closed unheard; told on a thread of its own, for the next connection waits here."""
        if times := self._lately.due((address, why), self.clock()):
            arguments = ("(nobody)", address, "too-many", f"{address}: {why}; see [listen]", times)
            threading.Thread(target=self._note, args=arguments, daemon=True, name="refusal").start()

    def on_tls_failed(self, assoc: Association, reason: str) -> None:
        """A peer that does not speak TLS, or has no certificate that we trust."""
        address = assoc.requestor.address
        if times := self._lately.due((address, reason), self.clock()):
            self._note("(nobody)", address, "tls", f"{address}: no TLS connection could be made ({reason})", times)

    def _reject(
        self,
        event: evt.Event,
        reason: int,
        code: str,
        why: str,
        result: int = REJECTED_PERMANENT,
        source: int = SERVICE_USER,
    ) -> None:
        event.assoc.acse.send_reject(result, source, reason)
        event.assoc.kill()
        calling, address = event.assoc.requestor.primitive.calling_ae_title.strip(), event.assoc.requestor.address
        if calling == self.settings.node.ae_title:
            return  # `dicomnode doctor` asking whether it is us
        if times := self._lately.due((address, calling, code), self.clock()):
            self._note(calling, address, code, printable(why), times)

    def _note(self, calling: str, address: str, code: str, why: str, times: int) -> None:
        """Once a minute for each who is refused: a flood of them must not fill the disk."""
        log.warning("refused at the door, %d times: %s", times, code)
        try:
            bookkeeping.note_rejection(self.intake.books, calling, address, code, why, self.clock(), times)
        except bookkeeping.BooksAway:
            log.exception("a refusal could not be recorded")
