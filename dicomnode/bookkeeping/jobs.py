"""The books' working side: jobs, their leases, and the results they leave."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session
from ulid import ULID

from dicomnode.bookkeeping.deliveries import tell_of_act, was_sending
from dicomnode.bookkeeping.store import ACTOR, Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Delivery, Instance, Job, JobInput, Result, Series, Study
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import NO_MAPS, OPERATOR_ONLY, DeliveryState, Lane, SeriesState, State, before

LEASE = timedelta(seconds=20)
HEARTBEAT = timedelta(seconds=5)
ATTEMPTS = 3
UNCLAIMED = timedelta(seconds=5)
SOONEST, LATEST = timedelta(seconds=5), timedelta(seconds=60)  # between two attempts that the world made fail
GIVE_UP = timedelta(days=1)  # from the opening of a job to the last attempt that the world may make fail


class LeaseLost(Exception):
    """Another worker holds the job, or an operator moved it; what this worker did no longer counts."""


@dataclass(frozen=True, slots=True)
class Order:
    """A job to open: its key says which inputs, weights and settings it stands for.

    instead_of: the series that was used until now, where this one is better, and why.
    """

    key: str
    study_instance_uid: str
    series_instance_uid: str
    route: str
    engine: str
    instances: tuple[int, ...]
    completed_by: str
    why: str
    warnings: tuple[str, ...] = ()
    instead_of: tuple[str, str] | None = None


def open_job(books: Books, order: Order, last_received_at: datetime, now: datetime) -> str | None:
    """Close the series and open its job in one transaction.

    The new job's id; None where these inputs already are a job, or where an instance came in since they were read.
    """
    with writing(books) as session:
        selected = session.scalar(
            update(Series)
            .where(
                Series.series_instance_uid == order.series_instance_uid,
                Series.state == SeriesState.RECEIVING,
                Series.last_received_at == last_received_at,
            )
            .values(state=SeriesState.SELECTED, completed_by=order.completed_by, reason=order.why, reason_code=None)
            .returning(Series.series_instance_uid)
        )
        if selected is None:
            return None
        note(session, "series", selected, now, SeriesState.RECEIVING, SeriesState.SELECTED, order.why)
        if order.instead_of:
            _pass_over(session, *order.instead_of, now)
        job_id = _insert_job(session, order, now, last_received_at)
        session.flush()
        crashpoint("job.noted")
        return job_id


def _pass_over(session: Session, series_instance_uid: str, why: str, now: datetime) -> None:
    selected = (Series.series_instance_uid == series_instance_uid, Series.state == SeriesState.SELECTED)
    passed_over = update(Series).where(*selected).values(state=SeriesState.NOT_SELECTED, reason=why)
    if session.scalar(passed_over.returning(Series.study)):
        note(session, "series", series_instance_uid, now, SeriesState.SELECTED, SeriesState.NOT_SELECTED, why)


def open_page(books: Books, order: Order, now: datetime) -> str | None:
    """Open the job of a page over series that are closed already; None where it is open."""
    with writing(books) as session:
        return _insert_job(session, order, now)


def _insert_job(session: Session, order: Order, now: datetime, last_slice_at: datetime | None = None) -> str | None:
    # A job that failed and left nothing is nothing to replace.
    alive, left_files = Job.state.not_in(OPERATOR_ONLY), select(Result.job).where(Result.job == Job.id).exists()
    earlier = session.execute(
        select(Job.id, Job.revision)
        .where(Job.study == order.study_instance_uid, Job.route == order.route, or_(alive, left_files))
        .order_by(Job.revision.desc())
        .limit(1)
    ).first()
    lane = session.scalars(select(Study.lane).where(Study.study_instance_uid == order.study_instance_uid)).one()
    job_id: str | None = add(
        session,
        Job,
        Job.id,
        id=str(ULID.from_datetime(now)),
        key=order.key,
        study=order.study_instance_uid,
        route=order.route,
        revision=earlier.revision + 1 if earlier else 1,
        supersedes=earlier.id if earlier else None,
        lane=lane,
        state=State.QUEUED,
        warnings="\n".join(order.warnings),
        attempts=0,
        enqueued_at=now,
        created_at=now,
        last_slice_at=last_slice_at,
        engine=order.engine,
    )
    if job_id is None:
        return None
    session.add_all(JobInput(job=job_id, instance=instance) for instance in order.instances)
    note(session, "job", job_id, now, None, State.QUEUED, order.why)
    return job_id


def claim(books: Books, job_id: str, owner: str, now: datetime) -> Job | None:
    """Take a queued job; None where it is not queued (any more). One atomic statement."""
    with writing(books) as session:
        job = session.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.in_(before(State.PROCESSING)))
            .values(state=State.PROCESSING, attempts=Job.attempts + 1, lease_owner=owner, lease_until=now + LEASE)
            .returning(Job)
        )
        if job:
            note(session, "job", job_id, now, State.QUEUED, State.PROCESSING, f"attempt {job.attempts} by {owner}")
        return job


def claim_sending(books: Books, job_id: str, owner: str, now: datetime) -> Job | None:
    """Take a job whose results are to be sent; None where another sender holds it."""
    with writing(books) as session:
        free = or_(Job.lease_until.is_(None), Job.lease_until < now)
        finished = or_(Job.state.in_((State.SENDING, State.DONE)), (Job.state == State.FAILED) & was_sending())
        return session.scalar(
            update(Job)
            .where(Job.id == job_id, finished, free)
            .values(lease_owner=owner, lease_until=now + LEASE)
            .returning(Job)
        )


def being_written(books: Books, job_id: str) -> Job | None:
    """The job, where a worker has it: what is finished of it may be sent while the rest is made."""
    with reading(books) as session:
        return session.scalar(select(Job).where(Job.id == job_id, Job.state == State.PROCESSING))


def heartbeat(books: Books, job_id: str, owner: str, now: datetime) -> bool:
    """Extend the lease; False where it is no longer ours."""
    with writing(books) as session:
        mine = update(Job).where(_held_by(job_id, owner)).values(lease_until=now + LEASE)
        return session.scalar(mine.returning(Job.id)) is not None


def let_go(books: Books, job_id: str, owner: str) -> None:
    """Give the lease back without a change of state: a sender has done what it could for now."""
    with writing(books) as session:
        session.execute(update(Job).where(_held_by(job_id, owner)).values(lease_owner=None, lease_until=None))


def advance(
    books: Books, job_id: str, owner: str, after: State, why: str, now: datetime, code: str | None = None
) -> None:
    """Move our job along NEXT and give the lease back; raises LeaseLost where it is not ours."""
    with writing(books) as session:
        was = session.scalar(select(Job.state).where(_held_by(job_id, owner)))
        moved = session.scalar(
            update(Job)
            .where(_held_by(job_id, owner), Job.state.in_(before(after)))
            .values(state=after, reason_code=code, reason=why, lease_owner=None, lease_until=None, enqueued_at=now)
            .values({"done_at": now} if after is State.DONE else {})
            .returning(Job)
        )
        if moved is None:
            raise LeaseLost(f"job {job_id} is {was or 'held by another'}; {after} was not recorded")
        note(session, "job", job_id, now, was, after, why)
        if was == State.PROCESSING and after in OPERATOR_ONLY:
            _offer_siblings(session, moved.study, moved.route, now)


def note_warnings(books: Books, job_id: str, warnings: Iterable[str], now: datetime) -> tuple[str, ...]:
    """Add what the images made us warn of to the job; all its warnings, each once."""
    with writing(books) as session:
        job = session.get_one(Job, job_id)
        known = job.warnings.splitlines()
        every = tuple(dict.fromkeys([*known, *warnings]))
        if new := every[len(known) :]:
            job.warnings = "\n".join(every)
            note(session, "job", job_id, now, None, "WARNED", " ".join(new))
        return every


def put_off(books: Books, job_id: str, owner: str, why: str, now: datetime) -> None:
    """The world failed our job and may mend: it waits as long as it has waited already, within limits.

    The attempt does not count, but after a day the job has failed. Raises LeaseLost where it is not ours.
    """
    with writing(books) as session:
        job = session.scalar(
            select(Job).where(_held_by(job_id, owner), Job.state == State.PROCESSING).with_for_update()
        )
        if job is None:
            raise LeaseLost(f"job {job_id} is no longer ours; it was not put off")
        age = now - job.created_at
        after = State.QUEUED if age < GIVE_UP else State.FAILED
        job.state, job.reason, job.lease_owner, job.lease_until = after, why, None, None
        job.attempts -= 1
        job.enqueued_at = now + min(max(age, SOONEST), LATEST) - UNCLAIMED
        note(session, "job", job_id, now, State.PROCESSING, after, why)
        if after is State.FAILED:
            _offer_siblings(session, job.study, job.route, now)


def reap(books: Books, now: datetime) -> list[str]:
    """Jobs whose worker has vanished: queued again, or failed after the last attempt. Returns their ids."""
    with writing(books) as session:
        vanished = select(Job).where(Job.state == State.PROCESSING, Job.lease_until < now)
        # Locked, so that a worker that finishes at this moment is not overtaken (SQLite has one writer anyway).
        lost = session.scalars(vanished.with_for_update(skip_locked=True)).all()
        for job in lost:
            spent = job.attempts >= ATTEMPTS
            after = State.FAILED if spent else State.QUEUED
            why = f"worker {job.lease_owner} vanished in attempt {job.attempts} of {ATTEMPTS}"
            job.state, job.reason, job.lease_owner, job.lease_until = after, why, None, None
            note(session, "job", job.id, now, State.PROCESSING, after, why)
            if spent:
                _offer_siblings(session, job.study, job.route, now)
        if lost:
            session.flush()
            crashpoint("reap.noted")
        return [job.id for job in lost]


def _offer_siblings(session: Session, study_instance_uid: str, route: str, now: datetime) -> None:
    """No maps come of the chosen series, so those that were passed over for it are judged again."""
    if route == NO_MAPS:
        return
    passed_over = (Series.study == study_instance_uid, Series.state == SeriesState.NOT_SELECTED)
    reopened = (
        update(Series).where(*passed_over, Series.purged_at.is_(None)).values(state=SeriesState.RECEIVING, reason=None)
    )
    for uid in session.scalars(reopened.returning(Series.series_instance_uid)).all():
        note(session, "series", uid, now, SeriesState.NOT_SELECTED, SeriesState.RECEIVING, "the chosen series failed")


def retry(books: Books, job_id: str, now: datetime, actor: str = ACTOR) -> bool:
    """An operator brings a failed or rejected job back: what it lacks is made, and sent again.

    A job whose files were all finished goes to the senders at once. What has been removed cannot come back.
    actor: who asks for it.
    """
    with writing(books) as session:
        was = session.scalar(select(Job.state).where(Job.id == job_id))
        finished = session.scalar(select(Job.id).where(Job.id == job_id, Job.state == State.FAILED, was_sending()))
        after = State.SENDING if finished else State.QUEUED
        gone = select(JobInput.job).join(Instance, Instance.id == JobInput.instance)
        gone = gone.where(JobInput.job == Job.id, Instance.purged_at.is_not(None))
        possible = (Job.state.in_(OPERATOR_ONLY), Job.purged_at.is_(None), or_(was_sending(), ~gone.exists()))
        back = update(Job).where(Job.id == job_id, *possible)
        values = {
            "attempts": 0,
            "reason_code": None,
            "reason": None,
            "enqueued_at": now - UNCLAIMED,
            "dismissed_at": None,
        }
        if session.scalar(back.values(state=after, **values).returning(Job.id)) is None:
            return False
        mine = select(Result.sop_instance_uid).where(Result.job == job_id)
        ended = (Delivery.result.in_(mine), Delivery.state.in_((DeliveryState.REFUSED, DeliveryState.DEAD)))
        fresh = {"state": DeliveryState.PENDING, "next_at": now, "attempts": 0}
        session.execute(update(Delivery).where(*ended).values(**fresh, sent_at=None, transaction_uid=None))
        note(session, "job", job_id, now, was, after, "retry by an operator", actor)
        tell_of_act(session, job_id, "retry", actor, now)
        return True


def dismiss(books: Books, job_id: str, why: str, now: datetime, actor: str) -> bool:
    """Nothing more is to be done about a failed or rejected job; False where it is not such a job, or dismissed.

    why: the operator's note. The job stays in its state, and may be brought back by `retry`.
    """
    with writing(books) as session:
        ended = update(Job).where(Job.id == job_id, Job.state.in_(OPERATOR_ONLY), Job.dismissed_at.is_(None))
        if session.scalar(ended.values(dismissed_at=now).returning(Job.id)) is None:
            return False
        note(session, "job", job_id, now, None, "DISMISSED", why, actor)
        tell_of_act(session, job_id, "dismiss", actor, now)
        return True


def unclaimed(books: Books, lane: Lane, now: datetime, most: int = 2) -> list[str]:
    """The oldest queued jobs of a lane that nobody has claimed; their time starts anew.

    A few wake the worker; a whole backlog enqueued every few seconds would drown the broker.
    """
    with writing(books) as session:
        oldest = select(Job.id).where(Job.state == State.QUEUED, Job.lane == lane).order_by(Job.created_at).limit(most)
        forgotten = (Job.id.in_(oldest), Job.enqueued_at < now - UNCLAIMED)
        return list(session.scalars(update(Job).where(*forgotten).values(enqueued_at=now).returning(Job.id)))


def free_lane(books: Books, study_instance_uid: str) -> Lane | None:
    """The lane that a study's job will be in; None while other jobs wait for a worker."""
    with reading(books) as session:
        if session.scalar(select(Job.id).where(Job.state == State.QUEUED).limit(1)):
            return None
        return session.scalar(select(Study.lane).where(Study.study_instance_uid == study_instance_uid))


