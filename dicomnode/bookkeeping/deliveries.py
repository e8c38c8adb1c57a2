"""The books' sending side: which result is due where, and what each destination answered."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, or_, select, union, update
from sqlalchemy.orm import Session

from dicomnode import audit
from dicomnode.audit import Who
from dicomnode.bookkeeping.audits import append
from dicomnode.bookkeeping.selftests import of_patients
from dicomnode.bookkeeping.store import ACTOR, Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Absence, Confirmation, Delivery, History, Job, Result
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import DeliveryState, Lane, State

STORED = (DeliveryState.SENT, DeliveryState.CONFIRMED)
OPEN = (DeliveryState.PENDING, DeliveryState.SENT)
OFFERED = timedelta(seconds=2)
TAKEN = timedelta(seconds=30)  # for so long nobody else sends a file that was taken


@dataclass(frozen=True, slots=True)
class Due:
    """One finished file to send, or to ask about, now."""

    delivery: int
    path: str
    sop_class: str
    sop_instance_uid: str
    series_instance_uid: str
    attempts: int
    sent_at: datetime | None = None
    transaction_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one file at a destination: the new state, the status in words, and when to try again.

    attempted: False where nothing was tried because the destination is away.
    """

    delivery: int
    state: DeliveryState
    status: str
    next_at: datetime
    confirmed_by: str | None = None
    attempted: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """One file of a storage commitment transaction of ours."""

    job: str
    destination: str
    due: Due


def due(books: Books, job_id: str, destination: str, now: datetime) -> list[Due]:
    """The pending files of a job for one destination, secondary captures first and what failed before last."""
    return _in_state(books, job_id, destination, DeliveryState.PENDING, now)


def take(books: Books, job_id: str, destination: str, now: datetime) -> list[Due]:
    """The same, and for half a minute they are due for nobody else."""
    listed = due(books, job_id, destination, now)
    if not listed:
        return []
    free = (Delivery.state == DeliveryState.PENDING, Delivery.next_at <= now)
    taking = update(Delivery).where(Delivery.id.in_([each.delivery for each in listed]), *free)
    with writing(books) as session:
        taken = set(session.scalars(taking.values(next_at=now + TAKEN).returning(Delivery.id)))
    return [each for each in listed if each.delivery in taken]


def sent(books: Books, job_id: str, destination: str, now: datetime) -> list[Due]:
    """The files of a job that one destination has taken and that are now to be confirmed."""
    return _in_state(books, job_id, destination, DeliveryState.SENT, now)


def deliveries(books: Books, job_id: str) -> Sequence[Delivery]:
    """Every delivery of a job."""
    with reading(books) as session:
        mine = select(Delivery).join(Result, Result.sop_instance_uid == Delivery.result).where(Result.job == job_id)
        return session.scalars(mine.order_by(Delivery.id)).all()


def _in_state(books: Books, job_id: str, destination: str, state: DeliveryState, now: datetime) -> list[Due]:
    mine = (Result.job == job_id, Delivery.destination == destination, Delivery.state == state)
    with reading(books) as session:
        rows = session.execute(
            select(Delivery, Result)
            .join(Result, Result.sop_instance_uid == Delivery.result)
            .where(*mine, Delivery.next_at <= now)
            .order_by(Delivery.attempts, Result.kind.desc(), Delivery.id)
        ).all()
        return [_due(delivery, result) for delivery, result in rows]


def _due(delivery: Delivery, result: Result) -> Due:
    names = (result.path, result.sop_class, result.sop_instance_uid, result.series_instance_uid)
    return Due(delivery.id, *names, delivery.attempts, delivery.sent_at, delivery.transaction_uid)


