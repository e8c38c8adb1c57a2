"""Where the slices lie."""

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom import Dataset

from tests import phantom
from tests.cases.case import LOWEST, SLICES, STEP, Wait, changed, head, process, refuse, renamed, warn


def _blocks() -> list[Dataset]:
    """5 mm slices at the base, 10 mm at the vertex, as many scanners still plan a head."""
    z = [*phantom.even(14, 5.0, LOWEST), *phantom.even(9, 10.0, LOWEST + 72.5)]
    slices = head(z=tuple(z))
    for i, ds in enumerate(slices):
        ds.SliceThickness = 5.0 if i < 14 else 10.0
    return slices


def _jitter() -> list[Dataset]:
    slices = head()
    for i, ds in enumerate(slices):
        ds.ImagePositionPatient[2] += 0.04 * (-1) ** i
    return slices


def _without(*lost: int) -> Callable[[], list[Dataset]]:
    return lambda: [ds for i, ds in enumerate(head()) if i not in lost]


def _doubled() -> list[Dataset]:
    slices = head()
    twin = renamed(head()[9], 9)
    twin.InstanceNumber = 99
    return [*slices, twin]


def _twice() -> list[Dataset]:
    """The whole head scanned again within one series."""
    return [*head(), *(renamed(ds, 2) for ds in changed(head(), AcquisitionNumber=2))]


def _indistinguishable() -> list[Dataset]:
    return [*head(), renamed(head()[9], 9)]


def _leaning(degrees: float, about: int = 0) -> Callable[[], list[Dataset]]:
    """Slices turned about an axis of the patient and stacked along their own normal."""

    def make() -> list[Dataset]:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = (
            np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) if about == 0 else np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        )
        slices = head()
        spacing = float(slices[0].PixelSpacing[0])
        index = (np.arange(64) - 31.5) * spacing
        plane = index[None, :, None] * turn[:, 0] + index[:, None, None] * turn[:, 1]
        for ds, height in zip(slices, phantom.even(SLICES, STEP, LOWEST), strict=True):
            centre = height * turn[:, 2]
            ds.ImageOrientationPatient = [float(v) for v in (*turn[:, 0], *turn[:, 1])]
            ds.ImagePositionPatient = [float(v) for v in centre + plane[0, 0]]
            phantom.set_pixels(ds, phantom.hu_at((plane + centre) / 0.93))
        return slices

    return make


def _flat_pixels() -> list[Dataset]:
    """Every second row: pixels twice as high as wide."""
    slices = head(matrix=96)
    for ds in slices:
        stored = np.frombuffer(ds.PixelData, "<i2").reshape(96, 96)[::2]
        ds.PixelData, ds.Rows = stored.tobytes(), 48
        ds.PixelSpacing = [2 * float(ds.PixelSpacing[0]), ds.PixelSpacing[1]]
    return slices


def _wide() -> list[Dataset]:
    """More columns than rows: the air left and right is kept."""
    slices = head()
    for ds in slices:
        stored = np.frombuffer(ds.PixelData, "<i2").reshape(64, 64)[4:-4]
        ds.PixelData, ds.Rows = stored.tobytes(), 56
        ds.ImagePositionPatient[1] += 4 * float(ds.PixelSpacing[0])
    return slices


def _shuffled() -> list[Dataset]:
    slices = head()
    return [slices[i] for i in np.random.default_rng(4).permutation(len(slices))]


def _renumbered() -> list[Dataset]:
    slices = head()
    for number, ds in enumerate(reversed(slices), start=1):
        ds.InstanceNumber = number
    return slices


def _with_scout() -> list[Dataset]:
    """A coronal localizer within the series of slices."""
    scout = renamed(head()[0], 9)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return [scout, *head()]


def _mixed(**elements: Any) -> Callable[[], list[Dataset]]:
    """Half of the series with other elements."""
    return lambda: [*head()[:11], *changed(head()[11:], **elements)]


CASES = (
    process("ordinary axial head, 7 mm", head),
    warn("gantry tilt, table stepping along z", lambda: head(tilt_degrees=18.0), "tilted by 18 degrees"),
    warn("gantry tilt the other way", lambda: head(tilt_degrees=-15.0), "tilted by 15 degrees"),
    warn(
        "gantry tilt with the sign of Gantry/Detector Tilt the wrong way",
        lambda: changed(head(tilt_degrees=18.0), GantryDetectorTilt=-18.0),
        "tilted by 18 degrees",
    ),
    warn("5 mm at the base, 10 mm at the vertex", _blocks, "The slices lie 5.0 to 10.0 mm apart."),
    refuse("slices 12 mm apart", lambda: head(z=tuple(phantom.even(13, 12.0, LOWEST)), thickness=12.0), "gap",
           "12.0 mm"),
    process("overlapping slices", lambda: head(thickness=10.0)),
    warn("one slice missing", _without(9), "INCOMPLETE SERIES", waits=Wait.TIMER),
    warn("two neighbouring slices missing", _without(9, 10), "INCOMPLETE SERIES", waits=Wait.TIMER),
    refuse("slices missing at two places", _without(7, 14), "gap", "at 2 places", waits=Wait.TIMER),
    process("positions that jitter by 0.04 mm", _jitter),
    warn("a second, newer image at one position", _doubled, "Left out: 1 older images"),
    warn("the whole head twice, as two acquisitions", _twice, "Left out: 22 older images"),
    refuse("two images at one position that cannot be told apart", _indistinguishable, "mixed-geometry",
           "same position"),
    process("slices 20 degrees off axial", _leaning(20.0)),
    refuse("slices 35 degrees off axial", _leaning(35.0), "oblique", "35 degrees"),
    refuse("coronal slices", _leaning(90.0), "oblique", "90 degrees"),
    refuse("sagittal slices", _leaning(90.0, about=1), "oblique", "90 degrees"),
    process("pixels that are not square", _flat_pixels),
    process("a matrix that is not square", _wide),
    process("matrix 256", lambda: head(matrix=256)),
    process("matrix 512", lambda: head(matrix=512), slow=True),
    process("matrix 1024", lambda: head(matrix=1024), slow=True),
    *(process(f"patient position {p}", lambda p=p: head(patient_position=p)) for p in ("FFS", "HFP", "FFP", "HFDR",
      "FFDL")),
    process("slices from head to foot", lambda: head(head_to_foot=True)),
    process("slices in any order", _shuffled),
    process("Instance Number against the direction of the slices", _renumbered),
    process("Instance Number absent", lambda: changed(head(), InstanceNumber=None)),
    refuse("six slices", lambda: head()[:6], "too-few-slices", "6 slices", waits=Wait.TIMER),
    refuse("eleven slices from the middle of the brain", lambda: head(z=tuple(phantom.even(11, 5.0, -20.0)),
           thickness=5.0),
           "partial-brain", "55 mm", waits=Wait.TIMER),
    refuse("no positions", lambda: changed(head(), ImagePositionPatient=None), "too-few-slices", waits=Wait.TIMER),
    refuse("no orientation", lambda: changed(head(), ImageOrientationPatient=None), "too-few-slices", waits=Wait.TIMER),
    warn("a localizer within the series", _with_scout, "Left out: 1 localizer images."),
    refuse("two frames of reference", _mixed(FrameOfReferenceUID="1.2.3"), "mixed-geometry", "frames of reference"),
    refuse("two pixel spacings", _mixed(PixelSpacing=[1, 1]), "mixed-geometry", "pixel spacing"),
    refuse("a pixel spacing of zero", lambda: changed(head(), PixelSpacing=[0, 0]), "mixed-geometry", "not a distance"),
)  # fmt: skip
