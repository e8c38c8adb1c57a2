"""Where the slices of a series lie, from their headers alone."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from pydicom import Dataset

from dicomnode.completeness import Slice
from dicomnode.header import numbers
from inference.volume import FEWEST_SLICES, SAME_POSITION

PHASES = 3  # so many images at one position are a time series


def slices(headers: Sequence[Dataset]) -> list[Slice]:
    """Where each slice lies along the normal of the first; headers without a position are left out."""
    return [Slice(offset, thickness(headers[i])) for i, offset in _offsets(headers).items()]


def thickness(ds: Dataset) -> float:
    """Slice Thickness in mm, 0 where the header does not say."""
    try:
        return float(ds.get("SliceThickness") or 0)
    except (TypeError, ValueError):
        return 0.0


def normal(ds: Dataset) -> np.ndarray | None:
    """The normal of a slice, rows x columns; None where the header does not say how it lies."""
    cosines = numbers(ds, "ImageOrientationPatient", 6)
    return None if cosines is None else np.cross(cosines[:3], cosines[3:])


def count(headers: Sequence[Dataset]) -> int:
    """At how many positions there is a slice."""
    return len(_by_place(headers))


def most_at_one(headers: Sequence[Dataset]) -> int:
    """How many images there are at the position that has most."""
    return max(map(len, _by_place(headers)), default=0)


def steps(headers: Sequence[Dataset]) -> tuple[float, float]:
    """The shortest and the longest distance in mm from a position to the next; 0, 0 where there are none."""
    offsets = _offsets(headers)
    ordered = [offsets[places[0]] for places in _by_place(headers)]
    found = [above - below for below, above in pairwise(ordered)]
    return (min(found), max(found)) if found else (0.0, 0.0)


def tilt(headers: Sequence[Dataset]) -> float:
    """Degrees between the normal and the line along which the slices are stacked; 0 where nothing is known."""
    across = next((n for n in map(normal, headers) if n is not None), None)
    found = [p for p in (numbers(ds, "ImagePositionPatient", 3) for ds in headers) if p is not None]
    if across is None or len(found) < 2 or not across.any():
        return 0.0
    offsets = np.array(found) @ across
    line = np.subtract(found[int(offsets.argmax())], found[int(offsets.argmin())])
    length = np.linalg.norm(line) * np.linalg.norm(across)
    return float(np.degrees(np.arccos(np.clip(line @ across / length, -1.0, 1.0)))) if length else 0.0


def replaced(headers: Sequence[Dataset]) -> list[int]:
    """Which headers others replace.

    Of acquisitions that show the same part of the head the last one counts, and of images at one position the one
    that was acquired, or numbered, last. Nothing is said of images that cannot be told apart, nor of a time series.
    """
    if most_at_one(headers) >= PHASES:
        return []
    older = _repeated(headers)
    for places in _by_place(headers):
        left = [i for i in places if i not in older]
        if len({_rank(headers[i]) for i in left}) == len(left) > 1:
            older.update(set(left) - {max(left, key=lambda i: _rank(headers[i]))})
    return sorted(older)


def _repeated(headers: Sequence[Dataset]) -> set[int]:
    """All images of the acquisitions whose greater part a later acquisition shows again.

    Scanners that number each rotation have acquisitions of few slices, and those are no repetition.
    """
    numbered: dict[int, list[int]] = defaultdict(list)
    offsets = _offsets(headers)
    for i in offsets:
        numbered[_number(headers[i], "AcquisitionNumber")].append(i)
    ranges = {
        number: (min(offsets[i] for i in each), max(offsets[i] for i in each))
        for number, each in numbered.items()
        if len(each) >= FEWEST_SLICES
    }
    older = {
        number
        for number, (low, high) in ranges.items()
        if any(
            later > number and 2 * (min(high, ranges[later][1]) - max(low, ranges[later][0])) > high - low
            for later in ranges
        )
    }
    return {i for number in older for i in numbered[number]}


def _rank(ds: Dataset) -> tuple[int, int]:
    return _number(ds, "AcquisitionNumber"), _number(ds, "InstanceNumber")


def _number(ds: Dataset, keyword: str) -> int:
    text = str(ds.get(keyword) or "").strip()
    return int(text) if text.lstrip("-").isdecimal() else 0


def _by_place(headers: Sequence[Dataset]) -> list[list[int]]:
    """The indices of the headers at each position, in the order of the positions along the normal."""
    offsets, found = _offsets(headers), list[list[int]]()
    for i in sorted(offsets, key=lambda i: offsets[i]):
        if found and offsets[i] - offsets[found[-1][0]] < SAME_POSITION:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _offsets(headers: Sequence[Dataset]) -> dict[int, float]:
    """By index: mm along the normal of the first header that has one. Headers without a position are left out."""
    across = next((n for n in map(normal, headers) if n is not None), None)
    if across is None:
        return {}
    placed = {i: numbers(ds, "ImagePositionPatient", 3) for i, ds in enumerate(headers)}
    return {i: float(np.dot(across, position)) for i, position in placed.items() if position is not None}
