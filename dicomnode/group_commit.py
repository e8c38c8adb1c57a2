"""Instances that arrive together share one directory fsync and one transaction (design contract 5)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, Peer, Received
from dicomnode.spool import Spool

REMEMBERED = 10_000  # associations and series, about 150 bytes each


@dataclass(slots=True)
class Entry:
    """One instance whose file is durable and whose row is wanted, and what became of that."""

    received: Received
    peer: Peer
    now: datetime
    done: bool = False
    known_as: str | None = None
    error: Exception | None = None


@dataclass(slots=True)
class GroupCommit:
    """Makes rows durable, as many at once as there are.

    Nobody waits for company: whoever comes while a commit is going on joins the next one, so that the longest wait is
    the one commit that has begun, and a lone sender waits for nothing.
    """

    books: Books
    spool: Spool
    _met: set[str] = field(default_factory=set)
    _waiting: list[Entry] = field(default_factory=list)
    _door: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def record(self, received: Received, peer: Peer, now: datetime) -> str | None:
        """Record one instance whose file lies in in/; returns when it is durable.

        None, or the path under which these very bytes are kept already. Raises OSError where the name cannot be made
        durable, bookkeeping.BooksAway where there is no row, bookkeeping.CommitInDoubt where nobody can tell.
        """
        mine = Entry(received, peer, now)
        with self._door:
            self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                with bookkeeping.turn(self.books):
                    with self._door:
                        group, self._waiting = self._waiting, []
                    self._commit(group)
        if mine.error:
            raise mine.error
        return mine.known_as

    def _commit(self, group: Sequence[Entry]) -> None:
        try:
            self.spool.settle_in()
            known = bookkeeping.note_instances(self.books, [(e.received, e.peer, e.now) for e in group], self._met)
        except bookkeeping.BooksAway as error:
            self._met.clear()  # they may be others when they come back, from a backup
            if len(group) > 1:
                for entry in group:  # one that the books cannot take must not cost the others theirs
                    self._commit([entry])
                return
            _fail(group, error)
        except Exception as error:  # an edge: whatever it is, it belongs to those who wait and not to who commits
            _fail(group, error)
        else:
            if len(self._met) > REMEMBERED:
                self._met.clear()
            self._met.update(*(bookkeeping.surroundings(e.received, e.peer) for e in group))
            for entry, path in zip(group, known, strict=True):
                entry.known_as, entry.done = path, True


def _fail(group: Sequence[Entry], error: Exception) -> None:
    for entry in group:
        entry.error, entry.done = error, True
