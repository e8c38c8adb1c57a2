"""A real, tilted head CT and its variants end as the table of input cases says."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.volume import hounsfield
from tests.cases import syntaxes
from tests.cases.arrivals import INCOMPLETE
from tests.cases.case import Arrival, Case, Wait, refuse, renamed, warn
from tests.cases.judge import assert_ends
from tests.cases.spoilt import rewritten
from tests.tools import data
from training import spoiled

TILT = "The gantry was tilted by 19 degrees. The slices lie 1.1 to 7.0 mm apart."


@cache
def _read() -> list[Dataset]:
    return [dcmread(path) for path in sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))]


def ge() -> list[Dataset]:
    return deepcopy(_read())


def unsigned() -> list[Dataset]:
    """As 12 bits without sign."""
    slices = ge()
    for ds in slices:
        ds.PixelData = (np.round(hounsfield(ds)).clip(-1024, 3071) + 1024).astype("<u2").tobytes()
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 12, 11, 0, -1024
        del ds.PixelPaddingValue
    return slices


def feet_first() -> list[Dataset]:
    """The same patient as a scanner shows one who lies with the feet to the gantry: columns run to the right."""
    slices = ge()[::-1]
    for ds in slices:
        stored = np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = np.ascontiguousarray(stored[:, ::-1]).tobytes()
        ds.ImagePositionPatient[0] += (ds.Columns - 1) * float(ds.PixelSpacing[1])
        ds.ImageOrientationPatient = [-1, 0, 0, *ds.ImageOrientationPatient[3:]]
        ds.PatientPosition = "FFS"
    return slices


def split() -> list[Arrival]:
    return [Arrival(1.5 * i, ge()[part]) for i, part in enumerate((slice(0, 9), slice(9, 18), slice(18, 28)))]


def late() -> list[Arrival]:
    return [Arrival(0.0, ge()[:27]), Arrival(20.0, ge()[27:])]


def doubled() -> list[Dataset]:
    twin = renamed(ge()[9], 9)
    twin.InstanceNumber = 99
    return [*ge(), twin]


def shuffled() -> list[Dataset]:
    slices = ge()
    return [slices[i] for i in np.random.default_rng(4).permutation(len(slices))]


def encoded(how: Callable[..., Callable[[], list[Dataset]]], *arguments: object, **options: object) -> Callable:
    return how(*arguments, of=unsigned, **options)


def _spoilt(spoil: Callable) -> Callable[[], list[Dataset]]:
    return lambda: rewritten(ge(), spoil)


SYNTAXES = (
    warn("Implicit VR Little Endian", encoded(syntaxes.uncompressed, ImplicitVRLittleEndian), TILT),
    warn("deflated", encoded(syntaxes.uncompressed, DeflatedExplicitVRLittleEndian), TILT),
    warn("Explicit VR Big Endian", encoded(syntaxes.by_dcmtk, "dcmconv", "+tb"), TILT),
    warn("RLE", encoded(syntaxes.compressed, RLELossless), TILT),
    warn("JPEG-LS", encoded(syntaxes.compressed, JPEGLSLossless), TILT),
    warn("JPEG-LS near lossless", encoded(syntaxes.compressed, JPEGLSNearLossless, jls_error=2), syntaxes.LOSS),
    warn("JPEG 2000", encoded(syntaxes.compressed, JPEG2000Lossless), TILT),
    warn("HTJ2K", encoded(syntaxes.high_throughput, HTJ2KLossless, "-reversible", "true"), TILT),
    warn("JPEG lossless", encoded(syntaxes.by_dcmtk, "dcmcjpeg", "+e1"), TILT),
    warn("JPEG extended, 12 bits", encoded(syntaxes.by_dcmtk, "dcmcjpeg", "+ee", "+q", "95"), syntaxes.LOSS),
)
OTHERS = (
    warn("as it is", ge, TILT),
    warn("shuffled", shuffled, TILT),
    warn("split over three associations", split, TILT, waits=Wait.PIECES),
    warn("one slice missing", lambda: [ds for i, ds in enumerate(ge()) if i != 20], INCOMPLETE, waits=Wait.TIMER),
    warn("one slice doubled", doubled, "Left out: 1 older images"),
    warn("one slice late", late, TILT, revisions=2),
    warn("feet first", feet_first, TILT),
)
SPOILT = (
    refuse(
        "contrast in the vessels, no tag", _spoilt(spoiled.with_contrast), "contrast", "vessels as dense as contrast"
    ),
    refuse("cropped", _spoilt(lambda v: spoiled.cropped(v, 0.35)), "partial-brain", "field of view"),
    refuse("cropped by a quarter", _spoilt(lambda v: spoiled.cropped(v, 0.25)), "partial-brain", "field of view"),
    refuse("values 100 HU too high", _spoilt(lambda v: spoiled.rescaled(v, intercept=100.0)), "no-rescale", "rescale"),
    refuse("intercept forgotten", _spoilt(lambda v: spoiled.rescaled(v, intercept=1024.0)), "no-rescale", "rescale"),
)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*SYNTAXES, *OTHERS, *SPOILT], ids=lambda case: case.name)
def test_the_variant_ends_as_the_table_says(case: Case, tmp_path: Path, empty: Path):
    data("ct_ge_hispeed_tilt")
    assert_ends(case, tmp_path, empty)
