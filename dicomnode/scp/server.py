"""The listening end: one socket that several receiver processes may share."""

import mmap
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from socketserver import BaseServer
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicomnode.scp.door import Door
from dicomnode.scp.hooks import afterwards

IDLE = "Sta1"  # PS3.8 Table 9-1: no association
GRACE = 2.0  # seconds to tell all peers that we abort
BACKLOG = 128  # connections that may wait to be accepted
COURTESY = 0.005  # seconds in which a receiver with fewer associations takes a connection, if it lives
COUNT = struct.Struct("q")


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OSError where the port cannot be had. Forked processes may share it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)  # of several processes that are woken by one connection, one gets it
    except BaseException:
        listening.close()
        raise
    return listening


class Contexts(list[Any]):
    """Supported contexts that associations share.

    pynetdicom copies them deeply for each association, which takes 25 ms of a core, and changes none of them.
    """

    def __deepcopy__(self, _: object) -> "Contexts":
        return Contexts(self)


class Shares:
    """How many associations each of several receivers on one socket has open, in memory that they share."""

    def __init__(self, receivers: int = 1) -> None:
        self._counts = [mmap.mmap(-1, mmap.PAGESIZE) for _ in range(receivers)]

    def of(self, receiver: int) -> "Share":
        """The share of a receiver that starts, and so has none."""
        return Share(self._counts, receiver)


class Share:
    """The associations of one receiver beside those of the others."""

    def __init__(self, counts: Sequence[mmap.mmap], receiver: int) -> None:
        self._counts, self._mine = counts, counts[receiver]
        self._lock = threading.Lock()
        COUNT.pack_into(self._mine, 0, 0)

    def add(self, associations: int) -> None:
        """So many more, or fewer."""
        with self._lock:
            COUNT.pack_into(self._mine, 0, COUNT.unpack_from(self._mine)[0] + associations)

    def is_larger(self) -> bool:
        """True where another receiver has less to do."""
        return COUNT.unpack_from(self._mine) > min(COUNT.unpack_from(count) for count in self._counts)


class Server(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server over a socket that listens already.

    install: called with each association before it starts. turned: called in every turn of the accepting loop.
    share: of the associations on this socket; who has more lets the others accept first.
    door: may refuse a connection before anything is read of it; on_refused: called then, with the address and why.
    """

    def __init__(
        self,
        *arguments: Any,
        listening: socket.socket,
        install: Callable[[Association], None],
        turned: Callable[[], None],
        share: Share,
        door: Door,
        on_refused: Callable[[str, str], None],
        **others: Any,
    ) -> None:
        self._listening = listening
        self.install = install
        self._turned, self.share = turned, share
        self.door, self._on_refused = door, on_refused
        super().__init__(*arguments, request_handler=Handler, **others)
        self.contexts: list[Any] = Contexts(self.contexts)

    def server_bind(self) -> None:
        """Take the listening socket in place of the one just made."""
        self.socket.close()
        self.socket: Any = self._listening.dup()
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """It listens already."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a TLS handshake comes with the first read, in the association's own thread."""
        if self.share.is_larger():
            time.sleep(COURTESY)
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.ae.network_timeout)
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def service_actions(self) -> None:
        """The accepting loop has turned; it does so twice a second where nobody connects."""
        super().service_actions()
        self._turned()

    def verify_request(self, request: object, client_address: Any) -> bool:
        """False closes the connection at once."""
        why = self.door.refuses(*client_address[:2])
        if why:
            self._on_refused(client_address[0], why)
        return not why

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that failed while it was set up is not our failure."""

    def server_close(self) -> None:
        """Close our copy; other processes go on listening."""
        self.socket.close()

    def shutdown(self) -> None:
        """Accept no more, and abort what is open."""
        BaseServer.shutdown(self)
        self.server_close()
        ending = self.active_associations
        for assoc in ending:
            assoc.abort(block=False)
        deadline = time.monotonic() + GRACE
        for assoc in ending:
            # Killed before its other thread has sent the A-ABORT, the peer would only see the connection closed.
            while assoc.dul.state_machine.current_state != IDLE and time.monotonic() < deadline:
                time.sleep(0.01)
            assoc.kill()


class Handler(RequestHandler):  # type: ignore[misc]
    """Makes the association of an accepted connection."""

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        self.server.door.became(*self.client_address[:2], assoc)
        share = self.server.share
        share.add(1)
        afterwards(assoc, lambda: share.add(-1))
        self.server.install(assoc)
        return assoc
