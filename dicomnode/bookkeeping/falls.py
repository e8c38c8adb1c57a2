"""The books' side of the ladder: what a destination took before, and what goes in place of what it refused."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.bookkeeping.deliveries import was_sending
from dicomnode.bookkeeping.store import Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Delivery, History, Job, Result
from dicomnode.jobs import NO_MAPS, DeliveryState

TAKEN = (DeliveryState.SENT, DeliveryState.CONFIRMED)


def taken(books: Books, destination: str) -> set[str]:
    """The kinds of which the destination took a file, in the newest job that was sent there."""
    there = select(Delivery.id).join(Result, Result.sop_instance_uid == Delivery.result)
    there = there.where(Result.job == Job.id, Delivery.destination == destination, Delivery.state.in_(TAKEN))
    newest = select(Job.id).where(Job.route != NO_MAPS, was_sending(), there.exists()).order_by(Job.created_at.desc())
    of_it = (Result.job == newest.limit(1).scalar_subquery(), Delivery.destination == destination)
    kinds = select(Result.kind).join(Delivery, Delivery.result == Result.sop_instance_uid)
    with reading(books) as session:
        return set(session.scalars(kinds.where(*of_it, Delivery.state.in_(TAKEN)).distinct()))


def replaced(books: Books, job: Job, destinations: Sequence[str]) -> Sequence[Result]:
    """What these destinations took of the revision that a job supersedes, and of a page that said there are no maps."""
    earlier = select(Job.id).where(Job.study == job.study, (Job.id == job.supersedes) | (Job.route == NO_MAPS))
    there = (Delivery.result == Result.sop_instance_uid, Delivery.destination.in_(destinations))
    held = select(Delivery.id).where(*there, Delivery.state.in_(TAKEN)).exists()
    with reading(books) as session:
        sent = select(Result).where(Result.job.in_(earlier), Result.kind != "note", held)
        return session.scalars(sent.order_by(Result.sop_instance_uid)).all()


def fall(books: Books, job_id: str, destination: str, ladder: Mapping[str, Sequence[str]], now: datetime) -> bool:
    """Put the next step of the ladder in place of each kind refused; True where that left something to send.

    A step that was not made for the job is passed over. Each fall is told in the history once.
    """
    there = (Result.job == job_id, Delivery.destination == destination, Delivery.state == DeliveryState.REFUSED)
    refused = (
        select(Result.kind, func.max(Delivery.rung), func.max(Delivery.status))
        .join(Delivery, Delivery.result == Result.sop_instance_uid)
        .where(*there)
        .group_by(Result.kind)
    )
    added = 0
    with writing(books) as session:
        for kind, rung, status in session.execute(refused).all():
            made = ((step, _files(session, job_id, step)) for step in ladder.get(kind, ()))
            step, files = next(((step, files) for step, files in made if files), ("nothing", []))
            after = f"{kind} -> {step} at {destination}"
            told = select(History.id).where(History.subject_id == job_id, History.after == after)
            if kind not in ladder or session.scalar(told.limit(1)):
                continue
            new = sum(_deliver(session, file, destination, rung + 1, now) for file in files)
            there_already = f", of which {new} were not to be sent there before" if new != len(files) else ""
            note(session, "job", job_id, now, None, after, f"{len(files)} files stand in{there_already}: {status}")
            added += new
    return added > 0


def _files(session: Session, job_id: str, kind: str) -> list[str]:
    return list(session.scalars(select(Result.sop_instance_uid).where(Result.job == job_id, Result.kind == kind)))


def _deliver(session: Session, result: str, destination: str, rung: int, now: datetime) -> bool:
    fresh = {"state": DeliveryState.PENDING, "rung": rung, "attempts": 0, "next_at": now}
    return add(session, Delivery, Delivery.id, result=result, destination=destination, **fresh) is not None
