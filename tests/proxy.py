"""A connection in the middle that a test can cut, or leave open and silent: a server that stopped, or hangs."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dicomnode.demo import free_port


@dataclass
class Proxy:
    """Passes bytes on to a server on this machine."""

    server: int
    port: int = field(default_factory=free_port)
    _listening: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _hangs: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        self.restore()
        try:
            yield self
        finally:
            self.cut()

    def cut(self) -> None:
        """The server has stopped: connections break, and new ones are refused."""
        if self._listening:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()
        self._hangs.clear()

    def hang(self) -> None:
        """The server takes connections and bytes, and answers nothing."""
        self._hangs.set()

    def restore(self) -> None:
        """The server is there (again)."""
        self._hangs.clear()
        if self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self.server))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if not self._hangs.is_set():
                    sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
