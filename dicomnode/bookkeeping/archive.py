"""What DICOMweb gives out: our results to everybody who may read, received instances to operators only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.bookkeeping.store import Books, reading
from dicomnode.bookkeeping.tables import Instance, Job, Result, Series, Study

_KEPT = Job.purged_at.is_(None)


@dataclass(frozen=True, slots=True)
class Held:
    """One instance on disk. kind: of a result, else empty; modality: of a received instance, else empty."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    path: str
    kind: str = ""
    modality: str = ""


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """One study as a search finds it. kinds: of its results; modalities: of its received series."""

    study: Study
    kinds: frozenset[str]
    modalities: frozenset[str]
    series: int
    instances: int
    path: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; each given value must match. Patterns have * and ? (PS3.4 C.2.2.2.4)."""

    study_instance_uids: tuple[str, ...] = ()
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    earliest_date: str = ""
    latest_date: str = ""
    kinds: frozenset[str] | None = None
    modality: str = ""


def find_held(books: Books, study: str, *, series: str = "", instance: str = "", received: bool = False) -> list[Held]:
    """The instances of a study, or of a series or one of them; results first. received: those too that came to us."""
    with reading(books) as session:
        columns = (Job.study, Result.series_instance_uid, Result.sop_instance_uid, Result.sop_class, Result.path)
        ours = select(*columns, Result.kind).join(Job, Job.id == Result.job).where(Job.study == study, _KEPT)
        ours = ours.where(*_only((Result.series_instance_uid, series), (Result.sop_instance_uid, instance)))
        order = (Result.series_instance_uid, Result.index, Result.sop_instance_uid)
        found = [Held(*row) for row in session.execute(ours.order_by(*order))]
        return found + (_received(session, study, series, instance) if received else [])


def _received(session: Session, study: str, series: str, instance: str) -> list[Held]:
    columns = (Series.study, Instance.series, Instance.sop_instance_uid, Instance.sop_class_uid, Instance.path)
    theirs = select(*columns, Series.modality).join(Series, Series.series_instance_uid == Instance.series)
    theirs = theirs.where(
        Series.study == study,
        Instance.purged_at.is_(None),
        *_only((Instance.series, series), (Instance.sop_instance_uid, instance)),
    )
    rows = session.execute(theirs.order_by(Instance.series, Instance.id))
    newest = {uid: Held(study, of, uid, kind, path, "", mod) for study, of, uid, kind, path, mod in rows}
    return list(newest.values())  # sent again with other bytes, the last counts


def _only(*wanted: tuple[InstrumentedAttribute[str], str]) -> list[ColumnElement[bool]]:
    return [column == value for column, value in wanted if value]


def find_studies_held(books: Books, wanted: Wanted, limit: int, offset: int, *, received: bool) -> list[HeldStudy]:
    """Studies with results (received: or with anything at all), the newest first."""
    has_results = (
        select(Result.sop_instance_uid)
        .join(Job, Job.id == Result.job)
        .where(Job.study == Study.study_instance_uid, _KEPT)
    )
    conditions = [*_conditions(wanted)]
    if not received:
        conditions.append(has_results.exists())
    if wanted.kinds is not None or wanted.modality:
        of_kind = has_results.where(Result.kind.in_(wanted.kinds or ())).exists()
        theirs = select(Series.study).where(
            Series.study == Study.study_instance_uid, Series.modality == wanted.modality, Series.purged_at.is_(None)
        )
        conditions.append(or_(of_kind, theirs.exists()) if received else of_kind)
    newest = select(Study).where(*conditions).order_by(Study.id.desc()).limit(limit).offset(offset)
    with reading(books) as session:
        return _with_counts(session, session.scalars(newest).all(), received)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.study_instance_uids:
        conditions.append(Study.study_instance_uid.in_(wanted.study_instance_uids))
    for column, pattern in (
        (Study.patient_id, wanted.patient_id),
        (Study.accession_number, wanted.accession_number),
    ):
        if pattern:
            conditions.append(_matches(column, pattern))
    if wanted.patient_name:  # PS3.4 C.2.2.2.1: case may be ignored for names
        pattern = wanted.patient_name if set(wanted.patient_name) & set("*?") else wanted.patient_name + "*"
        conditions.append(_like(Study.patient_name, pattern))
    date = func.coalesce(Study.study_date, "")  # not the index: a wide range would be sorted whole for one page of it
    if wanted.earliest_date:
        conditions.append(date >= wanted.earliest_date)
    if wanted.latest_date:
        conditions.append(and_(date <= wanted.latest_date, date != ""))
    return conditions


def _matches(column: InstrumentedAttribute[str], pattern: str) -> ColumnElement[bool]:
    return _like(column, pattern) if set(pattern) & set("*?") else column == pattern


def _like(column: InstrumentedAttribute[str], pattern: str) -> ColumnElement[bool]:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.ilike(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _with_counts(session: Session, studies: Sequence[Study], received: bool) -> list[HeldStudy]:
    uids = [study.study_instance_uid for study in studies]
    ours: dict[str, list[tuple[str, str, int, str]]] = {uid: [] for uid in uids}
    columns = (Job.study, Result.series_instance_uid, Result.kind, func.count(), func.min(Result.path))
    counted = select(*columns).join(Job, Job.id == Result.job).where(Job.study.in_(uids), _KEPT)
    rows = session.execute(counted.group_by(Job.study, Result.series_instance_uid, Result.kind))
    for study, series, kind, n, path in rows:
        ours[study].append((series, kind, n, path))
    theirs = _received_counts(session, uids) if received else {}
    return [
        HeldStudy(
            study=study,
            kinds=frozenset(kind for _, kind, _, _ in ours[study.study_instance_uid]),
            modalities=frozenset(modality for modality, _, _ in theirs.get(study.study_instance_uid, ())),
            series=len({uid for uid, *_ in ours[study.study_instance_uid]})
            + len(theirs.get(study.study_instance_uid, ())),
            instances=sum(n for _, _, n, _ in ours[study.study_instance_uid])
            + sum(n for _, n, _ in theirs.get(study.study_instance_uid, ())),
            path=next(
                (path for _, _, _, path in ours[study.study_instance_uid]),
                next((path for _, _, path in theirs.get(study.study_instance_uid, ())), ""),
            ),
        )
        for study in studies
    ]


def _received_counts(session: Session, uids: Collection[str]) -> dict[str, list[tuple[str, int, str]]]:
    """By study, of each received series: modality, instances, the path of one."""
    found: dict[str, list[tuple[str, int, str]]] = {}
    columns = (Series.study, Series.series_instance_uid, Series.modality)
    counted = select(*columns, func.count(Instance.sop_instance_uid.distinct()), func.min(Instance.path))
    counted = counted.join(Instance, Instance.series == Series.series_instance_uid)
    counted = counted.where(Series.study.in_(uids), Instance.purged_at.is_(None))
    for study, _, modality, n, path in session.execute(counted.group_by(*columns)):
        found.setdefault(study, []).append((modality, n, path))
    return found
