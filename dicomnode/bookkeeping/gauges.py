"""What is measured of the books; each question reads little, however many instances there are."""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select

from dicomnode.bookkeeping.figures import MOST_OPEN, WAITING
from dicomnode.bookkeeping.store import Books, reading
from dicomnode.bookkeeping.tables import Association, Delivery, Instance, Job
from dicomnode.jobs import DeliveryState, Lane, State

COUNTED = (DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.REFUSED, DeliveryState.DEAD)
LATE = 10_000  # ids; so far behind the newest one a transaction still under way may add a row


@dataclass(slots=True)
class Tally:
    """Counts instances without counting each of them again: all once, later only the newest."""

    _settled: int = 0
    _mark: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, books: Books) -> int:
        """How many instances there have been; what is purged meanwhile stays counted until the process ends."""
        rows = select(func.count()).select_from(Instance)
        with self._lock, reading(books) as session:
            newest = session.scalar(select(func.max(Instance.id))) or 0
            mark = max(self._mark, newest - LATE)
            between = rows.where(Instance.id > self._mark, Instance.id <= mark)
            self._settled += session.scalar(between) or 0
            self._mark = mark
            return self._settled + (session.scalar(rows.where(Instance.id > mark)) or 0)


def open_associations(books: Books) -> int:
    """Associations that bring instances at this moment."""
    with reading(books) as session:
        rows = select(func.count()).select_from(Association).where(Association.released_at.is_(None))
        return session.scalar(rows) or 0


def jobs_by_state(books: Books) -> list[tuple[Lane, State, int]]:
    """How many jobs of each lane are in each state."""
    with reading(books) as session:
        counted = select(Job.lane, Job.state, func.count()).group_by(Job.lane, Job.state)
        return [(lane, state, n) for lane, state, n in session.execute(counted)]


def oldest_waiting(books: Books) -> dict[Lane, tuple[str, datetime]]:
    """Of each lane in which jobs wait, are computed or sent: the first of them, and since when it is open."""
    found: dict[Lane, tuple[str, datetime]] = {}
    with reading(books) as session:
        for lane in Lane:
            first = select(Job.id, Job.created_at).where(Job.state.in_(WAITING), Job.lane == lane)
            if row := session.execute(first.order_by(Job.id).limit(1)).first():
                found[lane] = row[0], row[1]
    return found


def deliveries_by_state(books: Books) -> list[tuple[str, DeliveryState, int]]:
    """How many files for each destination are on their way or have come to nothing; counting ends at MOST_OPEN each."""
    found = []
    with reading(books) as session:
        for state in COUNTED:
            there = select(Delivery.destination).where(Delivery.state == state).limit(MOST_OPEN).subquery()
            rows = session.execute(select(there.c.destination, func.count()).group_by(there.c.destination))
            found += [(destination, state, n) for destination, n in rows]
    return found


def failed_jobs(books: Books, most: int) -> list[tuple[str, str]]:
    """Jobs that failed and that nobody has dealt with, the oldest first: id and reason code."""
    failed = select(Job.id, Job.reason_code).where(Job.state == State.FAILED, Job.dismissed_at.is_(None))
    with reading(books) as session:
        return [(job, code or "") for job, code in session.execute(failed.order_by(Job.id).limit(most))]
