"""The DICOM objects of a finished job, one file per object over what they have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from pydicom import Dataset

from dicomnode.writer import parametric_map, secondary_capture
from dicomnode.writer.air import synthetic_words
from dicomnode.writer.study import Study, result_uid

__all__ = ["Rendered", "Study", "plan", "result_uid", "write"]

Wanted = Callable[[str, str, int], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One object, ready to save: kind "sc" or "pm", name of the map, index of the slice (0 for a parametric map)."""

    kind: str
    map: str
    index: int
    dataset: Dataset


def plan(study: Study) -> list[tuple[str, str, int]]:
    """(kind, map, index) of all that can be written for a study, in the order of writing: captures first.

    A source without a frame of reference, or with a matrix that web viewers cannot lay over it, gets captures only.
    """
    slices = range(len(study.source))
    captures = [("sc", m.kind.name, i) for m in study.maps for i in slices]
    parametric = [("pm", m.kind.name, 0) for m in study.maps] if parametric_map.possible(study) else []
    return captures + parametric


def write(study: Study, wanted: Wanted = lambda kind, name, index: True) -> Iterator[Rendered]:
    """Render what is planned and wanted, one object at a time; a job that is resumed wants only what it lacks."""
    brain, words = study.brain, cache(lambda: list(synthetic_words(study.volume)))
    missing = [item for item in plan(study) if wanted(*item)]
    for perfusion_map in study.maps:
        name = perfusion_map.kind.name
        indices = [i for kind, of, i in missing if (kind, of) == ("sc", name)]
        captures = secondary_capture.write(study, perfusion_map, brain, indices)
        for index, ds in zip(indices, captures, strict=True):
            yield Rendered("sc", name, index, ds)
    for perfusion_map in study.maps:
        if ("pm", perfusion_map.kind.name, 0) in missing:
            yield Rendered("pm", perfusion_map.kind.name, 0, parametric_map.write(study, perfusion_map, words()))
