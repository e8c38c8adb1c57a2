"""Is a series whole? Geometry first, the timer as the last resort (design contract 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from dicomnode.config import Completeness

NEIGHBOUR_RATIO = 1.5  # a step this much longer than both its neighbours is a gap
THICKNESS_RATIO, THICKNESS_SLACK = 1.25, 0.5  # and so is one longer than 1.25 x SliceThickness + 0.5 mm
COVERAGE = 80.0  # mm along the normal that a contiguous head series spans at least
SAME_PLACE = 0.01  # mm; closer than this, two slices lie at one position


class By(StrEnum):
    """How a series was found to be whole."""

    GEOMETRY = "geometry"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Slice:
    """offset: mm along the normal; thickness: mm, 0 where the header does not say."""

    offset: float
    thickness: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """How still it has been around a series."""

    now: datetime
    last_received_at: datetime
    open_associations: int
    last_released_at: datetime | None

    def since_release(self, seconds: float) -> bool:
        """True where every association has ended and nothing has come for so long."""
        if self.open_associations or self.last_released_at is None:
            return False
        return self.now - max(self.last_received_at, self.last_released_at) >= timedelta(seconds=seconds)

    def since_last_slice(self, seconds: float) -> bool:
        """True where nothing has come for so long, whatever the associations do."""
        return self.now - self.last_received_at >= timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """by is None while the series must wait. gaps: (offset below, offset above) in mm of every hole."""

    by: By | None
    gaps: tuple[tuple[float, float], ...] = ()


def judge(slices: Sequence[Slice], quiet: Quiet, limits: Completeness) -> Verdict:
    """Contiguous and quiet for `quiet_seconds` since the last release; else whatever is there at `give_up_seconds`."""
    holes = gaps(slices)
    if not holes and coverage(slices) >= COVERAGE and quiet.since_release(limits.quiet_seconds):
        return Verdict(By.GEOMETRY)
    if quiet.since_last_slice(limits.give_up_seconds):
        return Verdict(By.TIMER, holes)
    return Verdict(None, holes)


def coverage(slices: Sequence[Slice]) -> float:
    """Distance in mm from the first slice centre to the last."""
    offsets = [s.offset for s in slices]
    return max(offsets) - min(offsets) if offsets else 0.0


def gaps(slices: Sequence[Slice]) -> tuple[tuple[float, float], ...]:
    """Steps that are too long for their neighbours, or for the thickness of the slices beside them."""
    ordered = _distinct(slices)
    steps = [above.offset - below.offset for below, above in pairwise(ordered)]
    holes = []
    for i, step in enumerate(steps):
        below, above = ordered[i], ordered[i + 1]
        neighbours = steps[max(i - 1, 0) : i] + steps[i + 1 : i + 2]
        thickness = max(below.thickness, above.thickness)
        too_long = bool(neighbours) and step > NEIGHBOUR_RATIO * max(neighbours)
        too_far = thickness > 0 and step > THICKNESS_RATIO * thickness + THICKNESS_SLACK
        if too_long or too_far:
            holes.append((below.offset, above.offset))
    return tuple(holes)


def _distinct(slices: Sequence[Slice]) -> list[Slice]:
    ordered: list[Slice] = []
    for each in sorted(slices, key=lambda s: (s.offset, s.thickness)):
        if not ordered or each.offset - ordered[-1].offset > SAME_PLACE:
            ordered.append(each)
    return ordered
