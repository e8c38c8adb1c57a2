"""What may be removed from the disk, and that it was. Rows stay; only their files go."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from dicomnode import audit
from dicomnode.audit import Who
from dicomnode.bookkeeping.audits import append
from dicomnode.bookkeeping.deliveries import OPEN
from dicomnode.bookkeeping.store import ACTOR, Books, note, reading, writing
from dicomnode.bookkeeping.tables import (
    Association,
    Commitment,
    Delivery,
    Instance,
    Job,
    Rendering,
    Result,
    Series,
    Study,
)
from dicomnode.bookkeeping.withheld import SUPERSEDED
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import DeliveryState, SeriesState, State

PURGED = "PURGED"
ENDED = (State.DONE, State.FAILED, State.REJECTED)


class Kind(StrEnum):
    """What is removed of a study."""

    SOURCES = "sources"
    RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Removal:
    """Files that are marked as removed and are now to be: paths of instances, ids of jobs whose results go."""

    paths: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


def purgeable(books: Books, kind: Kind, before: datetime, now: datetime, most: int) -> list[str]:
    """Studies that have files of this kind, nothing new since `before`, and nothing that holds them; oldest first."""
    old: ColumnElement[bool]
    with reading(books) as session:
        promised = _promised(session)
        if kind is Kind.SOURCES:
            old = and_(Series.purged_at.is_(None), Series.last_received_at < before)
            found = select(Series.study).where(old, *_free(Series.study, before, now, promised))
            found = found.order_by(Series.last_received_at)
        else:
            has_files = select(Result.sop_instance_uid).where(Result.job == Job.id).exists()
            old = and_(Job.purged_at.is_(None), Job.created_at < before, Job.state.in_(ENDED), has_files)
            found = select(Job.study).where(old, *_free(Job.study, before, now, promised)).order_by(Job.created_at)
        return list(dict.fromkeys(session.scalars(found.limit(4 * most))))[:most]


def held_by(books: Books, study: str, before: datetime, now: datetime) -> str:
    """Why nothing of a study may be removed, in words; empty where it may."""
    with reading(books) as session:
        promised = _promised(session)
        this = select(Study.study_instance_uid).where(Study.study_instance_uid == study)
        for words, holds in _holds(Study.study_instance_uid, before, now, promised).items():
            if session.scalar(this.where(holds)):
                return words
    return ""


def purge(
    books: Books, study: str, kinds: Collection[Kind], before: datetime, why: str, now: datetime, actor: str = ACTOR
) -> Removal | None:
    """Mark files of a study as removed; None where something holds it now, or holds a row of it at this moment.

    Rows are locked first and asked again then, so that what comes in between, an instance or a resend, either is seen
    or waits until the mark is there.
    """
    with writing(books) as session:
        if not _lock(session, study):
            return None
        free = _free(Study.study_instance_uid, before, now, _promised(session))
        this = select(Study.study_instance_uid).where(Study.study_instance_uid == study, *free)
        if session.scalar(this) is None:
            return None
        paths = _mark_sources(session, study, why, now, actor) if Kind.SOURCES in kinds else ()
        jobs = _mark_results(session, study, why, now, actor) if Kind.RESULTS in kinds else ()
        if paths or jobs:
            session.flush()
            append(session, audit.deleted(study, why, Who(actor, requestor=True)), now)
        crashpoint("purge.noted")
        return Removal(paths, jobs)


def purged_among(books: Books, jobs: Collection[str]) -> set[str]:
    """Those of these jobs whose results are marked as removed."""
    with reading(books) as session:
        listed, found = list(jobs), set[str]()
        for start in range(0, len(listed), 500):
            some = Job.id.in_(listed[start : start + 500])
            found.update(session.scalars(select(Job.id).where(some, Job.purged_at.is_not(None))))
        return found


def _lock(session: Session, study: str) -> bool:
    """Lock all rows that others change when something happens to the study; False where somebody has one of them."""
    for table, of in ((Study, Study.study_instance_uid), (Series, Series.study), (Job, Job.study)):
        key = table.__mapper__.primary_key[0]
        got = session.scalars(select(key).where(of == study).with_for_update(skip_locked=True)).all()
        if len(got) != session.scalar(select(func.count()).select_from(table).where(of == study)):
            return False
    return True


def _mark_sources(session: Session, study: str, why: str, now: datetime, actor: str) -> tuple[str, ...]:
    mine = select(Series.series_instance_uid).where(Series.study == study)
    there = update(Instance).where(Instance.series.in_(mine), Instance.purged_at.is_(None)).values(purged_at=now)
    paths: dict[str, list[str]] = {}
    for series, path in session.execute(there.returning(Instance.series, Instance.path)):
        paths.setdefault(series, []).append(path)
    marked = update(Series).where(Series.study == study, Series.purged_at.is_(None)).values(purged_at=now)
    for series, state in session.execute(marked.returning(Series.series_instance_uid, Series.state)).all():
        files = f"{len(paths.get(series, ()))} files removed: {why}"
        note(session, "series", series, now, state, PURGED, files, actor)
    return tuple(path for of_series in paths.values() for path in of_series)


def _mark_results(session: Session, study: str, why: str, now: datetime, actor: str) -> tuple[str, ...]:
    ended = (Job.study == study, Job.purged_at.is_(None), Job.state.in_(ENDED))
    marked = update(Job).where(*ended).values(purged_at=now).returning(Job.id, Job.state)
    jobs = session.execute(marked).all()
    for job, state in jobs:
        note(session, "job", job, now, state, PURGED, f"its results removed: {why}", actor)
    return tuple(job for job, _ in jobs)


def _free(
    study: SQLColumnExpression[str], before: datetime, now: datetime, promised: Collection[str]
) -> list[ColumnElement[bool]]:
    return [~holds for holds in _holds(study, before, now, promised).values()]


def _holds(
    study: SQLColumnExpression[str], before: datetime, now: datetime, promised: Collection[str]
) -> dict[str, ColumnElement[bool]]:
    """In words -> what keeps every file of a study on the disk. The cheapest questions come first."""
    others = Series.__table__.alias("others").c  # the study may itself come from a row of series or job
    jobs = Job.__table__.alias("jobs").c
    of_study = jobs.study == study
    busy = or_(
        jobs.state.in_((State.QUEUED, State.PROCESSING, State.SENDING)),
        jobs.lease_until > now,
        and_(jobs.state == State.FAILED, jobs.dismissed_at.is_(None)),
    )
    arriving = or_(
        others.state.in_((SeriesState.RECEIVING, SeriesState.COMPLETE)),
        others.last_received_at >= before,
    )
    theirs = select(Delivery.id).join(Result, Result.sop_instance_uid == Delivery.result).where(Result.job == jobs.id)
    waiting = theirs.where(Delivery.state.in_(OPEN)).exists()
    has_results = select(Result.sop_instance_uid).where(Result.job == jobs.id).exists()
    nowhere = and_(
        jobs.state == State.DONE,
        or_(jobs.reason_code.is_(None), jobs.reason_code != SUPERSEDED),
        has_results,
        ~theirs.where(Delivery.state == DeliveryState.CONFIRMED).exists(),
    )
    brought, asked = aliased(Series), aliased(Job)
    open_ = select(brought.study).join(Instance, Instance.series == brought.series_instance_uid)
    open_ = open_.join(Association, Association.id == Instance.association).where(Association.released_at.is_(None))
    kept = jobs.purged_at.is_(None)
    return {
        "instances of it are or were lately received": select(others.study)
        .where(others.study == study, arriving)
        .exists(),
        "an association that brought some of it is open": study.in_(open_),
        "storage commitment of some of it is asked for and not answered": study.in_(promised),
        "a job of it is not finished, or failed and was not dismissed": select(jobs.id).where(of_study, busy).exists(),
        "captures of it are asked for": select(Rendering.id)
        .join(asked, asked.id == Rendering.job)
        .where(asked.study == study, Rendering.done_at.is_(None))
        .exists(),
        "results of it wait for a destination": select(jobs.id).where(of_study, kept, waiting).exists(),
        "its results stand at no destination": select(jobs.id).where(of_study, kept, nowhere).exists(),
    }


def _promised(session: Session) -> list[str]:
    """Studies of which a scanner waits to be told whether we keep them."""
    asked = session.scalars(select(Commitment.instances).where(Commitment.answered_at.is_(None))).all()
    uids, found = [line.split(" ")[-1] for lines in asked for line in lines.splitlines()], set[str]()
    for start in range(0, len(uids), 500):
        mine = select(Series.study).join(Instance, Instance.series == Series.series_instance_uid)
        found.update(session.scalars(mine.where(Instance.sop_instance_uid.in_(uids[start : start + 500]))))
    return sorted(found)
