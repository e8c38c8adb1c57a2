"""What people ask the books: where is my study, how is the node."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select

from dicomnode.bookkeeping.deliveries import was_sending
from dicomnode.bookkeeping.jobs import LEASE
from dicomnode.bookkeeping.store import Books, reading
from dicomnode.bookkeeping.tables import Delivery, History, Instance, Job, Result, Series, Study
from dicomnode.jobs import NO_MAPS, Lane, State


@dataclass(frozen=True, slots=True)
class StudyStory:
    """All that the books hold of one study."""

    study: Study
    series: Sequence[Series]
    instances: dict[str, tuple[int, datetime, datetime]]  # by series: how many, first and last received
    jobs: Sequence[Job]
    deliveries: Sequence[tuple[str, str, str, str | None, int]]  # job, destination, state, status, how many
    history: Sequence[History]


def find_studies(books: Books, key: str) -> list[str]:
    """Study UIDs for an accession number, a study UID, a series UID or a job id."""
    with reading(books) as session:
        found = select(Study.study_instance_uid).where(
            or_(
                Study.accession_number == key,
                Study.study_instance_uid == key,
                Study.study_instance_uid.in_(select(Series.study).where(Series.series_instance_uid == key)),
                Study.study_instance_uid.in_(select(Job.study).where(Job.id == key)),
            )
        )
        return list(session.scalars(found)) if key else []


def current(books: Books, key: str) -> list[str]:
    """The jobs that a key stands for: the one with this id, else of each study and route the newest finished.

    A page that says why there are no maps counts only where there are none.
    """
    with reading(books) as session:
        if session.get(Job, key):
            return [key]
        studies = Job.study.in_(find_studies(books, key))
        finished = session.scalars(select(Job).where(studies, was_sending()).order_by(Job.revision))
        newest = {(job.study, job.route): job.id for job in finished}
        with_maps = {study for study, route in newest if route != NO_MAPS}
        return [job for (study, route), job in newest.items() if route != NO_MAPS or study not in with_maps]


def story(books: Books, study_instance_uid: str) -> StudyStory:
    """The whole story of one study."""
    with reading(books) as session:
        mine = select(Series).where(Series.study == study_instance_uid)
        series = session.scalars(mine.order_by(Series.last_received_at, Series.series_instance_uid)).all()
        jobs = session.scalars(
            select(Job).where(Job.study == study_instance_uid).order_by(Job.created_at, Job.revision)
        ).all()
        uids, ids = [s.series_instance_uid for s in series], [j.id for j in jobs]
        counts = session.execute(
            select(Instance.series, func.count(), func.min(Instance.received_at), func.max(Instance.received_at))
            .where(Instance.series.in_(uids))
            .group_by(Instance.series)
        )
        deliveries = session.execute(
            select(Result.job, Delivery.destination, Delivery.state, Delivery.status, func.count())
            .join(Result, Result.sop_instance_uid == Delivery.result)
            .where(Result.job.in_(ids))
            .group_by(Result.job, Delivery.destination, Delivery.state, Delivery.status)
        )
        rows = [(job, where, state, status, n) for job, where, state, status, n in deliveries]
        return StudyStory(
            study=session.get_one(Study, study_instance_uid),
            series=series,
            instances={uid: (n, first, last) for uid, n, first, last in counts},
            jobs=jobs,
            deliveries=rows,
            history=session.scalars(
                select(History)
                .where(or_(_of(uids, ids), _absences_of(jobs, {row[1] for row in rows})))
                .order_by(History.at, History.id)
            ).all(),
        )


def _of(series: Sequence[str], jobs: Sequence[str]) -> ColumnElement[bool]:
    """History of these; the subject is named too, because the index begins with it."""
    return or_(
        and_(History.subject.in_(("series", "instance")), History.subject_id.in_(series)),
        and_(History.subject == "job", History.subject_id.in_(jobs)),
    )


def _absences_of(jobs: Sequence[Job], destinations: set[str]) -> ColumnElement[bool]:
    """When the destinations of these jobs were away, from the first to the last thing that happened to the jobs."""
    theirs = and_(History.subject == "job", History.subject_id.in_([job.id for job in jobs]))
    first, last = (select(of(History.at)).where(theirs).scalar_subquery() for of in (func.min, func.max))
    away = (History.subject == "destination", History.subject_id.in_(destinations))
    return and_(*away, History.at.between(first, last))


def last_history(books: Books, most: int) -> Sequence[History]:
    """The newest lines of history, in the order in which they were written."""
    with reading(books) as session:
        return session.scalars(select(History).order_by(History.id.desc()).limit(most)).all()[::-1]


def refusals(books: Books, subject: str, since: datetime) -> list[tuple[str, str, int, datetime]]:
    """What was refused at the door: reason code, reason, how often, last time."""
    with reading(books) as session:
        rows = session.execute(
            select(History.after, History.why, func.count(), func.max(History.at))
            .where(History.subject == subject, History.at >= since)
            .group_by(History.after, History.why)
            .order_by(func.max(History.at).desc())
        )
        return [(code, why, n, last) for code, why, n, last in rows]


def counts(books: Books) -> dict[str, dict[str, int]]:
    """How many series, jobs and deliveries are in each state."""
    columns = {"series": Series.state, "jobs": Job.state, "deliveries": Delivery.state}
    with reading(books) as session:
        return {
            name: {str(state): n for state, n in session.execute(select(column, func.count()).group_by(column))}
            for name, column in columns.items()
        }


def recent_jobs(books: Books, most: int = 10) -> list[tuple[Job, str]]:
    """The newest jobs with the accession number of their study."""
    with reading(books) as session:
        rows = session.execute(
            select(Job, Study.accession_number).join(Study).order_by(Job.created_at.desc(), Job.id.desc()).limit(most)
        )
        return [(job, accession) for job, accession in rows]


def queued(books: Books) -> list[tuple[Lane, int, datetime]]:
    """Of each lane in which jobs wait for a worker: how many, and since when the first of them."""
    since = select(History.subject_id, func.max(History.at).label("at")).where(History.after == str(State.QUEUED))
    waiting = since.where(History.subject == "job").group_by(History.subject_id).subquery()
    with reading(books) as session:
        rows = session.execute(
            select(Job.lane, func.count(), func.min(waiting.c.at))
            .join(waiting, waiting.c.subject_id == Job.id)
            .where(Job.state == State.QUEUED)
            .group_by(Job.lane)
            .order_by(Job.lane.desc())
        )
        return [(lane, n, at) for lane, n, at in rows]


def stalled(books: Books, now: datetime) -> list[tuple[Job, datetime]]:
    """Jobs whose worker gives no sign any more, and when it last did."""
    with reading(books) as session:
        silent = select(Job).where(Job.state == State.PROCESSING, Job.lease_until < now).order_by(Job.lease_until)
        return [(job, job.lease_until - LEASE) for job in session.scalars(silent) if job.lease_until]
