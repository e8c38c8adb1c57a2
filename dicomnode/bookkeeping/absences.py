"""Destinations that do not answer: one row for each, seen by every worker, so that nobody waits for them in turn."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from dicomnode.bookkeeping.store import Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Absence


def absences(books: Books) -> Sequence[Absence]:
    """The destinations that did not answer when they were last tried."""
    with reading(books) as session:
        return session.scalars(select(Absence).order_by(Absence.destination)).all()


def absence(books: Books, destination: str) -> Absence | None:
    """The absence of this destination, if it was not there when last tried."""
    with reading(books) as session:
        return session.get(Absence, destination)


def note_away(books: Books, destination: str, why: str, delay: Callable[[int], timedelta], now: datetime) -> datetime:
    """A destination did not answer; returns when it may be tried again.

    delay: attempts so far -> how long to wait. Workers that fail at the same time count as one attempt.
    """
    with writing(books) as session:
        values = {"destination": destination, "since": now, "until": now, "attempts": 0, "why": why}
        if add(session, Absence, Absence.destination, **values):
            note(session, "destination", destination, now, None, "AWAY", why)
        row = session.get_one(Absence, destination, with_for_update=True)
        if row.until <= now:
            row.until, row.attempts, row.why = now + delay(row.attempts), row.attempts + 1, why
        return row.until


def note_back(books: Books, destination: str, now: datetime) -> None:
    """A destination answered again."""
    with writing(books) as session:
        since = session.scalar(delete(Absence).where(Absence.destination == destination).returning(Absence.since))
        if since is not None:
            away = f"answers again after {(now - since).total_seconds():.0f} s"
            note(session, "destination", destination, now, "AWAY", "BACK", away)
