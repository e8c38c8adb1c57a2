"""Real heads for tests that need them, decoded once, and an engine small enough to run everywhere."""

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from inference import weights
from inference.engine import Engine, load_engine
from inference.volume import hounsfield
from tests import phantom
from tests.tools import data


@pytest.fixture
def ge_head() -> list[Dataset]:
    """A real, de-identified head: gantry tilt 18.5 degrees, steps of 4.0, 1.08 and 7.0 mm, an infarct on the left."""
    return [pydicom.dcmread(path) for path in sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))]


@pytest.fixture
def plastic_head() -> list[Dataset]:
    """A real CT of a phantom: a plastic skull with air and rods where the brain would be."""
    with zipfile.ZipFile(data("ct_philips_phantom/ct_philips_phantom_5mm.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The shipped untrained generator on one thread."""
    return load_engine(*weights.load(weights.shipped("ncct-untrained")), threads=1)


def repaint(slices: list[Dataset], paint: Callable[[np.ndarray], np.ndarray], slope: float = 1.0) -> list[Dataset]:
    """The same slices with other Hounsfield units, a function of those they have."""
    for ds in slices:
        hu = paint(hounsfield(ds))
        if "PixelPaddingValue" in ds:
            del ds.PixelPaddingValue
        phantom.set_pixels(ds, hu, (slope, 0.0))
    return slices
