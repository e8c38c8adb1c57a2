"""What scanners ask us to commit to (PS3.4 Annex J), until they know the answer."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, update

from dicomnode.bookkeeping.store import Books, add, reading, writing
from dicomnode.bookkeeping.tables import Commitment, Instance

BUSY = timedelta(seconds=60)  # for so long whoever has taken a request is answering it

Reference = tuple[str, str]  # SOP Class UID, SOP Instance UID


def note_request(
    books: Books, transaction_uid: str, peer: tuple[str, str], references: Iterable[Reference], now: datetime
) -> Commitment:
    """Record a request before it is answered; asked again under the same transaction, it is answered again.

    peer: AE title and address of who asks.
    """
    instances = "\n".join(f"{sop_class} {sop_instance_uid}" for sop_class, sop_instance_uid in references)
    asked = {"address": peer[1], "instances": instances, "asked_at": now, "next_at": now + BUSY, "attempts": 1}
    names = {"transaction_uid": transaction_uid, "calling_ae_title": peer[0]}
    with writing(books) as session:
        add(session, Commitment, Commitment.id, **names, **asked)
        mine = select(Commitment).filter_by(**names).with_for_update()
        row = session.scalars(mine).one()
        for key, value in asked.items():
            setattr(row, key, value)
        row.answered_at = row.answer = None
        session.flush()
        return row


def take_requests(books: Books, now: datetime, most: int = 8) -> Sequence[Commitment]:
    """Requests that wait for their answer, taken for a minute so that nobody else answers them too."""
    waits = (Commitment.answered_at.is_(None), Commitment.next_at <= now)
    oldest = select(Commitment.id).where(*waits).order_by(Commitment.next_at).limit(most)
    values = {"next_at": now + BUSY, "attempts": Commitment.attempts + 1}
    with writing(books) as session:
        return session.scalars(
            update(Commitment).where(Commitment.id.in_(oldest), *waits).values(values).returning(Commitment)
        ).all()


def note_answer(books: Books, request: int, answer: str, now: datetime, again_at: datetime | None = None) -> None:
    """What became of an answer; again_at: when to try once more where it did not arrive."""
    with writing(books) as session:
        row = session.get_one(Commitment, request)
        row.answer = answer
        if again_at is None:
            row.answered_at = now
        else:
            row.next_at = again_at


def recorded(books: Books, sop_instance_uids: Sequence[str]) -> set[tuple[str, str, str]]:
    """(SOP Instance UID, SOP Class UID, path) of each of these instances that is durable and recorded."""
    found = set[tuple[str, str, str]]()
    with reading(books) as session:
        for start in range(0, len(sop_instance_uids), 500):  # a statement takes so many values and not many more
            some = Instance.sop_instance_uid.in_(sop_instance_uids[start : start + 500]) & Instance.purged_at.is_(None)
            rows = session.execute(select(Instance.sop_instance_uid, Instance.sop_class_uid, Instance.path).where(some))
            found.update((uid, sop_class, path) for uid, sop_class, path in rows)
    return found


def unanswered(books: Books) -> list[tuple[str, int, datetime]]:
    """AE title of who waits for answers, how many, and since when."""
    with reading(books) as session:
        rows = session.execute(
            select(Commitment.calling_ae_title, func.count(), func.min(Commitment.asked_at))
            .where(Commitment.answered_at.is_(None))
            .group_by(Commitment.calling_ae_title)
        )
        return [(ae_title, count, since) for ae_title, count, since in rows]
