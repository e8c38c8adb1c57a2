"""Which head CT goes with which maps: one study of each patient, head and maps at most some hours apart."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydicom.uid import UID, CTImageStorage, ParametricMapStorage

from training.cohort import Rejected
from training.cohort.series import Series, by_study, is_bone

QUANTITATIVE = (ParametricMapStorage, CTImageStorage)  # before captures, where a study has both


@dataclass(frozen=True, slots=True)
class Pair:
    """What one patient brings: Patient ID and study of the maps, as in the headers; a map series for each kind."""

    patient_id: str
    study_instance_uid: str
    maps: dict[str, Series]
    ncct: Series
    ctp: Series | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a study: why it was rejected, empty where it is used; warnings and unused series in words."""

    study_instance_uid: str
    patient: str
    why: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """kinds: that every study must have. hours: at most, between the head CT and the maps."""

    kinds: tuple[str, ...]
    hours: float


def pair_all(series: Iterable[Series], wanted: Wanted) -> tuple[list[Pair], list[tuple[str, str, str]]]:
    """The pairs, and (Patient ID, study, why) of every study that gives none."""
    studies = by_study(series)
    heads: dict[str, list[Series]] = defaultdict(list)
    for (patient_id, _), members in studies.items():
        heads[patient_id] += [one for one in members if one.role == "ncct"]
    pairs: list[Pair] = []
    rejected = []
    for (patient_id, study), members in sorted(studies.items(), key=lambda item: item[0]):
        try:
            if not patient_id:
                raise Rejected("the study has no Patient ID, so it cannot be kept apart from other splits")
            pairs.append(_pair(patient_id, study, members, heads[patient_id], wanted))
        except Rejected as problem:
            rejected.append((patient_id, study, str(problem)))
    return pairs, rejected


def _pair(patient_id: str, study: str, members: Sequence[Series], heads: Sequence[Series], wanted: Wanted) -> Pair:
    maps = _maps(members)
    ctp = max((one for one in members if one.role == "ctp"), key=lambda one: len(one.files), default=None)
    if missing := [kind for kind in wanted.kinds if kind not in maps]:
        if ctp and not maps:
            raise Rejected("CT perfusion without maps; this release has no deconvolution to make them")
        raise Rejected(f"no map of {', '.join(missing)} was found")
    ncct = _nearest(maps, heads, study, wanted.hours)
    return Pair(patient_id, study, {kind: maps[kind] for kind in wanted.kinds}, ncct, ctp)


def _maps(members: Sequence[Series]) -> dict[str, Series]:
    """One series for each kind: quantitative ones before captures, the latest of equals."""
    found = sorted((one for one in members if one.role == "map"), key=_worth)
    return {one.kind: one for one in found}


def _worth(series: Series) -> tuple[bool, float, int]:
    sop_class: UID = series.header.SOPClassUID
    when = series.when
    return sop_class in QUANTITATIVE, when.timestamp() if when else 0.0, int(series.header.get("SeriesNumber") or 0)


def _nearest(maps: dict[str, Series], heads: Sequence[Series], study: str, hours: float) -> Series:
    """The head CT to use: of the same study, not of bone, many slices, near in time, in this order of weight."""
    if not heads:
        raise Rejected("no head CT without contrast was found for this patient")
    close = [one for one in heads if all(_apart(one, other) <= timedelta(hours=hours) for other in maps.values())]
    if not close:
        raise Rejected(f"head CT and maps lie more than {hours:g} h apart, or do not say when they were made")
    if not (soft := [one for one in close if not is_bone(one)]):
        raise Rejected("the only head CT is a reconstruction of bone")
    first = next(iter(maps.values()))
    return min(
        soft,
        key=lambda one: (
            one.header.StudyInstanceUID != study,
            -len(one.files),
            _apart(one, first),
            one.header.SeriesInstanceUID,
        ),
    )


def _apart(one: Series, other: Series) -> timedelta:
    if one.when is None or other.when is None:
        return timedelta.max
    return abs(one.when - other.when)
