"""What the administrator's page asks the books; each question stays fast with a million instances."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from ulid import ULID

from dicomnode.bookkeeping.deliveries import OPEN
from dicomnode.bookkeeping.selftests import of_patients
from dicomnode.bookkeeping.store import Books, reading
from dicomnode.bookkeeping.tables import Confirmation, Delivery, Instance, Job, Series, Study
from dicomnode.jobs import OPERATOR_ONLY, Lane, SeriesState, State

WAITING = (State.QUEUED, State.PROCESSING, State.SENDING)
MOST_TIMED = 2000  # jobs that percentiles are taken of
MOST_OPEN = 20000  # deliveries that are counted


@dataclass(frozen=True, slots=True)
class Line:
    """One job as a list shows it, with what the list needs of its study."""

    job: Job
    study_id: str
    accession_number: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs a list shows. dismissed: None for all, else only those that are, or are not."""

    states: tuple[State, ...]
    lane: Lane | None = None
    reason_code: str = ""
    dismissed: bool | None = None
    oldest_first: bool = False


def list_jobs(books: Books, chosen: Chosen, after: str, most: int) -> list[Line]:
    """The jobs that follow the one with id `after` (empty: from the beginning), ordered by id, which is time.

    One question for each state, because each is then a short walk along an index.
    """
    conditions: list[ColumnElement[bool]] = []
    if after:
        conditions.append(Job.id > after if chosen.oldest_first else Job.id < after)
    if chosen.lane:
        conditions.append(Job.lane == chosen.lane)
    if chosen.reason_code:
        conditions.append(Job.reason_code == chosen.reason_code)
    if chosen.dismissed is not None:
        conditions.append(Job.dismissed_at.is_not(None) if chosen.dismissed else Job.dismissed_at.is_(None))
    order = Job.id.asc() if chosen.oldest_first else Job.id.desc()
    found: list[Line] = []
    with reading(books) as session:
        for state in chosen.states:
            listed = select(Job, Study.id, Study.accession_number).join(Study, Study.study_instance_uid == Job.study)
            listed = listed.where(Job.state == state, *conditions).order_by(order).limit(most)
            found += [Line(job, study_id, accession) for job, study_id, accession in session.execute(listed)]
    return sorted(found, key=lambda line: line.job.id, reverse=not chosen.oldest_first)[:most]


def list_refused(
    books: Books, reason_code: str, before: datetime | None, skip: int, most: int
) -> list[tuple[Series, str, str]]:
    """Refused series with study id and accession number, the newest first.

    before: moment of the last one shown before; skip: how many of exactly that moment were shown.
    """
    conditions = [Series.state == SeriesState.REFUSED]
    if reason_code:
        conditions.append(Series.reason_code == reason_code)
    if before:
        conditions.append(Series.last_received_at <= before)
    listed = select(Series, Study.id, Study.accession_number).join(Study, Study.study_instance_uid == Series.study)
    order = (Series.last_received_at.desc(), Series.series_instance_uid.desc())
    with reading(books) as session:
        rows = session.execute(listed.where(*conditions).order_by(*order).offset(skip).limit(most))
        return [(series, study_id, accession) for series, study_id, accession in rows]


def list_receiving(books: Books, most: int = 20) -> list[tuple[Series, str, str, int]]:
    """Series on their way in, the longest quiet first: with study id, accession number and instances so far."""
    count = select(func.count()).where(Instance.series == Series.series_instance_uid).scalar_subquery()
    listed = select(Series, Study.id, Study.accession_number, count)
    listed = listed.join(Study, Study.study_instance_uid == Series.study)
    listed = listed.where(Series.state == SeriesState.RECEIVING).order_by(Series.last_received_at).limit(most)
    with reading(books) as session:
        return [(series, study_id, accession, n) for series, study_id, accession, n in session.execute(listed)]


def lanes(books: Books) -> list[tuple[Lane, State, int]]:
    """How many jobs of each lane wait, are computed, or are sent."""
    with reading(books) as session:
        counted = select(Job.lane, Job.state, func.count()).where(Job.state.in_(WAITING))
        return [(lane, state, n) for lane, state, n in session.execute(counted.group_by(Job.lane, Job.state))]


def door_to_map(books: Books, since: datetime) -> list[float]:
    """Seconds from the last slice to the last confirmation of jobs done since then; the newest, in rising order."""
    timed = select(Job.last_slice_at, Job.done_at)
    timed = timed.where(Job.done_at >= since, Job.last_slice_at.is_not(None), of_patients(Job.study))
    with reading(books) as session:
        rows = session.execute(timed.order_by(Job.done_at.desc()).limit(MOST_TIMED)).all()
    return sorted((done - slice_).total_seconds() for slice_, done in rows if done and slice_)


def failures(books: Books, since: datetime) -> list[tuple[str, str, int]]:
    """What failed, was rejected or refused since then: state, reason code, how many; dismissed jobs do not count."""
    oldest = str(ULID.from_datetime(since))[:10]  # of a ULID, the characters that are its time
    jobs = select(Job.state, Job.reason_code, func.count())
    jobs = jobs.where(
        Job.state.in_(OPERATOR_ONLY), Job.id >= oldest, Job.dismissed_at.is_(None), of_patients(Job.study)
    )
    series = select(Series.state, Series.reason_code, func.count())
    series = series.where(
        Series.state == SeriesState.REFUSED, Series.last_received_at >= since, of_patients(Series.study)
    )
    with reading(books) as session:
        rows = [
            *session.execute(jobs.group_by(Job.state, Job.reason_code)),
            *session.execute(series.group_by(Series.state, Series.reason_code)),
        ]
    return sorted(((str(state), code or "", n) for state, code, n in rows), key=lambda row: -row[2])


def at_work(books: Books) -> Sequence[Job]:
    """Jobs that a worker or a sender holds, the longest held first."""
    held = select(Job).where(Job.state.in_(WAITING), Job.lease_owner.is_not(None))
    with reading(books) as session:
        return sorted(session.scalars(held), key=lambda job: job.id)


def confirmations(books: Books) -> dict[str, datetime]:
    """When each destination last confirmed a file."""
    with reading(books) as session:
        return {row.destination: row.at for row in session.scalars(select(Confirmation))}


def open_deliveries(books: Books) -> dict[str, int]:
    """How many files are still on their way to each destination; counting ends at MOST_OPEN."""
    there = select(Delivery.destination).where(Delivery.state.in_(OPEN)).limit(MOST_OPEN).subquery()
    with reading(books) as session:
        rows = session.execute(select(there.c.destination, func.count()).group_by(there.c.destination)).all()
    return {destination: n for destination, n in rows if n}


def study_with_id(books: Books, study_id: str) -> str | None:
    """The Study Instance UID behind an id of ours."""
    with reading(books) as session:
        return session.scalar(select(Study.study_instance_uid).where(Study.id == study_id))


def study_of(books: Books, study_instance_uid: str) -> Study:
    """A study."""
    with reading(books) as session:
        return session.get_one(Study, study_instance_uid)


def percentile(rising: Sequence[float], share: float) -> float | None:
    """The value that this share of the values does not exceed (nearest rank); None of none."""
    return rising[max(0, -(-len(rising) * round(share * 100) // 100) - 1)] if rising else None
