"""Signs of life: each process of the node says every few seconds that it still turns."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from dicomnode.bookkeeping.store import Books, add, reading, writing
from dicomnode.bookkeeping.tables import Pulse

BEAT, FRESH = timedelta(seconds=10), timedelta(seconds=35)
FORGET = timedelta(days=1)


def beat(books: Books, process: str, role: str, now: datetime) -> None:
    """This process lives, as what it was started; those silent for a day are forgotten."""
    with writing(books) as session:
        new = add(session, Pulse, Pulse.process, process=process, role=role, started_at=now, seen_at=now)
        if new is None:
            session.execute(update(Pulse).where(Pulse.process == process).values(seen_at=now, role=role))
        else:
            session.execute(delete(Pulse).where(Pulse.seen_at < now - FORGET))


def end_pulse(books: Books, process: str) -> None:
    """This process ends as it should, so that nobody misses it."""
    with writing(books) as session:
        session.execute(delete(Pulse).where(Pulse.process == process))


def pulses(books: Books) -> Sequence[Pulse]:
    """Every process that has given a sign within a day, by role."""
    with reading(books) as session:
        return session.scalars(select(Pulse).order_by(Pulse.role, Pulse.process)).all()


def alive(books: Books, now: datetime) -> dict[str, int]:
    """How many processes of each role gave a sign a moment ago; 0 for roles that have fallen silent."""
    found: dict[str, int] = {}
    for pulse in pulses(books):
        found[pulse.role] = found.get(pulse.role, 0) + (now - pulse.seen_at <= FRESH)
    return found
