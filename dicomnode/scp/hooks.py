"""Where the direct data path is fastened to pynetdicom; tests/dicomnode/scp/test_contract.py guards each name used.

pynetdicom's two threads of an association look for work every millisecond, which costs an idle association 4 % of a
core and every message two milliseconds. Here they wait until there is something to do.
"""

import logging
import os
import queue
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationSocket

from dicomnode.scp.direct import MAXIMUM_PDU, Reader
from dicomnode.scp.wire import PDU_HEAD, EndedHere

log = logging.getLogger(__name__)

PATIENCE = 0.25  # seconds after which a thread that waits looks at its timers all the same
BUFFER = 2 * (MAXIMUM_PDU + PDU_HEAD.size)  # bytes: one PDU, and what has come of the next


class Bell:
    """Wakes a thread that waits for a socket."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake the waiting thread, now or when it next waits."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.descriptor, 1)

    def hush(self) -> None:
        """The thread is awake."""
        with self._lock:
            if not self._closed:
                os.eventfd_read(self.descriptor)

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.descriptor)


class RingingQueue(queue.Queue[Any]):
    """A queue that says when something has been put into it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put the item and ring."""
        super().put(item, block, timeout)
        self._ring()


class Checkpoint(threading.Event):
    """Stands for Association._reactor_checkpoint, which the association's thread passes in every turn of its loop.

    It lets the thread through when there is work for it, when it is told to end, or when its timers are due.
    """

    def __init__(self, is_work: Callable[[], bool]) -> None:
        super().__init__()
        self._is_work = is_work
        self._rung = threading.Event()
        self.set()

    def ring(self) -> None:
        """There is work."""
        self._rung.set()

    def set(self) -> None:
        """Open the checkpoint; also what Association.kill() does."""
        super().set()
        self._rung.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for work, then for the checkpoint to be open."""
        if not self._is_work():
            self._rung.wait(PATIENCE)
        self._rung.clear()
        return super().wait(timeout)


class WaitingSocket(AssociationSocket):  # type: ignore[misc]
    """The socket of an association, waited for instead of polled; what has come is taken at once, into one buffer."""

    def __init__(self, assoc: Association, client_socket: Any, bell: Bell) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._bell = bell
        self._poll = select.poll()
        self._poll.register(client_socket.fileno(), select.POLLIN)
        self._poll.register(bell.descriptor, select.POLLIN)
        self._buffer, self._begin, self._end = memoryview(bytearray(BUFFER)), 0, 0
        # With a time-out Python's recv_into() polls before it reads; the descriptor itself does not block.
        self._reads_at_once = not isinstance(client_socket, ssl.SSLSocket) and client_socket.gettimeout() is not None

    @property
    def ready(self) -> bool:
        """True where there is something to read; waits for it, or for the bell, but not for long."""
        if self.socket is None or not self._is_connected:
            time.sleep(0.001)  # the loop around us ends soon, and must not spin until then
            return False
        return self._end > self._begin or self._wait(0 if self.event_queue.qsize() else PATIENCE)

    def take(self, count: int) -> memoryview:
        """The next bytes, at most half a BUFFER of them: a view, valid until the next call.

        Raises OSError where the peer has gone, is silent too long, or we want to end.
        """
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin + count > BUFFER:
            left = self._end - self._begin
            self._buffer[:left] = bytes(self._buffer[self._begin : self._end])
            self._begin, self._end = 0, left
        while self._end - self._begin < count:
            self._end += self._receive(self._buffer[self._end :])
        taken = self._buffer[self._begin : self._begin + count]
        self._begin += count
        return taken

    def throw_away(self) -> bool:
        """Forget what has come; False where the peer has closed the connection. Raises OSError."""
        if self._end > self._begin:
            self._begin = self._end = 0
            return True
        return bool(self.socket.recv_into(self._buffer))

    def _receive(self, view: memoryview) -> int:
        """Wait until something has come and read it: how many bytes, at least one."""
        patience, silent_since = self.assoc.network_timeout, time.monotonic()
        count = self._read(view) if self._reads_at_once else None
        while count is None:
            if self._wait(PATIENCE):
                count = self._read(view)
            elif self.assoc.dul.to_provider_queue.qsize() or self.socket is None:
                raise EndedHere("ended here, in the middle of a PDU")
            elif patience is not None and time.monotonic() - silent_since > patience:
                raise TimeoutError(f"silent for {patience:.0f} s in the middle of a PDU")
        if not count:
            raise ConnectionResetError("the peer closed the connection")
        return count

    def _read(self, view: memoryview) -> int | None:
        """Bytes read; None where none has come."""
        if self.socket is None:
            raise EndedHere("ended here, in the middle of a PDU")
        if not self._reads_at_once:
            return int(self.socket.recv_into(view))
        try:
            return os.readv(self.socket.fileno(), [view])
        except BlockingIOError:
            return None

    def _wait(self, seconds: float) -> bool:
        sock = self.socket
        if sock is None:
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        readable = False
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor == self._bell.descriptor:
                self._bell.hush()
            else:
                readable = True
        return readable


class EndingMachine(StateMachine):  # type: ignore[misc]
    """A state machine whose failure ends the association.

    In pynetdicom it ends one of the association's two threads; the other waits for ever and holds its place. Bytes that
    come before their turn are enough: what we have decided and what the peer has broken cross (Evt7 in Sta13).
    """

    def do_action(self, event: str) -> None:
        """Execute the action of an event; where that cannot be done, close the connection."""
        try:
            super().do_action(event)
        except Exception as error:  # an edge: whatever wild bytes make the actions raise
            log.warning("an association from %s breaks off: %s", self.dul.assoc.requestor.address, error)
            self.dul.assoc.is_aborted, self.dul.assoc.is_established = True, False
            self.dul.assoc._kill = self.dul._kill_thread = True
            self.dul.artim_timer.stop()
            self.dul.socket.close()
            evt.trigger(self.dul.assoc, evt.EVT_CONN_CLOSE, {"address": self.dul.assoc.requestor.address_info.as_tuple})


def afterwards(thread: Any, then: Callable[[], None]) -> None:
    """Let a thread that has not been started do one thing more at its end, whatever ends it.

    pynetdicom tells nobody of an association that ends with an exception of ours, or before its request was looked at.
    """
    run = thread.run

    def run_to_the_end() -> None:
        try:
            run()
        finally:
            then()

    thread.run = run_to_the_end


def install(assoc: Association, reader: Reader) -> None:
    """Let `reader` read the PDUs of an association that has not been started."""
    dul, bell = assoc.dul, Bell()
    checkpoint = Checkpoint(lambda: bool(assoc.dimse.msg_queue.qsize() or dul.to_user_queue.qsize()))
    dul.to_provider_queue = RingingQueue(bell.ring)
    dul.to_user_queue = RingingQueue(checkpoint.ring)
    assoc.dimse.msg_queue = RingingQueue(checkpoint.ring)
    assoc._reactor_checkpoint = checkpoint
    dul.event_queue.get_nowait()  # the socket replaced here has announced the connection, and the new one will
    dul.socket = WaitingSocket(assoc, dul.socket.socket, bell)
    dul.state_machine = EndingMachine(dul)
    dul._run_loop_delay = 0  # it waits for the socket instead
    dul._read_pdu_data = reader.read

    def close() -> None:
        reader.drop()
        bell.close()
        if assoc.requestor.primitive is None:  # its other thread would wait half a minute for a request
            dul.to_user_queue.put(None)

    assoc.bind(evt.EVT_CONN_CLOSE, lambda _: close())
    afterwards(dul, close)
