"""Captures at another ratio that people ask for: who asked for what, and whether they are written."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from ulid import ULID

from dicomnode.bookkeeping.deliveries import is_free, renew, tell_of_act, was_sending
from dicomnode.bookkeeping.jobs import ATTEMPTS, UNCLAIMED
from dicomnode.bookkeeping.selftests import of_patients
from dicomnode.bookkeeping.store import ACTOR, Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Instance, Job, JobInput, Rendering, Result
from dicomnode.jobs import Lane

EXPLORATORY = "pilo"  # kind of their results


def ask_for_ratio(
    books: Books, job_id: str, percent: int, destinations: Sequence[str], now: datetime, actor: str
) -> bool:
    """Somebody wants the maps of a job at a ratio, in percent, at these destinations.

    What is written already goes out again, the same objects. False where its files, or those it was made from, are not
    there (any more), or where a self-test made it.
    """
    with writing(books) as session:
        finished = select(Job.id).where(
            Job.id == job_id, was_sending(), Job.purged_at.is_(None), of_patients(Job.study)
        )
        finished = finished.with_for_update(of=Job)  # a purge waits, or was before us
        inputs = select(Instance.id).join(JobInput, JobInput.instance == Instance.id).where(JobInput.job == job_id)
        gone = session.scalar(inputs.where(Instance.purged_at.is_not(None)).limit(1))
        if not destinations or gone or session.scalar(finished) is None:
            return False
        values = {"id": str(ULID.from_datetime(now)), "asked_at": now, "attempts": 0, "offered_at": now - 2 * UNCLAIMED}
        new = add(session, Rendering, Rendering.id, job=job_id, percent=percent, **values)
        if new is None:
            written = select(Rendering.id).where(_at(job_id, percent), Rendering.done_at.is_not(None)).exists()
            mine = (Result.job == job_id, Result.kind == EXPLORATORY, Result.map.endswith(f"-r{percent:03d}"))
            for uid in session.scalars(select(Result.sop_instance_uid).where(*mine, written)).all():
                for destination in destinations:
                    renew(session, uid, destination, now)
        note(session, "job", job_id, now, None, _said(percent, "ASKED FOR"), f"for {', '.join(destinations)}", actor)
        tell_of_act(session, job_id, _said(percent, "asked for"), actor, now)
        return True


def unrendered(books: Books, now: datetime, most: int = 2) -> list[tuple[str, Lane]]:
    """Jobs that nobody holds and of which captures are to be written; each is offered every few seconds."""
    with writing(books) as session:
        waits = (Rendering.done_at.is_(None), Rendering.offered_at < now - UNCLAIMED)
        free = select(Rendering.id).join(Job).where(*waits, is_free(now)).order_by(Rendering.id).limit(most)
        offered = update(Rendering).where(Rendering.id.in_(free)).values(offered_at=now).returning(Rendering.job)
        jobs = set(session.scalars(offered))
        return [(job, lane) for job, lane in session.execute(select(Job.id, Job.lane).where(Job.id.in_(jobs)))]


def take_renderings(books: Books, job_id: str, now: datetime) -> list[Rendering]:
    """What is to be written for a job, by who holds its lease; what has failed too often is given up."""
    with writing(books) as session:
        mine = (Rendering.job == job_id, Rendering.done_at.is_(None))
        spent = delete(Rendering).where(*mine, Rendering.attempts >= ATTEMPTS).returning(Rendering.percent)
        for percent in session.scalars(spent).all():
            note(session, "job", job_id, now, None, _said(percent, "GIVEN UP"), f"after {ATTEMPTS} attempts")
        taken = update(Rendering).where(*mine).values(attempts=Rendering.attempts + 1, offered_at=now)
        return sorted(session.scalars(taken.returning(Rendering)), key=lambda each: each.id)


def note_rendered(books: Books, asked: Rendering, why: str, now: datetime) -> None:
    """They are written, and on their way."""
    with writing(books) as session:
        session.execute(update(Rendering).where(Rendering.id == asked.id).values(done_at=now))
        note(session, "job", asked.job, now, None, _said(asked.percent, "WRITTEN"), why)


def drop_rendering(books: Books, asked: Rendering, why: str, now: datetime, actor: str = ACTOR) -> None:
    """They cannot be written; somebody may ask again."""
    with writing(books) as session:
        session.execute(delete(Rendering).where(Rendering.id == asked.id))
        note(session, "job", asked.job, now, None, _said(asked.percent, "GIVEN UP"), why, actor)


def renderings(books: Books, job_id: str) -> Sequence[Rendering]:
    """What has been asked for of a job."""
    with reading(books) as session:
        return session.scalars(select(Rendering).where(Rendering.job == job_id).order_by(Rendering.percent)).all()


def _at(job_id: str, percent: int) -> ColumnElement[bool]:
    return (Rendering.job == job_id) & (Rendering.percent == percent)


def _said(percent: int, what: str) -> str:
    return f"captures at ratio {percent / 100:.2f} {what}"
