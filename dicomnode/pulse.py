"""The sign of life of a process of the node, by which others tell that it turns and not only that it exists."""

import logging
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, BooksAway

log = logging.getLogger(__name__)

# Without one of each nothing comes of a study for the moment: what to say of it, and how its role begins.
NEEDED = {
    "no listener": "listen",
    "no sweep": "sweep",
    "no worker computes": "work process",
    "no worker sends": "work deliver",
}


def name() -> str:
    """This process, as its host knows it; not bookkeeping.ACTOR, which forked processes share."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class Pulse:
    """Signs of one process. role: what it was started as."""

    books: Books
    role: str
    _last: datetime | None = field(default=None)

    def beat(self, now: datetime) -> None:
        """Give a sign, unless one was given a moment ago; where the books are away there is nobody to see it."""
        if self._last and now - self._last < bookkeeping.BEAT:
            return
        try:
            bookkeeping.beat(self.books, name(), self.role, now)
            self._last = now
        except BooksAway:
            log.warning("the books took no sign of life; the next one follows")

    def end(self) -> None:
        """This process ends as it should."""
        try:
            bookkeeping.end_pulse(self.books, name())
        except BooksAway:
            log.warning("the books took no leave; this process counts as silent for a day")


def keep(books: Books, role: str, stop: threading.Event) -> None:
    """Give signs in the background until told to stop: those of a process whose own loop is another's."""
    pulse = Pulse(books, role)

    def run() -> None:
        while not stop.is_set():
            pulse.beat(datetime.now(UTC))
            stop.wait(bookkeeping.BEAT.total_seconds())

    threading.Thread(target=run, name="pulse", daemon=True).start()


def lacking(roles: Iterable[str]) -> list[str]:
    """What keeps a study from coming to the PACS as maps, of the roles that live; a worker may serve several queues."""
    living = {part for role in roles for part in _parts(role)}
    return [why for why, needed in NEEDED.items() if not any(part.startswith(needed) for part in living)]


def _parts(role: str) -> list[str]:
    service, _, queues = role.partition(" ")
    return [f"{service} {queue}" for queue in queues.split(",")] if queues else [role]