def note_answers(
    books: Books, job_id: str, destination: str, answers: Sequence[Answer], now: datetime, *, reported: bool = False
) -> None:
    """Record what the destination answered; a line of history for each outcome that is new, with its count.

    reported: the answers are a storage commitment report, which outranks whatever stands in the books; any other answer
    comes too late for a file that is no longer open.
    """
    news: Counter[tuple[DeliveryState, str]] = Counter()
    stored: list[str] = []
    with writing(books) as session:
        for answer in sorted(answers, key=lambda each: each.delivery):  # one order of locks for all workers
            delivery = session.get_one(Delivery, answer.delivery, with_for_update=True)
            if delivery.state not in OPEN and not reported:
                continue
            if (delivery.state, delivery.status) != (answer.state, answer.status):
                news[answer.state, answer.status] += 1
            delivery.state, delivery.status = answer.state, answer.status
            delivery.next_at, delivery.confirmed_by = answer.next_at, answer.confirmed_by
            delivery.attempts += answer.attempted
            if answer.state is DeliveryState.PENDING:
                delivery.sent_at = delivery.transaction_uid = None
            elif delivery.sent_at is None:
                delivery.sent_at = now
                stored += [delivery.result] if answer.state in STORED else []
        if any(state is DeliveryState.CONFIRMED for state, _ in news):
            _note_confirmation(session, destination, now)
        for (state, status), count in news.items():
            note(session, "job", job_id, now, None, f"{count} files {state} at {destination}", status)
        session.flush()
        _tell_audit(session, job_id, destination, stored, now)
        crashpoint("send.noted")
        if reported:  # the next sweep closes the job
            session.execute(update(Job).where(Job.id == job_id).values(enqueued_at=now - 2 * OFFERED))


def _tell_audit(session: Session, job_id: str, destination: str, stored: Sequence[str], now: datetime) -> None:
    """One message for the files that a destination has taken over one association."""
    if not stored:
        return
    study = session.scalars(select(Job.study).where(Job.id == job_id)).one()
    classes = session.scalars(select(Result.sop_class).where(Result.sop_instance_uid.in_(stored)))
    sender = Who(ACTOR, role=audit.SOURCE, requestor=True)
    receiver = Who(destination, role=audit.DESTINATION)
    append(session, audit.transferred(study, Counter(classes), sender, receiver, received=False), now)


def _note_confirmation(session: Session, destination: str, now: datetime) -> None:
    """Of several workers that come at once, the latest moment stays."""
    if add(session, Confirmation, Confirmation.destination, destination=destination, at=now) is None:
        mine = (Confirmation.destination == destination, Confirmation.at < now)
        session.execute(update(Confirmation).where(*mine).values(at=now))


def note_asked(books: Books, deliveries: Sequence[int], transaction_uid: str) -> None:
    """Record a storage commitment transaction before the destination is asked."""
    with writing(books) as session:
        session.execute(update(Delivery).where(Delivery.id.in_(deliveries)).values(transaction_uid=transaction_uid))


def still_sent(books: Books, deliveries: Sequence[int]) -> set[int]:
    """Those of these deliveries that still wait for a confirmation."""
    with reading(books) as session:
        waiting = (Delivery.id.in_(deliveries), Delivery.state == DeliveryState.SENT)
        return set(session.scalars(select(Delivery.id).where(*waiting)))


def asked(books: Books, transaction_uid: str) -> list[Asked]:
    """The files of a storage commitment transaction."""
    with reading(books) as session:
        rows = session.execute(
            select(Delivery, Result)
            .join(Result, Result.sop_instance_uid == Delivery.result)
            .where(Delivery.transaction_uid == transaction_uid)
        ).all()
        return [Asked(result.job, delivery.destination, _due(delivery, result)) for delivery, result in rows]


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
    """Jobs that a sender should look at, strokes first, then the longest waiting; each is offered every two seconds.

    most: of one lane.

    In SENDING: something is due, or nothing is open any more. In DONE, and in FAILED once all files were finished:
    something is due, at an optional destination or after `resend`. A destination that is away has nothing due.
    """
    names = list(destinations)
    # From the deliveries to the jobs, and not from each job to its deliveries: nearly all jobs are done for good.
    due = select(Result.job).join(Delivery, Delivery.result == Result.sop_instance_uid).where(*_is_due(names, now))
    through = select(Job.id).where(Job.state == State.SENDING, ~_open(names).exists())
    finished = or_(Job.state.in_((State.SENDING, State.DONE)), (Job.state == State.FAILED) & was_sending())
    waits = Job.id.in_(union(due, through)) & finished
    offered_before = Job.enqueued_at < now - OFFERED
    by_lane = (case((Job.lane == Lane.STROKE, 0), else_=1), Job.enqueued_at)
    oldest = select(Job.id).where(waits, is_free(now), offered_before).order_by(Job.enqueued_at).limit(most)
    of_each_lane = or_(*(Job.id.in_(oldest.where(Job.lane == lane)) for lane in Lane))
    with writing(books) as session:
        offered = update(Job).where(of_each_lane).values(enqueued_at=now)
        ids = set(session.scalars(offered.returning(Job.id)))
        return list(session.scalars(select(Job.id).where(Job.id.in_(ids)).order_by(*by_lane)))


