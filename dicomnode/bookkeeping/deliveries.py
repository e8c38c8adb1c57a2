"""The books' sending side: which result is due where, and what each destination answered."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update

from dicomnode.bookkeeping.store import Books, note, reading, writing
from dicomnode.bookkeeping.tables import Delivery, Job, Result
from dicomnode.jobs import DeliveryState, State

OPEN = (DeliveryState.PENDING, DeliveryState.SENT)
OFFERED = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Due:
    """One finished file to send now."""

    delivery: int
    path: str
    sop_class: str
    sop_instance_uid: str
    series_instance_uid: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one file at a destination: the new state, the status in words, and when to try again."""

    delivery: int
    state: DeliveryState
    status: str
    next_at: datetime
    confirmed_by: str | None = None


def due(books: Books, job_id: str, destination: str, now: datetime) -> list[Due]:
    """The pending files of a job for one destination, secondary captures first."""
    with reading(books) as session:
        rows = session.execute(
            select(Delivery, Result)
            .join(Result, Result.sop_instance_uid == Delivery.result)
            .where(
                Result.job == job_id,
                Delivery.destination == destination,
                Delivery.state == DeliveryState.PENDING,
                Delivery.next_at <= now,
            )
            .order_by(Result.kind.desc(), Delivery.id)
        ).all()
        return [Due(d.id, r.path, r.sop_class, r.sop_instance_uid, r.series_instance_uid, d.attempts) for d, r in rows]


def note_answers(books: Books, job_id: str, destination: str, answers: Sequence[Answer], now: datetime) -> None:
    """Record what the destination answered; a line of history for each outcome that is new, with its count."""
    news: Counter[tuple[DeliveryState, str]] = Counter()
    with writing(books) as session:
        for answer in answers:
            delivery = session.get_one(Delivery, answer.delivery)
            if (delivery.state, delivery.status) != (answer.state, answer.status):
                news[answer.state, answer.status] += 1
            delivery.state, delivery.status = answer.state, answer.status
            delivery.next_at, delivery.confirmed_by = answer.next_at, answer.confirmed_by
            delivery.attempts += 1
        for (state, status), count in news.items():
            note(session, "job", job_id, now, None, f"{count} files {state} at {destination}", status)


def outcome(books: Books, job_id: str, required: Iterable[str]) -> tuple[State, str] | None:
    """DONE, FAILED or, while a required file is still on its way, None.

    A destination may refuse quantitative objects, never the secondary captures: a picture series with holes misleads.
    """
    names = set(required)
    counts = {key: n for key, n in _counts(books, job_id).items() if key[0] in names}
    if any(state in OPEN for _, _, state in counts):
        return None
    words = ", ".join(f"{counts[key]} {key[1]} {key[2]} at {key[0]}" for key in sorted(counts))
    lost = [
        key for key in counts if key[2] == DeliveryState.DEAD or (key[1] == "sc" and key[2] == DeliveryState.REFUSED)
    ]
    empty = names - {name for name, _, state in counts if state == DeliveryState.CONFIRMED}
    if lost or empty:
        nothing = f"; nothing is stored at {', '.join(sorted(empty))}" if empty else ""
        return State.FAILED, f"not delivered: {words or 'no files'}{nothing}; see `dicomnode explain {job_id}`"
    return State.DONE, words or "no destination is required; the results stay on the node"


def _counts(books: Books, job_id: str) -> dict[tuple[str, str, DeliveryState], int]:
    with reading(books) as session:
        rows = session.execute(
            select(Delivery.destination, Result.kind, Delivery.state, func.count())
            .join(Result, Result.sop_instance_uid == Delivery.result)
            .where(Result.job == job_id)
            .group_by(Delivery.destination, Result.kind, Delivery.state)
        )
        return {(destination, kind, state): n for destination, kind, state, n in rows}


def to_send(books: Books, destinations: Iterable[str], now: datetime, most: int = 8) -> list[str]:
    """Jobs that a sender should look at, the longest waiting first; each is offered every two seconds at most.

    In SENDING: something is due, or nothing is open any more. In DONE: something is due at an optional destination.
    """
    mine = select(Delivery.id).join(Result, Result.sop_instance_uid == Delivery.result).where(Result.job == Job.id)
    pending = mine.where(Delivery.state == DeliveryState.PENDING, Delivery.destination.in_(list(destinations)))
    due = pending.where(Delivery.next_at <= now).exists()
    waits = or_(
        (Job.state == State.SENDING) & (due | ~pending.exists()),
        (Job.state == State.DONE) & due,
    )
    free = or_(Job.lease_until.is_(None), Job.lease_until < now)
    oldest = select(Job.id).where(waits, free, Job.enqueued_at < now - OFFERED).order_by(Job.enqueued_at).limit(most)
    with writing(books) as session:
        offered = update(Job).where(Job.id.in_(oldest)).values(enqueued_at=now)
        return list(session.scalars(offered.returning(Job.id)))
