"""What must have come out of the self-test, and what has: the objects as the receiver has them, and where they lie."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from inference.maps import KINDS

NEAR = 0.05  # mm between the middle of a slice and that of its capture: rounding of decimal strings
FAR = 25.0  # mm between the centres of the stroke that was put in and of late Tmax; the demo's is 8 mm off (measured)
LATE = 6.0  # s of Tmax
SYNTHESIZING = "109100"  # DCM, purpose of reference of Contributing Equipment


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the record."""

    what: str
    expected: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """What the virtual patient has. centre: LPS in mm."""

    side: str
    centre: tuple[float, float, float]


def of_objects(
    sent: Sequence[Dataset], received: Sequence[Dataset], kinds: Sequence[str], truth: Truth
) -> Iterator[Check]:
    """Every check of what the receiver has got. kinds: names of the maps that the weights make."""
    captures = [ds for ds in received if ds.SOPClassUID == SecondaryCaptureImageStorage]
    maps = {kind_of(ds): ds for ds in received if ds.SOPClassUID == ParametricMapStorage}
    yield _same("Secondary captures, one for each slice and map", len(sent) * len(kinds), len(captures))
    yield _same("Parametric maps", " ".join(sorted(kinds)), " ".join(sorted(maps)))
    yield _same("Study Instance UID is that of the source", 1, len({ds.StudyInstanceUID for ds in (*sent, *received)}))
    yield _all("Synthetic Data (0008,001C) YES", received, lambda ds: ds.get("SyntheticData") == "YES")
    yield _all(
        "Series Description begins with SYNTHETIC", received, lambda ds: ds.SeriesDescription.startswith("SYNTHETIC ")
    )
    yield _all("Contributing Equipment names the synthesizing equipment", received, _is_synthesized)
    yield _captures_lie_on_slices(sent, captures)
    for name, ds in sorted(maps.items()):
        yield _map_lies_on_slices(name, sent, ds)
        yield _values(name, ds)
    if "Tmax" in maps:
        yield _side(maps["Tmax"], truth)


def kind_of(ds: Dataset) -> str:
    """The map that an object of ours shows."""
    words = str(ds.SeriesDescription).split()
    return next((kind for kind in KINDS if kind in words), "?")


def middle(ds: Dataset) -> np.ndarray:
    """LPS mm of the middle of an image."""
    across, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, ds.PixelSpacing)
    corner = np.array(ds.ImagePositionPatient, float)
    there: np.ndarray = (
        corner + across * between_columns * (ds.Columns - 1) / 2 + down * between_rows * (ds.Rows - 1) / 2
    )
    return there


def values(ds: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(frames, rows, columns) in the unit of a parametric map, and (frames, rows, columns, 3) LPS mm of its pixels."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    stored = np.frombuffer(ds.FloatPixelData, "<f4").reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns)
    across, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    corners = np.array(
        [g.PlanePositionSequence[0].ImagePositionPatient for g in ds.PerFrameFunctionalGroupsSequence], float
    )
    rows, columns = np.arange(ds.Rows), np.arange(ds.Columns)
    places = corners[:, None, None] + (rows * between_rows)[None, :, None, None] * down
    places = places + (columns * between_columns)[None, None, :, None] * across
    return stored * float(mapping.RealWorldValueSlope) + float(mapping.RealWorldValueIntercept), places


def _same(what: str, expected: object, found: object) -> Check:
    return Check(what, str(expected), str(found), expected == found)


def _all(what: str, received: Sequence[Dataset], is_so: Callable[[Dataset], bool]) -> Check:
    return _same(
        what, f"{len(received)} of {len(received)} objects", f"{sum(map(is_so, received))} of {len(received)} objects"
    )


def _is_synthesized(ds: Dataset) -> bool:
    purposes = [
        item.PurposeOfReferenceCodeSequence[0].CodeValue for item in ds.get("ContributingEquipmentSequence") or ()
    ]
    return SYNTHESIZING in purposes


def _captures_lie_on_slices(sent: Sequence[Dataset], captures: Sequence[Dataset]) -> Check:
    places = np.array([middle(ds) for ds in sent])
    off = [float(np.linalg.norm(places - middle(ds), axis=1).min()) for ds in captures]
    return _within("Captures lie on the source slices", NEAR, max(off, default=float("inf")))


def _map_lies_on_slices(name: str, sent: Sequence[Dataset], ds: Dataset) -> Check:
    _, places = values(ds)
    middles = (places[:, 0, 0] + places[:, -1, -1]) / 2
    wanted = np.array([middle(each) for each in sent])
    if len(middles) != len(wanted):
        return _same(f"{name}: frames, one for each slice", len(wanted), len(middles))
    off = max(float(np.linalg.norm(wanted - place, axis=1).min()) for place in middles)
    return _within(f"{name}: {len(wanted)} frames lie on the source slices", NEAR, off)


def _within(what: str, most: float, found: float) -> Check:
    return Check(what, f"at most {most:g} mm off", f"{found:.3f} mm off", found <= most)


def _values(name: str, ds: Dataset) -> Check:
    numbers, ceiling = values(ds)[0], KINDS[name].ceiling
    finite = bool(np.isfinite(numbers).all())
    good = finite and numbers.min() >= 0 and numbers.max() <= ceiling * 1.0001 and numbers.max() > ceiling / 10
    found = f"{numbers.min():.3g} to {numbers.max():.4g} {KINDS[name].unit}" + ("" if finite else ", not all finite")
    return Check(f"{name}: values", f"finite, 0 to {ceiling:g} {KINDS[name].unit}", found, bool(good))


def _side(ds: Dataset, truth: Truth) -> Check:
    """LPS: x grows towards the patient's left."""
    numbers, places = values(ds)
    late = numbers > LATE
    expected = f"on the patient's {truth.side}, at most {FAR:g} mm from ({_mm(truth.centre)})"
    what = f"Left and right: centre of Tmax above {LATE:g} s"
    if not late.any():
        return Check(what, expected, "no such region", False)
    centre = places[late].mean(axis=0)
    off = float(np.linalg.norm(centre - np.array(truth.centre)))
    side = "left" if centre[0] > 0 else "right"
    return Check(
        what, expected, f"on the {side}, {off:.1f} mm off at ({_mm(centre)})", side == truth.side and off <= FAR
    )


def _mm(place: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{each:.0f}" for each in place)
