"""The books' side of alerts: what is wrong, what was said of it, what is still to be sent. Restarts know all three."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from dicomnode.bookkeeping.store import Books, add, reading, writing
from dicomnode.bookkeeping.tables import Alert, Notice

KEEP = timedelta(days=7)  # what has ended and was told is forgotten then
IN_FLIGHT = timedelta(minutes=2)  # while a notice is being sent nobody else takes it


@dataclass(frozen=True, slots=True)
class Limits:
    """How often something is said. apart: of one kind; remind: of what has not ended yet."""

    apart: timedelta
    remind: timedelta


Compose = Callable[[Sequence[tuple[str, str]], Sequence[tuple[str, str]], int], str]


def note_alerts(
    books: Books,
    found: Collection[tuple[str, str]],
    limits: Limits,
    channels: Sequence[str],
    compose: Compose,
    now: datetime,
) -> bool:
    """Note what is wrong now, as (kind, subject), and put what is to be said about it on its way; True where it was.

    compose: what begins to be told, what has ended, and how many are open -> the body of a message.
    """
    with writing(books) as session:
        for kind, subject in found:
            add(session, Alert, Alert.kind, kind=kind, subject=subject, since=now)
        rows = session.scalars(select(Alert).order_by(Alert.kind, Alert.subject)).all()
        for row in rows:
            there = (row.kind, row.subject) in found
            if there and row.ended_at:
                row.since, row.ended_at = now, None
            elif not there and row.ended_at is None:
                row.ended_at = now
        begun = [row for row in rows if _to_tell(row, rows, limits, now)]
        ended = [row for row in rows if _end_to_tell(row, rows, limits, now)]
        for row in begun:
            row.told_at = now
        for row in ended:
            row.end_told_at = now
        if begun or ended:
            still_open = sum(row.ended_at is None for row in rows)
            body = compose([(r.kind, r.subject) for r in begun], [(r.kind, r.subject) for r in ended], still_open)
            for channel in channels:
                session.add(Notice(channel=channel, body=body, made_at=now, next_at=now, attempts=0))
        session.flush()
        session.execute(delete(Alert).where(Alert.ended_at < now - KEEP))
        return bool(begun or ended)


def _to_tell(row: Alert, rows: Sequence[Alert], limits: Limits, now: datetime) -> bool:
    if row.ended_at or (row.told_at and row.told_at >= row.since and now - row.told_at < limits.remind):
        return False
    last = max((r.told_at for r in rows if r.kind == row.kind and r.told_at), default=None)
    return last is None or now - last >= limits.apart


def _end_to_tell(row: Alert, rows: Sequence[Alert], limits: Limits, now: datetime) -> bool:
    """Only of what was told, and once."""
    if row.ended_at is None or row.told_at is None or row.told_at < row.since:
        return False
    if row.end_told_at and row.end_told_at >= row.ended_at:
        return False
    last = max((r.end_told_at for r in rows if r.kind == row.kind and r.end_told_at), default=None)
    return last is None or now - last >= limits.apart


def take_notice(books: Books, channel: str, now: datetime) -> Notice | None:
    """The oldest notice that is due in this channel; it is due again after a while unless its end is noted."""
    with writing(books) as session:
        due = select(Notice.id).where(Notice.channel == channel, Notice.next_at <= now).order_by(Notice.id).limit(1)
        taken = update(Notice).where(Notice.id == due.scalar_subquery(), Notice.next_at <= now)
        attempts = Notice.attempts + 1
        return session.scalar(taken.values(next_at=now + IN_FLIGHT, attempts=attempts).returning(Notice))


def end_notice(books: Books, notice_id: int) -> None:
    """It was taken, or nobody will take it any more."""
    with writing(books) as session:
        session.execute(delete(Notice).where(Notice.id == notice_id))


def put_off_notice(books: Books, notice_id: int, until: datetime) -> None:
    """It was not taken."""
    with writing(books) as session:
        session.execute(update(Notice).where(Notice.id == notice_id).values(next_at=until))


def open_alerts(books: Books) -> Sequence[Alert]:
    """What has not ended yet, the oldest first."""
    with reading(books) as session:
        return session.scalars(select(Alert).where(Alert.ended_at.is_(None)).order_by(Alert.since)).all()
