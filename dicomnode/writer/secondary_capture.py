"""Colour Secondary Capture: one per slice and map, for every viewer there is (PS3.3 A.8.1).

The frame of reference, position and orientation of the slice are added although the IOD has no such module: a Standard
Extended SOP Class, by which viewers sort the captures like the CT and link their scrolling.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from math import ceil

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.writer import burn, capture, codes, common, plane
from dicomnode.writer.palette import colour
from dicomnode.writer.study import Study
from inference.maps import MapKind, PerfusionMap

FIRST_SERIES_NUMBER = 9001
SMALLEST_MATRIX = 512  # below it lettering of 13 pixels no longer fits beside the head


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What the captures of one map say of themselves.

    kind, name: of their UIDs. number, description: of the series. what: the title, in words. bar: the scale. notices:
    lines below the disclaimer at the top.
    """

    kind: str
    name: str
    number: int
    description: str
    what: str
    bar: burn.Bar
    notices: tuple[burn.Line, ...]


def write(study: Study, perfusion_map: PerfusionMap, indices: Sequence[int]) -> Iterator[Dataset]:
    """The captures of one map for the slices named, in that order."""
    kind = perfusion_map.kind
    number = common.series_number(FIRST_SERIES_NUMBER, kind)
    description = common.series_description(study, kind.name)
    notices = tuple(capture.cautions(study))
    series = Series("sc", kind.name, number, description, kind.title, bar(study, kind), notices)
    return captures(study, perfusion_map, indices, series)


def captures(study: Study, perfusion_map: PerfusionMap, indices: Sequence[int], series: Series) -> Iterator[Dataset]:
    """One map in colours, a capture for each of the slices named."""
    kind, brain = perfusion_map.kind, study.brain
    _, rows, columns = study.volume.hu.shape
    factor = enlargement((rows, columns))
    template = _template(study, series)
    overlay = cache(partial(_overlay, study, series, (rows * factor, columns * factor)))
    for index in indices:
        rgb = enlarged(colour(perfusion_map.values[index], kind.ceiling, brain[index]), factor)
        overlay(not brain[index].any()).onto(rgb)
        ds = deepcopy(template)  # shared elements would change in all captures when one is changed
        ds.InstanceNumber = index + 1
        plane.lay(ds, study.source[index], factor)
        ds.SourceImageSequence = [plane.reference(study.source[index], same_grid=factor == 1)]
        capture.set_pixels(ds, rgb)
        uid = study.uid(series.kind, series.name, index)
        yield common.finish(ds, SecondaryCaptureImageStorage, uid, study.software_version)


def enlargement(shape: tuple[int, ...]) -> int:
    """The integer by which a matrix (rows, columns) is enlarged so that the lettering can be read."""
    return ceil(SMALLEST_MATRIX / min(shape))


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel repeated `factor` times along rows and columns."""
    return image if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def _template(study: Study, series: Series) -> Dataset:
    """What all captures of one map share."""
    ds = common.base(study)
    ds.SeriesInstanceUID = study.uid(series.kind, series.name, "series")
    ds.SeriesNumber = series.number
    ds.SeriesDescription = series.description
    ds.ImageComments = common.comments(study)
    ds.DerivationDescription = common.derivation(study, series.what)
    ds.DerivationCodeSequence = [deepcopy(codes.SYNTHETIC_PERFUSION)]
    capture.describe(ds)
    plane.into_frame_of_reference(ds, study)
    ds.PatientOrientation = plane.patient_orientation(study.volume.row_direction, study.volume.column_direction)
    return ds


def _overlay(study: Study, series: Series, shape: tuple[int, int], empty: bool) -> burn.Overlay:
    """The lettering of one map: what it is, what it is not, which side is which, what a colour means, who made it.

    shape: (rows, columns) of the capture; empty: for the slices without brain, which say so.
    """
    sheet = burn.Sheet(*shape)
    sheet.stack(0.5, 0.05, [burn.Line(common.DISCLAIMER, 20, burn.YELLOW), *series.notices])
    sheet.stack_up(0.03, 0.86, 0.27, [burn.Line(text, 12, burn.ORANGE) for text in study.warnings], "la")
    sheet.stack_up(0.5, 0.98, 0.94, capture.footer(study, series.what))
    if empty:
        sheet.text(0.5, 0.5, burn.Line("no map in this slice", 15, burn.GREY))
    burn.sides(sheet, study.volume.row_direction, study.volume.column_direction)
    sheet.bar(series.bar)
    return sheet.overlay()


def bar(study: Study, kind: MapKind) -> burn.Bar:
    """The scale of a map: numbers in its unit, the last one ">=", or only low and high where units are relative."""
    if study.manifest.units == "relative":
        return burn.Bar(kind.name, codes.ARBITRARY_UNIT, ("low", "high"))
    steps = next((n for n in (4, 5, 3, 6) if kind.ceiling / n % 0.5 == 0), 4)
    ticks = [f"{kind.ceiling * i / steps:g}" for i in range(steps + 1)]
    return burn.Bar(kind.name, kind.unit, (*ticks[:-1], f">={ticks[-1]}"))
