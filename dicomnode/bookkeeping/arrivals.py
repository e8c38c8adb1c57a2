"""The books' receiving side: instances, their series, and the associations that brought them."""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.orm import Session
from ulid import ULID

from dicomnode import audit
from dicomnode.audit import Who
from dicomnode.bookkeeping.audits import append
from dicomnode.bookkeeping.store import ACTOR, Books, BooksAway, add, note, reading, writing, writing_rows
from dicomnode.bookkeeping.tables import Association, Base, History, Instance, Job, JobInput, Result, Series, Study
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import NO_MAPS, Lane, SeriesState, State

FILE_MISSING = "file-missing"  # reason code

# What is said for each instance is put into words once.
_SERIES = Base.metadata.tables[Series.__tablename__].c
KNOWN_SERIES = select(_SERIES.series_instance_uid).where(
    _SERIES.series_instance_uid.in_(bindparam("uids", expanding=True))
)
GOES_ON_RECEIVING = (
    update(Base.metadata.tables[Series.__tablename__])
    .where(_SERIES.series_instance_uid == bindparam("uid"), _SERIES.state == SeriesState.RECEIVING)
    .values(last_received_at=bindparam("now"))
    .returning(_SERIES.series_instance_uid)
)


@dataclass(frozen=True, slots=True)
class Peer:
    """The association an instance came over."""

    association: str
    calling_ae_title: str
    address: str
    opened_at: datetime
    lane: Lane


