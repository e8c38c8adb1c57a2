"""What becomes of the moments in the books when the clock is set. History and what was received stay as they were."""

from datetime import datetime, timedelta

from sqlalchemy import DateTime, text, update

from dicomnode.bookkeeping.jobs import LEASE
from dicomnode.bookkeeping.store import Books, reading, writing
from dicomnode.bookkeeping.tables import Absence, Association, Commitment, Delivery, Job, Rendering, Series
from dicomnode.jobs import SeriesState

FARTHEST = timedelta(minutes=2)  # nothing that waits is put off for longer, but a second question about commitment
APART = timedelta(seconds=5)  # what clocks of hosts that share the books may differ


def set_back(books: Books, now: datetime) -> None:
    """What lies farther ahead than anything can was written before the clock was set back: its wait is over."""
    beyond, ahead = now + FARTHEST, now + APART
    with writing(books) as session:
        for moment in (Job.enqueued_at, Delivery.next_at, Absence.until, Commitment.next_at, Rendering.offered_at):
            session.execute(update(moment.class_).where(moment > beyond).values({moment.key: now}))
        session.execute(update(Job).where(Job.lease_until > now + LEASE).values(lease_until=now + LEASE))
        session.execute(update(Series).where(Series.last_received_at > ahead).values(last_received_at=now))
        session.execute(update(Association).where(Association.released_at > ahead).values(released_at=now))


def set_forward(books: Books, now: datetime) -> None:
    """Every lease begins anew, so that a worker at work can show that it lives; every series is quiet from now on."""
    with writing(books) as session:
        session.execute(update(Job).where(Job.lease_until.is_not(None)).values(lease_until=now + LEASE))
        receiving = update(Series).where(Series.state == SeriesState.RECEIVING)
        session.execute(receiving.values(last_received_at=now))


def database_clock(books: Books) -> datetime | None:
    """What the database server's clock says; None of SQLite, which has none but ours."""
    with reading(books) as session:
        if session.get_bind().dialect.name != "postgresql":
            return None
        now: datetime = session.scalars(text("SELECT clock_timestamp()").columns(now=DateTime(timezone=True))).one()
        return now
