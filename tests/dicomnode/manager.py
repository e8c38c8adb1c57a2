"""A service manager that only listens: what a service told it, and whether it has fallen silent."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode import notify
from tests.walks.node import wait_for


class Manager:
    """WATCHDOG_USEC is what the unit would say, `seconds` of it."""

    def __init__(self, address: str, seconds: float) -> None:
        self.heard: list[str] = []
        self.fresh = seconds / 2
        self.environment = {notify.SOCKET: address, notify.WATCHDOG: str(int(seconds * 1e6))}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while words := self._socket.recv(4096):
            self.heard += words.decode().splitlines()

    def hears(self, word: str, more: int = 1) -> None:
        """Wait for so many more messages of a kind."""
        wanted = self.heard.count(word) + more
        wait_for(lambda: self.heard.count(word) >= wanted, f"{more} x {word}")

    def heard_first(self, word: str) -> None:
        wait_for(lambda: self.heard, word)
        assert self.heard[0] == word

    def hears_at_last(self, word: str) -> None:
        wait_for(lambda: self.heard[-1:] == [word], word)

    def hears_nothing(self, after: float = 0.0) -> None:
        """Nothing more comes once the last progress is too old, or after so many seconds."""
        time.sleep(after or self.fresh * 1.25)
        before = len(self.heard)
        time.sleep(self.fresh)
        assert self.heard[before:] == []


@contextmanager
def manager(folder: Path, seconds: float = 4.0) -> Iterator[Manager]:
    yield Manager(str(folder / "notify"), seconds)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