def job_of_key(books: Books, key: str) -> str | None:
    """The id of the job with this key, if it has been opened."""
    with reading(books) as session:
        return session.scalar(select(Job.id).where(Job.key == key))


def get_job(books: Books, job_id: str) -> Job:
    """The job with this id."""
    with reading(books) as session:
        return session.get_one(Job, job_id)


def find_job(books: Books, job_id: str) -> Job | None:
    """The job with this id, if there is one."""
    with reading(books) as session:
        return session.get(Job, job_id)


def revision_of(books: Books, job_id: str | None) -> int | None:
    """The revision of a superseded job."""
    with reading(books) as session:
        return session.scalar(select(Job.revision).where(Job.id == job_id))


def inputs(books: Books, job_id: str) -> list[Instance]:
    """The instances a job computes from."""
    with reading(books) as session:
        mine = select(Instance).join(JobInput, JobInput.instance == Instance.id).where(JobInput.job == job_id)
        return list(session.scalars(mine.order_by(Instance.id)))


def instances(books: Books, ids: Sequence[int]) -> list[Instance]:
    """The instances with these ids."""
    with reading(books) as session:
        return list(session.scalars(select(Instance).where(Instance.id.in_(ids)).order_by(Instance.id)))


def results(books: Books, job_id: str) -> list[Result]:
    """The finished files of a job, in the order they were made."""
    with reading(books) as session:
        return list(session.scalars(select(Result).where(Result.job == job_id)))


def note_results(
    books: Books, owner: str, rows: Sequence[Result], destinations: Iterable[tuple[str, frozenset[str]]], now: datetime
) -> None:
    """Record finished files and what is to become of each, before any is sent; a file recorded before stays as it was.

    destinations: name and wanted kinds of each.
    """
    wanted = list(destinations)
    with writing(books) as session:
        held = session.scalar(select(func.count()).select_from(Job).where(_held_by(rows[0].job, owner)))
        if not held:
            raise LeaseLost(f"job {rows[0].job} is no longer ours; its files were not recorded")
        for row in rows:
            values = {c.key: getattr(row, c.key) for c in Result.__table__.columns}
            add(session, Result, Result.sop_instance_uid, **values)
            for destination in (name for name, kinds in wanted if row.kind in kinds):
                add(
                    session,
                    Delivery,
                    Delivery.id,
                    result=row.sop_instance_uid,
                    destination=destination,
                    state=DeliveryState.PENDING,
                    rung=0,
                    attempts=0,
                    next_at=now,
                )
        crashpoint("write.noted")


def _held_by(job_id: str, owner: str) -> ColumnElement[bool]:
    return (Job.id == job_id) & (Job.lease_owner == owner)
