"""What systemd is told and what it hands over: sd_notify(3), sd_listen_fds(3), credentials of systemd.exec(5).

Without a service manager all of this is silent.
"""

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

SOCKET, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
LISTEN_PID, LISTEN_FDS, FIRST_DESCRIPTOR = "LISTEN_PID", "LISTEN_FDS", 3
CREDENTIALS = "CREDENTIALS_DIRECTORY"
ALIVE_FILE = "DICOMNODE_ALIVE"  # a file to touch, for a container whose health check looks at it
READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
FRESH = 30.0  # seconds; where nobody watches


def tell(words: str) -> None:
    """Send one message; a service manager that has gone is not our failure."""
    address = os.environ.get(SOCKET, "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
        try:
            to.sendto(words.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            return


def fresh() -> float:
    """How old the last progress may be (seconds): half of what the unit allows between two signs of life."""
    given = os.environ.get(WATCHDOG, "")
    return int(given) / 2e6 if given.isdecimal() else FRESH


@dataclass(slots=True)
class Pulse:
    """Says READY=1 with the first sign of progress, and WATCHDOG=1 with each one, but not more often than needed."""

    last: float = float("-inf")
    interval: float = field(default_factory=lambda: fresh() / 4)

    def beat(self) -> None:
        """Something has been achieved."""
        now = time.monotonic()
        if self.last == float("-inf"):
            tell(READY)
        if now - self.last >= self.interval:
            tell(ALIVE)
            if path := os.environ.get(ALIVE_FILE):
                Path(path).touch()
            self.last = now


def inherited_socket() -> socket.socket | None:
    """The listening socket of a socket unit; None where the service has to make its own. Raises OSError for no socket.

    It is taken once: processes that we start do not think that it is theirs.
    """
    pid, count = os.environ.pop(LISTEN_PID, ""), os.environ.pop(LISTEN_FDS, "")
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) < 1:
        return None
    listening = socket.socket(fileno=FIRST_DESCRIPTOR)
    listening.setblocking(False)  # as scp.server.listening_socket
    os.set_inheritable(FIRST_DESCRIPTOR, False)
    return listening


def secret(name: str) -> str | None:
    """The value of the environment variable, else of the credential of that name; None where there is neither."""
    if value := os.environ.get(name):
        return value
    try:
        return (Path(os.environ[CREDENTIALS]) / name).read_text(encoding="utf-8").strip() or None
    except (KeyError, FileNotFoundError, NotADirectoryError):
        return None
