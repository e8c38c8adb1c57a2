"""The fast data path: the data set of a C-STORE goes from the socket's buffer to the spool file.

pynetdicom keeps negotiation, release, abort and every other service. What it does with a C-STORE costs a thread change,
a millisecond's poll and some hundred objects for each instance; none of that is needed to move bytes.
"""

import logging
import ssl
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from dicomnode.bookkeeping import Peer
from dicomnode.crashpoints import crashpoint
from dicomnode.scp import wire
from dicomnode.scp.store import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, Store, status_of
from dicomnode.scp.wire import EndedHere, Fragment, Malformed, StoreRequest
from dicomnode.spool import Part

log = logging.getLogger(__name__)

MAXIMUM_PDU = 131072  # bytes; what we announce, and more is never taken
MAXIMUM_OTHER_PDU = 2**20  # bytes; an A-ASSOCIATE-RQ with 128 contexts and all transfer syntaxes has a tenth of it
MAXIMUM_COMMAND = 65536  # bytes of a command set
MAXIMUM_OTHER_MESSAGE = 16 * 2**20  # bytes of a data set that pynetdicom collects in memory (a C-FIND identifier)
ESTABLISHED, CLOSING = "Sta6", "Sta13"  # PS3.8 Tables 9-4 and 9-5
CONNECTION_CLOSED, INVALID_PDU = "Evt17", "Evt19"  # PS3.8 Table 9-10


class Arriving:
    """One C-STORE whose data set is on its way; where it cannot be kept, its bytes are read and forgotten."""

    def __init__(self, store: Store, request: StoreRequest, peer: Peer, transfer_syntax: str) -> None:
        self._store, self._request, self._peer = store, request, peer
        self._part: Part | None = None
        self._status = CANNOT_UNDERSTAND if not request.has_data_set else OUT_OF_RESOURCES
        meta = wire.file_meta(request.sop_class_uid, request.sop_instance_uid, transfer_syntax)
        self._beginning = len(meta)
        if request.has_data_set:
            try:
                self._part = store.begin(meta)
            except OSError as error:
                self._status = status_of(error, peer)

    def write(self, piece: memoryview) -> None:
        """Take a piece of the data set."""
        if self._part is None:
            return
        try:
            self._store.write(self._part, piece, self._beginning)
        except OSError as error:
            self._status = status_of(error, self._peer)
            self.drop()

    def finish(self, context_id: int) -> bytes:
        """Everything has arrived: keep it; the response, as a PDU."""
        if self._part is not None:
            self._status = self._store.finish(self._part, self._peer)
        return wire.store_response(self._request, self._status, context_id)

    def drop(self) -> None:
        """Forget the bytes."""
        if self._part is not None:
            self._part.drop()
            self._part = None


