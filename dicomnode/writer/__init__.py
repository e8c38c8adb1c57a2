"""The DICOM objects of a finished job, one file per object over what they have in common."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydicom import Dataset

from dicomnode.writer import (
    derived_ct,
    mosaic,
    note,
    parametric_map,
    pdf,
    pilo,
    report,
    secondary_capture,
    segmentation,
)
from dicomnode.writer.study import Replaced, Study, result_uid
from inference.maps import PerfusionMap

__all__ = ["ALWAYS", "OBJECTS", "Kind", "Rendered", "Replaced", "Study", "explore", "plan", "result_uid", "write"]

ALWAYS = ("sc", "pm")  # made for every job, so that a destination may ask for them later

Item = tuple[str, str, int]  # kind, map, index
Wanted = Callable[[str, str, int], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One object, ready to save: its kind, its map, the index of its slice (0 for what holds all slices)."""

    kind: str
    map: str
    index: int
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    plan: (map, index) of all of them in a study, in the order of writing; none where the study cannot have them.
    write: the data sets of one map for the indices named, in that order.
    """

    plan: Callable[[Study], list[tuple[str, int]]]
    write: Callable[[Study, str, Sequence[int]], Iterator[Dataset]]


def _per_slice(
    render: Callable[[Study, PerfusionMap, Sequence[int]], Iterator[Dataset]],
    possible: Callable[[Study], bool] = lambda study: True,
) -> Kind:
    """A kind with one object per map and slice."""

    def plan(study: Study) -> list[tuple[str, int]]:
        slices = range(len(study.source))
        return [(m.kind.name, index) for m in study.maps for index in slices] if possible(study) else []

    return Kind(plan, lambda study, name, indices: render(study, study.map_named(name), indices))


def _per_map(render: Callable[[Study, PerfusionMap], Dataset], possible: Callable[[Study], bool]) -> Kind:
    """A kind with one object per map."""

    def plan(study: Study) -> list[tuple[str, int]]:
        return [(m.kind.name, 0) for m in study.maps] if possible(study) else []

    return Kind(plan, lambda study, name, indices: (render(study, study.map_named(name)) for _ in indices))


def _report(kind: str) -> Kind:
    """The structured report, as one of its classes."""
    return Kind(report.plan, lambda study, name, indices: (report.write(study, kind) for _ in indices))


OBJECTS: dict[str, Kind] = {  # by the names that a destination uses, in the order of writing
    "sc": _per_slice(secondary_capture.write),
    "pm": _per_map(parametric_map.write, parametric_map.possible),
    "ct": _per_slice(derived_ct.write, derived_ct.possible),
    "seg": Kind(segmentation.plan, lambda study, name, indices: (segmentation.write(study, name) for _ in indices)),
    "mosaic": Kind(mosaic.plan, lambda study, name, indices: (mosaic.write(study) for _ in indices)),
    **{kind: _report(kind) for kind in report.CLASSES},
    "pdf": Kind(pdf.plan, lambda study, name, indices: (pdf.write(study) for _ in indices)),
    "note": Kind(note.plan, lambda study, name, indices: (note.write(study) for _ in indices)),
}


def plan(study: Study, kinds: Collection[str] = ALWAYS) -> list[Item]:
    """(kind, map, index) of all that can be written of these kinds for a study, in the order of writing.

    A source without a frame of reference, or with a matrix that web viewers cannot lay over it, gets captures only.
    """
    return [(kind, *item) for kind, of in OBJECTS.items() if kind in kinds for item in of.plan(study)]


def write(
    study: Study, wanted: Wanted = lambda kind, name, index: True, kinds: Collection[str] = ALWAYS
) -> Iterator[Rendered]:
    """Render what is planned and wanted, one object at a time; a job that is resumed wants only what it lacks."""
    missing = [item for item in plan(study, kinds) if wanted(*item)]
    for (kind, name), items in groupby(missing, key=lambda item: item[:2]):
        indices = [index for *_, index in items]
        for index, ds in zip(indices, OBJECTS[kind].write(study, name, indices), strict=True):
            yield Rendered(kind, name, index, ds)


def explore(study: Study, percent: int, wanted: Wanted = lambda kind, name, index: True) -> Iterator[Rendered]:
    """Captures of maps made at another perfusion information ratio, in percent: pictures without unit, nothing else."""
    for each in study.maps:
        name = pilo.name_of(each.kind, percent)
        indices = [index for index in range(len(study.source)) if wanted(pilo.KIND, name, index)]
        for index, ds in zip(indices, pilo.write(study, each, indices, percent), strict=True):
            yield Rendered(pilo.KIND, name, index, ds)
