"""Captures of a map at another perfusion information ratio (models.md 1.3): pictures to look at, without unit.

The ratio stands in the pixels and in the Series Description. A quantitative object is never made at any ratio but 0.5.
"""

from collections.abc import Iterator, Sequence

from pydicom import Dataset

from dicomnode.writer import burn, capture, common
from dicomnode.writer.secondary_capture import Series, captures
from dicomnode.writer.study import Study
from inference.maps import MapKind, PerfusionMap

KIND = "pilo"
FIRST_SERIES_NUMBER = 9501
TRAINED = 50  # percent; of the maps that are written anyway
NO_UNIT = "exploratory, no unit"  # in place of the unit, at any other ratio


def name_of(kind: MapKind, percent: int) -> str:
    """By which the captures of one map at one ratio are known, in UIDs and names of files."""
    return f"{kind.name}-r{percent:03d}"


def write(study: Study, perfusion_map: PerfusionMap, indices: Sequence[int], percent: int) -> Iterator[Dataset]:
    """The captures of one map made at a ratio, in percent, for the slices named; the study's maps are of that ratio."""
    if percent == TRAINED or not 0 <= percent <= 100:
        raise ValueError(f"exploratory captures are of ratios from 0 to 100 percent without {TRAINED}, got {percent}")
    kind, ratio = perfusion_map.kind, f"{percent / 100:.2f}"
    notices = (
        burn.Line(f"PERFUSION INFORMATION RATIO {ratio}", 18, burn.RED),
        burn.Line("EXPLORATORY, NO UNIT: do not measure", 15, burn.RED),
        *capture.cautions(study),
    )
    series = Series(
        kind=KIND,
        name=name_of(kind, percent),
        number=common.series_number(FIRST_SERIES_NUMBER, kind),
        description=common.series_description(study, kind.name, f"ratio {ratio} no unit"),
        what=f"{kind.title} at ratio {ratio}, {NO_UNIT}",
        bar=burn.Bar(kind.name, NO_UNIT, ("low", "high")),
        notices=notices,
    )
    return captures(study, perfusion_map, indices, series)
