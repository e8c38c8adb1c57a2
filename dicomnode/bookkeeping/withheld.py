"""Studies that had a candidate and got no maps: what the books know of why."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select
from sqlalchemy.orm import Session

from dicomnode.bookkeeping.deliveries import was_sending
from dicomnode.bookkeeping.falls import TAKEN
from dicomnode.bookkeeping.store import Books, note, reading, writing
from dicomnode.bookkeeping.tables import Delivery, Instance, Job, JobInput, Result, Series, Study
from dicomnode.jobs import NO_MAPS, OPERATOR_ONLY, DeliveryState, SeriesState, State

RECENT = timedelta(days=1)  # what is older is past telling
SUPERSEDED = "superseded"  # reason code of a page that is no longer true
NOT_COMPUTED = ("failed", "the maps could not be computed; the administrator of the node can tell why")


@dataclass(frozen=True, slots=True)
class Told:
    """Reason codes that are worth a page. of_series: of a refusal by the headers; of_jobs: of one by the images."""

    of_series: frozenset[str]
    of_jobs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The series of a study that came nearest to maps, and why it got none."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[int, ...]
    code: str
    reason: str


def without_maps(books: Books, codes: Told, quiet_since: datetime, now: datetime, most: int = 8) -> list[Refusal]:
    """Studies refused with one of these codes, quiet since then, whose refusal has not been told by a page yet."""
    refused = select(Series.study).where(_refused(codes.of_series), Series.last_received_at > now - RECENT)
    ended = select(Job.study).where(_fruitless(codes.of_jobs), Job.created_at > now - RECENT)
    busy = (Series.state == SeriesState.RECEIVING) | (Series.last_received_at > quiet_since)
    told = (Job.route == NO_MAPS) & or_(Job.reason_code.is_(None), Job.reason_code != SUPERSEDED)
    waits = select(Study.study_instance_uid).where(
        Study.study_instance_uid.in_(refused.union(ended)),
        ~_of_study(Series, busy).exists(),
        ~_of_study(Job, or_(told, _yields_maps())).exists(),
    )
    with reading(books) as session:
        studies = session.scalars(waits.limit(most)).all()
        found = (_nearest(session, study, codes) for study in studies)
        return [refusal for refusal in found if refusal]


def refusal_of(books: Books, study_instance_uid: str, codes: Told) -> Refusal | None:
    """Why the study has no maps; None where it has some, or where they may yet come."""
    with reading(books) as session:
        return _nearest(session, study_instance_uid, codes) if not has_maps(books, study_instance_uid) else None


def has_maps(books: Books, study_instance_uid: str) -> bool:
    """True where maps of the study have been made, or are being made."""
    with reading(books) as session:
        mine = select(Job.id).where(Job.study == study_instance_uid, _yields_maps())
        return session.scalar(mine.limit(1)) is not None


def withdraw(books: Books, job_id: str, why: str, now: datetime) -> None:
    """What has not been sent of a job shall not be sent any more."""
    with writing(books) as session:
        mine = select(Result.sop_instance_uid).where(Result.job == job_id)
        unsent = delete(Delivery).where(Delivery.result.in_(mine), Delivery.state == DeliveryState.PENDING)
        for destination, count in Counter(session.scalars(unsent.returning(Delivery.destination))).items():
            note(session, "job", job_id, now, None, f"{count} files WITHDRAWN at {destination}", why)


def _nearest(session: Session, study_instance_uid: str, codes: Told) -> Refusal | None:
    """A job that came to nothing was nearer than a refused series; of several series, the one with most instances."""
    mine = select(Job).where(Job.study == study_instance_uid, _fruitless(codes.of_jobs)).order_by(Job.created_at.desc())
    if job := session.scalar(mine.limit(1)):
        inputs = select(Instance).join(JobInput, JobInput.instance == Instance.id).where(JobInput.job == job.id)
        code, reason = (job.reason_code, job.reason) if job.state is State.REJECTED else NOT_COMPUTED
    else:
        size = select(func.count()).where(Instance.series == Series.series_instance_uid).scalar_subquery()
        refused = select(Series).where(Series.study == study_instance_uid, _refused(codes.of_series))
        series = session.scalar(refused.order_by(size.desc(), Series.series_instance_uid).limit(1))
        if series is None:
            return None
        inputs = select(Instance).where(Instance.series == series.series_instance_uid)
        code, reason = series.reason_code, series.reason
    instances = session.scalars(inputs.order_by(Instance.id)).all()
    ids = tuple(instance.id for instance in instances)
    return Refusal(study_instance_uid, instances[0].series, ids, str(code), str(reason)) if instances else None


def _refused(codes: Collection[str]) -> ColumnElement[bool]:
    return (Series.state == SeriesState.REFUSED) & Series.reason_code.in_(codes)


def _fruitless(codes: Collection[str]) -> ColumnElement[bool]:
    """Jobs of which no maps came: rejected with one of the codes, or failed before any of them was shown."""
    failed = (Job.state == State.FAILED) & ~_shown()
    return (Job.route != NO_MAPS) & or_((Job.state == State.REJECTED) & Job.reason_code.in_(codes), failed)


def _yields_maps() -> ColumnElement[bool]:
    return (Job.route != NO_MAPS) & or_(Job.state.not_in(OPERATOR_ONLY), (Job.state == State.FAILED) & _shown())


def _shown() -> ColumnElement[bool]:
    """Some maps of the job stand at a destination, or were ready for it: they are sent while the rest is written."""
    there = select(Delivery.id).join(Result, Result.sop_instance_uid == Delivery.result).where(Result.job == Job.id)
    return was_sending() | there.where(Delivery.state.in_(TAKEN)).exists()


def _of_study(table: type[Series] | type[Job], condition: ColumnElement[bool]) -> Select[Any]:
    return select(table.study).where(table.study == Study.study_instance_uid, condition)