@dataclass(frozen=True, slots=True)
class Received:
    """One instance whose bytes are safely on disk; path is relative to the spool."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    patient_id: str
    accession_number: str
    modality: str
    series_description: str
    transfer_syntax: str
    sha256: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class OpenSeries:
    """A series still in state RECEIVING, with all that judging it needs."""

    series_instance_uid: str
    study_instance_uid: str
    last_received_at: datetime
    open_associations: int
    last_released_at: datetime | None
    instances: tuple[Instance, ...]


class CommitInDoubt(Exception):
    """The database went away while it committed: the rows may stand there or not."""


def note_instance(books: Books, received: Received, peer: Peer, now: datetime) -> bool:
    """Record one instance; False where exactly these bytes are known already. A closed series opens again."""
    return note_instances(books, [(received, peer, now)]) == [None]


def note_instances(
    books: Books, arrivals: Sequence[tuple[Received, Peer, datetime]], met: Set[str] = frozenset()
) -> list[str | None]:
    """Record instances in one transaction; for each None, or the path under which exactly its bytes are known already.

    met: what the caller knows to stand in the books of surroundings(). Raises BooksAway where nothing has been
    recorded, CommitInDoubt where nobody can tell.
    """
    order = sorted(range(len(arrivals)), key=lambda n: _order(arrivals[n][0]))
    known: list[str | None] = [None] * len(arrivals)
    committing = False
    try:
        with writing_rows(books) as connection:
            if strange := [arrivals[n] for n in order if not surroundings(*arrivals[n][:2]) <= met]:
                _note_surroundings(connection, strange)
            for n in order:
                known[n] = _note_instance(connection, *arrivals[n])
            crashpoint("receive.noted")
            committing = True
    except BooksAway as error:
        if committing:
            raise CommitInDoubt(str(error.orig)) from error
        raise
    return known


def surroundings(received: Received, peer: Peer) -> frozenset[str]:
    """The rows that an instance belongs to, which outlive it: they are never deleted."""
    return frozenset((peer.association, f"{received.study_instance_uid} {received.series_instance_uid}"))


def _order(received: Received) -> tuple[str, str]:
    """Two transactions that touch the same rows touch them in the same order, so that neither waits for the other."""
    return received.series_instance_uid, received.sop_instance_uid


def _note_instance(connection: Connection, received: Received, peer: Peer, now: datetime) -> str | None:
    new = add(
        connection,
        Instance,
        Instance.id,
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        patient_id=received.patient_id.strip(),
        sha256=received.sha256,
        series=received.series_instance_uid,
        path=received.path,
        bytes=received.bytes,
        transfer_syntax=received.transfer_syntax,
        calling_ae_title=peer.calling_ae_title,
        association=peer.association,
        received_at=now,
    )
    if new is not None:
        _touch(connection, received.series_instance_uid, now)
        return None
    these = (Instance.sop_instance_uid == received.sop_instance_uid, Instance.sha256 == received.sha256)
    gone = update(Instance).where(*these, Instance.purged_at.is_not(None))
    back = gone.values(purged_at=None, path=received.path).returning(Instance.id)
    if connection.scalar(back) is not None:
        mine = Series.series_instance_uid == received.series_instance_uid
        connection.execute(update(Series).where(mine).values(purged_at=None))
    _judge_again(connection, received.series_instance_uid, now)
    return connection.scalar(select(Instance.path).where(*these))


def _note_surroundings(connection: Connection, arrivals: Sequence[tuple[Received, Peer, datetime]]) -> None:
    """The associations, studies and series that the instances belong to, each recorded by whoever comes first."""
    for peer in {peer.association: peer for _, peer, _ in arrivals}.values():
        add(
            connection,
            Association,
            Association.id,
            id=peer.association,
            calling_ae_title=peer.calling_ae_title,
            address=peer.address,
            opened_at=peer.opened_at,
        )
    first = {received.series_instance_uid: (received, peer, now) for received, peer, now in reversed(arrivals)}
    known = connection.scalars(KNOWN_SERIES, {"uids": list(first)}).all()
    for uid in sorted(first.keys() - set(known)):
        _note_series(connection, *first[uid])


def _note_series(connection: Connection, received: Received, peer: Peer, now: datetime) -> None:
    add(
        connection,
        Study,
        Study.study_instance_uid,
        study_instance_uid=received.study_instance_uid,
        id=str(ULID.from_datetime(now)),
        patient_id=received.patient_id,
        patient_name="",
        study_date="",
        accession_number=received.accession_number,
        lane=peer.lane,
    )
    opened = add(
        connection,
        Series,
        Series.series_instance_uid,
        series_instance_uid=received.series_instance_uid,
        study=received.study_instance_uid,
        modality=received.modality,
        description=received.series_description,
        state=SeriesState.RECEIVING,
        last_received_at=now,
    )
    if opened:
        why = f"first instance, from {peer.calling_ae_title}"
        note(connection, "series", opened, now, None, SeriesState.RECEIVING, why)


def _judge_again(connection: Connection, series_instance_uid: str, now: datetime) -> None:
    """What was refused and is sent again unchanged is judged again: the settings may have changed."""
    refused = (Series.series_instance_uid == series_instance_uid, Series.state == SeriesState.REFUSED)
    if connection.scalar(update(Series).where(*refused).values(state=SeriesState.RECEIVING).returning(Series.study)):
        note(connection, "series", series_instance_uid, now, SeriesState.REFUSED, SeriesState.RECEIVING, "sent again")


def _touch(connection: Connection, series_instance_uid: str, now: datetime) -> None:
    """A new instance came: the series is receiving, again if it was closed."""
    if connection.scalar(GOES_ON_RECEIVING, {"uid": series_instance_uid, "now": now}):
        return
    connection.execute(
        update(Series)
        .where(Series.series_instance_uid == series_instance_uid)
        .values(state=SeriesState.RECEIVING, reason_code=None, reason=None, completed_by=None, last_received_at=now)
        .values(purged_at=None)
    )
    note(connection, "series", series_instance_uid, now, "closed", SeriesState.RECEIVING, "a late instance arrived")


def move_instance(books: Books, path: str, to: str) -> None:
    """The file of an instance has gone; exactly its bytes lie elsewhere now."""
    with writing(books) as session:
        session.execute(update(Instance).where(Instance.path == path).values(path=to))


def instance_paths(books: Books) -> Iterator[tuple[str, str, bool]]:
    """Path and series of every instance, and whether its file is marked as removed."""
    with reading(books) as session:
        rows = select(Instance.path, Instance.series, Instance.purged_at).execution_options(yield_per=1000)
        yield from ((path, series, purged is not None) for path, series, purged in session.execute(rows))


def note_missing(books: Books, series_instance_uid: str, why: str, now: datetime) -> bool:
    """Files of a series are gone; False where that is known. A series still receiving is refused, to be sent again."""
    noted = (History.subject == "instance", History.subject_id == series_instance_uid, History.why == why)
    with writing(books) as session:
        if session.scalar(select(History.id).where(*noted).limit(1)):
            return False
        note(session, "instance", series_instance_uid, now, None, FILE_MISSING, why)
        receiving = (Series.series_instance_uid == series_instance_uid, Series.state == SeriesState.RECEIVING)
        refused = update(Series).where(*receiving)
        refused = refused.values(state=SeriesState.REFUSED, reason_code=FILE_MISSING, reason=why)
        if session.scalar(refused.returning(Series.study)):
            note(session, "series", series_instance_uid, now, SeriesState.RECEIVING, SeriesState.REFUSED, why)
        return True


def release(books: Books, association: str, now: datetime) -> None:
    """The association ended, however it ended."""
    with writing(books) as session:
        mine = (Association.id == association, Association.released_at.is_(None))
        ended = session.scalars(update(Association).where(*mine).values(released_at=now).returning(Association))
        _tell_audit(session, ended.all(), now)


def release_all(books: Books, now: datetime, ending: str = "") -> int:
    """A listener that starts has no associations: those its predecessor left open have ended.

    ending: only those whose id ends so, which is how receivers that share a port tell theirs from the others'.
    """
    with writing(books) as session:
        mine = (Association.released_at.is_(None), Association.id.endswith(ending, autoescape=True))
        left = update(Association).where(*mine).values(released_at=now)
        ended = session.scalars(left.returning(Association)).all()
        _tell_audit(session, ended, now)
        return len(ended)


def _tell_audit(session: Session, ended: Sequence[Association], now: datetime) -> None:
    """One message for each study that an association has brought instances of."""
    for association in ended:
        came = select(Series.study, Instance.sop_class_uid, func.count())
        came = came.join(Series, Series.series_instance_uid == Instance.series)
        came = came.where(Instance.association == association.id).group_by(Series.study, Instance.sop_class_uid)
        studies: dict[str, dict[str, int]] = {}
        for study, sop_class, count in session.execute(came):
            studies.setdefault(study, {})[sop_class] = count
        sender = Who(association.calling_ae_title, association.address, audit.SOURCE, requestor=True)
        for study, counts in sorted(studies.items()):
            message = audit.transferred(study, counts, sender, Who(ACTOR, role=audit.DESTINATION), received=True)
            append(session, message, now)


def receiving(books: Books) -> list[OpenSeries]:
    """Every series in state RECEIVING, the longest quiet first."""
    with reading(books) as session:
        rows = session.scalars(
            select(Series).where(Series.state == SeriesState.RECEIVING).order_by(Series.last_received_at)
        ).all()
        return [_open_series(session, series) for series in rows]


def _open_series(session: Session, series: Series) -> OpenSeries:
    received = session.scalars(
        select(Instance)
        .where(Instance.series == series.series_instance_uid, Instance.purged_at.is_(None))
        .order_by(Instance.id)
    ).all()
    newest = {instance.sop_instance_uid: instance for instance in received}  # sent again with other bytes, it is one
    still_open, last_released = session.execute(
        select(func.count().filter(Association.released_at.is_(None)), func.max(Association.released_at)).where(
            Association.id.in_({instance.association for instance in received})
        )
    ).one()
    return OpenSeries(
        series_instance_uid=series.series_instance_uid,
        study_instance_uid=series.study,
        last_received_at=series.last_received_at,
        open_associations=still_open,
        last_released_at=last_released,
        instances=tuple(newest.values()),
    )


def close_series(
    books: Books,
    series: OpenSeries,
    after: SeriesState,
    why: str,
    now: datetime,
    *,
    code: str | None = None,
    completed_by: str | None = None,
) -> bool:
    """Close a receiving series; False where an instance came in since it was read, so it must be judged again."""
    with writing(books) as session:
        closed = session.scalar(
            update(Series)
            .where(
                Series.series_instance_uid == series.series_instance_uid,
                Series.state == SeriesState.RECEIVING,
                Series.last_received_at == series.last_received_at,
            )
            .values(state=after, reason_code=code, reason=why, completed_by=completed_by)
            .returning(Series.series_instance_uid)
        )
        if closed:
            note(session, "series", closed, now, SeriesState.RECEIVING, after, why)
            session.flush()
            crashpoint("series.noted")
        return closed is not None


def describe_study(books: Books, study_instance_uid: str, patient_name: str, study_date: str) -> None:
    """Record what a study is looked for by, once a series of it has been read as a whole."""
    nameless = (Study.study_instance_uid == study_instance_uid, Study.patient_name == "", Study.study_date == "")
    with writing(books) as session:
        session.execute(update(Study).where(*nameless).values(patient_name=patient_name, study_date=study_date))


def are_ours(books: Books, sop_instance_uids: Iterable[str]) -> bool:
    """True where one of these is a result of this node: our own object has come back."""
    with reading(books) as session:
        wanted: Sequence[str] = list(sop_instance_uids)
        return (
            session.scalar(select(Result.sop_instance_uid).where(Result.sop_instance_uid.in_(wanted)).limit(1))
            is not None
        )


def patients(books: Books, study_instance_uid: str) -> set[str]:
    """The patients that the instances of a study name; of those sent again, the newest counts."""
    with reading(books) as session:
        mine = select(func.max(Instance.id)).join(Series).where(Series.study == study_instance_uid)
        newest = mine.group_by(Instance.sop_instance_uid)
        found = session.scalars(select(Instance.patient_id).where(Instance.id.in_(newest)).distinct())
        return {patient for patient in found if patient}


def reopen(books: Books, study_instance_uid: str, code: str, why: str, now: datetime) -> None:
    """The series of a study that were refused with this code are judged again: its cause has gone."""
    refused = (
        Series.study == study_instance_uid,
        Series.state == SeriesState.REFUSED,
        Series.reason_code == code,
        Series.purged_at.is_(None),
    )
    with reading(books) as session:
        if session.scalar(select(Series.study).where(*refused).limit(1)) is None:
            return
    with writing(books) as session:
        reopened = update(Series).where(*refused).values(state=SeriesState.RECEIVING, reason_code=None, reason=None)
        for uid in session.scalars(reopened.returning(Series.series_instance_uid)).all():
            note(session, "series", uid, now, SeriesState.REFUSED, SeriesState.RECEIVING, why)


def note_refusal(books: Books, subject: str, subject_id: str, code: str, why: str, now: datetime) -> None:
    """Something was refused at the door; nothing else of it is kept in the books."""
    with writing(books) as session:
        note(session, subject, subject_id, now, None, code, why)


def note_rejection(
    books: Books, calling_ae_title: str, address: str, code: str, why: str, now: datetime, times: int = 1
) -> None:
    """Somebody was turned away at the door; times: as often as since it was last told."""
    with writing(books) as session:
        note(session, "association", address, now, None, code, why)
        append(session, audit.refused(code, Who(calling_ae_title, address, requestor=True), times), now)


def selected_series(books: Books, study_instance_uid: str) -> OpenSeries | None:
    """The series of the study that the newest maps are, or are being, made from."""
    with reading(books) as session:
        series = session.scalar(
            select(Series)
            .join(Instance, Instance.series == Series.series_instance_uid)
            .join(JobInput, JobInput.instance == Instance.id)
            .join(Job, Job.id == JobInput.job)
            .where(
                Job.study == study_instance_uid,
                Job.route != NO_MAPS,
                Job.state.not_in((State.REJECTED, State.FAILED)),
                Instance.purged_at.is_(None),
            )
            .order_by(Job.revision.desc())
            .limit(1)
        )
        return _open_series(session, series) if series else None
