"""The audit trail: a chain of messages, each hashed over the one before, so that no one of them can be changed alone.

Whoever may write the books can make the whole chain anew. A hash that was noted elsewhere (`dicomnode audit verify`
prints it) then no longer stands in it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps, loads

from sqlalchemy import Connection, select, update
from sqlalchemy.orm import Session

from dicomnode import audit
from dicomnode.audit import Message
from dicomnode.bookkeeping.store import Books, BooksAway, connection_of, reading, writing
from dicomnode.bookkeeping.tables import Audit, AuditHead, Base

log = logging.getLogger(__name__)

GENESIS = "0" * 64  # the hash before the first message
PAGE = 1000  # rows read at once

_AUDIT, _HEAD = (Base.metadata.tables[table.__tablename__] for table in (Audit, AuditHead))


@dataclass(frozen=True, slots=True)
class Chain:
    """What a walk along the chain found. broken: the first break in words, or empty; head: the hash of the last row."""

    events: int
    head: str
    broken: str = ""


def append(to: Session | Connection, message: Message, at: datetime) -> None:
    """Add a message to the chain, in the transaction of what it tells; the last thing that a transaction does.

    The row of the head is locked until the transaction ends: processes that add at the same time do so in turn.
    """
    connection = connection_of(to)
    previous = connection.scalar(select(_HEAD.c.hash).with_for_update()) or GENESIS
    event = dumps(message, separators=(",", ":"), ensure_ascii=False)
    link = link_hash(previous, at, event)
    connection.execute(_AUDIT.insert(), {"at": at, "event": event, "previous_hash": previous, "hash": link})
    connection.execute(update(_HEAD).values(events=_HEAD.c.events + 1, hash=link))


def link_hash(previous: str, at: datetime, event: str) -> str:
    """sha256 over the canonical JSON of what stands before, when, and what."""
    moment = at.isoformat(timespec="microseconds")
    return sha256(dumps([previous, moment, event], separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def record(books: Books, message: Message, at: datetime) -> None:
    """Add a message to the chain in a transaction of its own."""
    with writing(books) as session:
        append(session, message, at)


def trail(books: Books, since: datetime | None = None) -> Iterator[tuple[datetime, Message]]:
    """The messages from a moment on, in their order."""
    for row in _rows(books):
        if since is None or row.at >= since:
            yield row.at, loads(row.event)


def verify(books: Books, known: str = "") -> Chain:
    """Walk the chain from its beginning. known: a hash noted earlier, which must stand in it."""
    previous, events, seen = GENESIS, 0, not known
    for row in _rows(books):
        if row.previous_hash != previous:
            lost = f"message {row.id} of {row.at:%Y-%m-%d %H:%M:%S} does not follow the one before"
            return Chain(events, previous, f"{lost}: messages in between were removed or changed")
        if row.hash != link_hash(previous, row.at, row.event):
            return Chain(events, previous, f"message {row.id} of {row.at:%Y-%m-%d %H:%M:%S} has been changed")
        previous, events = row.hash, events + 1
        seen = seen or known == previous
    with reading(books) as session:
        head = session.scalar(select(AuditHead))
    if head is None or head.events < events:
        return Chain(events, previous, "the record of where the trail ends is gone, or was set back")
    if (head.events, head.hash) != (events, previous) and not _has_grown(books, previous):
        return Chain(events, previous, f"the end is cut: {head.events} messages were recorded, {events} are there")
    if not seen:
        return Chain(events, previous, "the known hash is not in it: the trail was cut or made anew since it was noted")
    return Chain(events, previous)


def _has_grown(books: Books, last: str) -> bool:
    """True where a message came while we walked."""
    with reading(books) as session:
        return session.scalar(select(Audit.id).where(Audit.previous_hash == last)) is not None


def _rows(books: Books) -> Iterator[Audit]:
    after = 0
    while True:
        with reading(books) as session:
            page = session.scalars(select(Audit).where(Audit.id > after).order_by(Audit.id).limit(PAGE)).all()
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id


@contextmanager
def running(books: Books, service: str) -> Iterator[None]:
    """Tell that a service starts and, unless it is killed, that it stops."""
    record(books, audit.activity(service, audit.START), datetime.now(UTC))
    try:
        yield
    finally:
        try:
            record(books, audit.activity(service, audit.STOP), datetime.now(UTC))
        except BooksAway:
            log.warning("the end of %s is not in the audit trail: the books do not answer", service)