def stroke_waits(books: Books, destinations: Iterable[str], now: datetime) -> bool:
    """True where a stroke's results are due somewhere and no sender holds them: a routine job makes room."""
    waits = (Job.lane == Lane.STROKE, Job.state == State.SENDING, is_free(now), _due_now(destinations, now).exists())
    with reading(books) as session:
        return session.scalar(select(Job.id).where(*waits).limit(1)) is not None


def resend(
    books: Books, job_id: str, destinations: Iterable[tuple[str, frozenset[str]]], now: datetime, actor: str = ACTOR
) -> dict[str, int]:
    """Make new deliveries of a job's finished files; how many for each destination (name, wanted kinds).

    What stood in there for something refused goes again too. Nothing where the files were never all finished, or were
    made by a self-test. The state of the job stays as it is.
    """
    made: Counter[str] = Counter()
    with writing(books) as session:
        finished = select(Result).join(Job, Job.id == Result.job).where(Job.id == job_id, was_sending())
        finished = finished.where(Job.purged_at.is_(None), of_patients(Job.study))
        finished = finished.with_for_update(of=Job)  # a purge waits, or was before us
        sent = select(Delivery.result, Delivery.destination).join(Result, Result.sop_instance_uid == Delivery.result)
        before = {(result, name) for result, name in session.execute(sent.where(Result.job == job_id))}
        wanted = list(destinations)
        for result in session.scalars(finished).all():
            uid = result.sop_instance_uid
            for destination in (name for name, kinds in wanted if result.kind in kinds or (uid, name) in before):
                renew(session, result.sop_instance_uid, destination, now)
                made[destination] += 1
        for destination, count in made.items():
            why = "resend by an operator"
            note(
                session, "job", job_id, now, None, f"{count} files {DeliveryState.PENDING} at {destination}", why, actor
            )
        if made:
            tell_of_act(session, job_id, "resend", actor, now)
    return dict(made)


def tell_of_act(session: Session, job_id: str, verb: str, actor: str, now: datetime) -> None:
    """An operator has done something about a job."""
    session.flush()
    study = session.scalars(select(Job.study).where(Job.id == job_id)).one()
    append(session, audit.acted(study, job_id, verb, Who(actor, requestor=True)), now)


def renew(session: Session, result: str, destination: str, now: datetime) -> None:
    """A delivery as it is before its first attempt, whatever became of an earlier one."""
    fresh: dict[str, Any] = {"state": DeliveryState.PENDING, "attempts": 0, "next_at": now, "rung": 0}
    blank = dict.fromkeys(("status", "confirmed_by", "sent_at", "transaction_uid"))
    if add(session, Delivery, Delivery.id, result=result, destination=destination, **fresh) is None:
        there = (Delivery.result == result, Delivery.destination == destination)
        session.execute(update(Delivery).where(*there).values(**fresh, **blank))


def was_sending() -> ColumnElement[bool]:
    """All files of the job were finished once."""
    moved = (History.subject == "job", History.subject_id == Job.id, History.after == str(State.SENDING))
    return select(History.id).where(*moved).exists()


def is_free(now: datetime) -> ColumnElement[bool]:
    """Nobody holds the job."""
    return or_(Job.lease_until.is_(None), Job.lease_until < now)


def _open(destinations: Iterable[str]) -> Select[Any]:
    mine = select(Delivery.id).join(Result, Result.sop_instance_uid == Delivery.result).where(Result.job == Job.id)
    return mine.where(Delivery.state.in_(OPEN), Delivery.destination.in_(list(destinations)))


def _due_now(destinations: Iterable[str], now: datetime) -> Select[Any]:
    return _open(destinations).where(*_is_due(destinations, now))


def _is_due(destinations: Iterable[str], now: datetime) -> list[ColumnElement[bool]]:
    away = select(Absence.destination).where(Absence.until > now)
    theirs = Delivery.destination.in_(list(destinations))
    return [Delivery.state.in_(OPEN), theirs, Delivery.next_at <= now, Delivery.destination.not_in(away)]