class Reader:
    """Reads the PDUs of one association, on pynetdicom's DUL thread and in the place of its own reader."""

    def __init__(
        self,
        assoc: Association,
        store: Store,
        peer_of: Callable[[Association], Peer],
        on_tls_failed: Callable[[Association, str], None] = lambda _, __: None,
    ) -> None:
        self._assoc, self._dul = assoc, assoc.dul
        self._on_tls_failed = on_tls_failed
        self._store, self._peer_of = store, peer_of
        self._command = bytearray()
        self._context_id = 0
        self._arriving: Arriving | None = None
        self._others: int | None = None  # bytes so far of a data set that pynetdicom collects

    def read(self) -> None:
        """Read one PDU, and on as long as a data set is arriving and nothing else wants the thread.

        Stands for DULServiceProvider._read_pdu_data: what went wrong goes to the state machine as an event.
        """
        if self._dul.state_machine.current_state == CLOSING:
            self._read_away()
            return
        try:
            self._read_pdu()
            while self._arriving and self._dul.socket.ready:
                self._dul._idle_timer.restart()
                self._read_pdu()
        except EndedHere:
            self.drop()  # the abort that waits to be sent ends the association
        except OSError as error:
            self._end(CONNECTION_CLOSED, error)
        except Malformed as error:
            self._end(INVALID_PDU, error)

    def drop(self) -> None:
        """The association has ended: forget what is half received."""
        if self._arriving:
            self._arriving.drop()
            self._arriving = None

    def _read_away(self) -> None:
        """After an abort nothing counts any more, and what was malformed cannot be told into PDUs."""
        try:
            if not self._dul.socket.throw_away():
                self._dul.event_queue.put(CONNECTION_CLOSED)
        except OSError:
            self._dul.event_queue.put(CONNECTION_CLOSED)

    def _end(self, event: str, error: Exception) -> None:
        if self._arriving or event == INVALID_PDU:
            log.warning("an association from %s breaks off: %s", self._assoc.requestor.address, error)
        self.drop()
        self._dul.event_queue.put(event)
        if isinstance(error, ssl.SSLError):
            self._on_tls_failed(self._assoc, error.reason or "the handshake failed")

    def _read_pdu(self) -> None:
        head = self._dul.socket.take(wire.PDU_HEAD.size)
        kind, length = wire.PDU_HEAD.unpack(head)
        if kind not in wire.PDU_TYPES:
            raise Malformed(f"PDU type {kind:02X}H is unknown")
        if kind != wire.P_DATA_TF or self._dul.state_machine.current_state != ESTABLISHED:
            self._pass_pdu_on(bytes(head), length)
            return
        if length > MAXIMUM_PDU:
            raise Malformed(f"a P-DATA-TF PDU of {length} bytes; {MAXIMUM_PDU} were agreed")
        for fragment in wire.fragments(self._dul.socket.take(length)):
            if fragment.is_command:
                self._take_command(fragment)
            else:
                self._take_data(fragment)

    def _pass_pdu_on(self, head: bytes, length: int) -> None:
        """Association control is pynetdicom's; it also ends a data set that is half received."""
        self.drop()
        if length > MAXIMUM_OTHER_PDU:
            raise Malformed(f"a PDU of {length} bytes")
        whole = bytearray(head)
        while len(whole) < wire.PDU_HEAD.size + length:
            whole += self._dul.socket.take(min(MAXIMUM_PDU, wire.PDU_HEAD.size + length - len(whole)))
        try:
            pdu, event = self._dul._decode_pdu(whole)
        except Exception as error:  # an edge: pynetdicom's decoders raise whatever wild bytes make them
            raise Malformed(f"a PDU that cannot be decoded ({type(error).__name__})") from error
        self._dul.event_queue.put(event)
        self._dul._recv_pdu.put(pdu)

    def _take_command(self, fragment: Fragment) -> None:
        if self._arriving or self._others is not None:
            raise Malformed("a command in the middle of a data set")
        if self._command and fragment.context_id != self._context_id:
            raise Malformed("one command over two presentation contexts")
        self._context_id = fragment.context_id
        self._command += fragment.content
        if len(self._command) > MAXIMUM_COMMAND:
            raise Malformed(f"a command set of more than {MAXIMUM_COMMAND} bytes")
        if fragment.is_last:
            encoded = bytes(self._command)
            self._command.clear()
            self._begin_message(encoded)

    def _begin_message(self, encoded: bytes) -> None:
        elements = wire.command_elements(encoded)
        request = wire.store_request(elements)
        if request is None:
            self._others = 0 if wire.has_data_set(elements) else None
            self._pass_fragment_on(wire.COMMAND | wire.LAST, encoded)
            return
        context = self._assoc._accepted_cx.get(self._context_id)
        if context is None:
            raise Malformed(f"a C-STORE over presentation context {self._context_id}, which was not accepted")
        arriving = Arriving(self._store, request, self._peer_of(self._assoc), context.transfer_syntax[0])
        if request.has_data_set:
            self._arriving = arriving
        else:
            self._answer(arriving)

    def _take_data(self, fragment: Fragment) -> None:
        if fragment.context_id != self._context_id:
            raise Malformed("a data set over another presentation context than its command")
        if self._arriving:
            self._arriving.write(fragment.content)
            if fragment.is_last:
                arriving, self._arriving = self._arriving, None
                self._answer(arriving)
        elif self._others is not None:
            self._others += len(fragment.content)
            if self._others > MAXIMUM_OTHER_MESSAGE:
                raise Malformed(f"a message other than C-STORE of more than {MAXIMUM_OTHER_MESSAGE} bytes")
            if fragment.is_last:
                self._others = None
            self._pass_fragment_on(wire.LAST if fragment.is_last else 0, bytes(fragment.content))
        else:
            raise Malformed("a data set without a command")

    def _answer(self, arriving: Arriving) -> None:
        self._dul.socket.socket.sendall(arriving.finish(self._context_id))
        crashpoint("receive.answered")

    def _pass_fragment_on(self, control: int, content: bytes) -> None:
        primitive: Any = P_DATA()
        primitive.presentation_data_value_list = [[self._context_id, bytes([control]) + content]]
        self._assoc.dimse.receive_primitive(primitive)
