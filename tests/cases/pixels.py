"""What the stored values mean."""

from collections.abc import Callable

import numpy as np
from pydicom import Dataset

from inference.volume import Volume, hounsfield
from tests import phantom
from tests.cases.case import changed, head, process, refuse, warn
from tests.cases.spoilt import rewritten
from training import spoiled

Paint = Callable[[np.ndarray], np.ndarray]


def rescaled(slope: float, intercept: float) -> Callable[[], list[Dataset]]:
    """The same Hounsfield units stored under another slope and intercept."""
    return lambda: head(rescale=(slope, intercept))


def painted(paint: Paint, **how) -> Callable[[], list[Dataset]]:
    """The head with other Hounsfield units, a function of those it has."""

    def make() -> list[Dataset]:
        slices = head(**how)
        for ds in slices:
            phantom.set_pixels(ds, paint(hounsfield(ds)))
        return slices

    return make


def spoilt(spoil: Callable[[Volume], Volume], **how) -> Callable[[], list[Dataset]]:
    """The head with what training.spoiled can do to it."""
    return lambda: rewritten(head(**how), spoil)


def _each_its_own() -> list[Dataset]:
    slices = head()
    for i, ds in enumerate(slices):
        phantom.set_pixels(ds, hounsfield(ds), (1.0 + i / 20, -1000.0 - 20 * i))
    return slices


def _outside(stored: int, **padding: int) -> Callable[[], list[Dataset]]:
    """A field of view that is a circle; what lies outside is stored as this value."""

    def make() -> list[Dataset]:
        slices = head()
        rows, columns = np.indices((64, 64))
        circle = np.hypot(rows - 31.5, columns - 31.5) < 31
        for ds in slices:
            pixels = np.frombuffer(ds.PixelData, "<i2").reshape(64, 64)
            ds.PixelData = np.where(circle, pixels, stored).astype("<i2").tobytes()
            for keyword, value in padding.items():
                ds.add_new(keyword, "US" if value > 32767 else "SS", value)
        return slices

    return make


def _bits(stored_bits: int, signed: bool, overlay: bool = False) -> Callable[[], list[Dataset]]:
    def make() -> list[Dataset]:
        slices = head()
        for ds in slices:
            hu = np.round(hounsfield(ds)).clip(-1024, 2047)
            stored = hu.astype("<i2").view("<u2") if signed else (hu + 1024).astype("<u2")
            stored = stored & np.uint16(2**stored_bits - 1)
            if overlay:
                stored = stored.copy()
                stored[:3] |= np.uint16(0x1000)
            ds.BitsStored, ds.HighBit, ds.PixelRepresentation = stored_bits, stored_bits - 1, int(signed)
            ds.RescaleSlope, ds.RescaleIntercept, ds.PixelData = 1, 0 if signed else -1024, stored.tobytes()
        return slices

    return make


def _inverted() -> list[Dataset]:
    """Values turned upside down, as if MONOCHROME1 were meant of them."""
    slices = changed(head(), PhotometricInterpretation="MONOCHROME1")
    for ds in slices:
        stored = np.frombuffer(ds.PixelData, "<i2")
        ds.PixelData = (stored.max() - stored + stored.min()).astype("<i2").tobytes()
    return slices


def _colour() -> list[Dataset]:
    slices = changed(head(), PhotometricInterpretation="RGB", SamplesPerPixel=3, BitsAllocated=8, BitsStored=8)
    for ds in slices:
        ds.HighBit, ds.PixelRepresentation, ds.PlanarConfiguration = 7, 0, 0
        ds.PixelData = bytes(64 * 64 * 3)
    return slices


def _one_short() -> list[Dataset]:
    """The element is whole, but holds fewer values than rows and columns say."""
    slices = head()
    slices[5].PixelData = slices[5].PixelData[:100]
    return slices


def _noise(hu: np.ndarray) -> np.ndarray:
    return 300.0 * np.random.default_rng(0).standard_normal(hu.shape)


CASES = (
    process("intercept 0", rescaled(1.0, 0.0)),
    process("intercept -8192", rescaled(1.0, -8192.0)),
    process("slope 0.5", rescaled(0.5, -1000.0)),
    process("slope 2", rescaled(2.0, -1024.0)),
    process("slope and intercept of their own in each slice", _each_its_own),
    refuse("no Rescale Intercept", lambda: changed(head(), RescaleIntercept=None), "no-rescale", "Hounsfield units"),
    refuse("no Rescale Slope in one slice", lambda: [*head()[:5], *changed(head()[5:6], RescaleSlope=None),
           *head()[6:]],
           "no-rescale", "image 6"),
    refuse("Rescale Slope 0", lambda: changed(head(), RescaleSlope=0), "no-rescale"),
    refuse("an intercept 100 too high", lambda: changed(head(), RescaleIntercept=-924), "no-rescale", "98 HU too high"),
    refuse("an intercept 1024 too high", lambda: changed(head(), RescaleIntercept=0), "no-rescale",
           "air measures 24 HU"),
    process("padding -2000", _outside(-2000, PixelPaddingValue=-2000)),
    process("padding that its tag gives the wrong sign", _outside(-2000, PixelPaddingValue=63536)),
    process("padding as a range", _outside(3000, PixelPaddingValue=2900, PixelPaddingRangeLimit=3100)),
    process("-3024 outside the field of view, no tag", _outside(-3024)),
    process("12 bits unsigned", _bits(12, signed=False)),
    process("12 bits signed", _bits(12, signed=True)),
    process("16 bits unsigned", _bits(16, signed=False)),
    process("an overlay in the high bits", _bits(12, signed=False, overlay=True)),
    process("MONOCHROME1", lambda: changed(head(), PhotometricInterpretation="MONOCHROME1")),
    refuse("MONOCHROME1 with inverted values", _inverted, "phantom"),
    refuse("colours", _colour, "unsupported-class", "RGB"),
    refuse("fewer values than rows and columns", _one_short, "truncated", "image 6"),
    refuse("air", painted(lambda hu: np.full(hu.shape, -1000.0)), "not-head", "no brain"),
    refuse("noise", painted(_noise), "no-rescale"),
    refuse("a skull full of air", painted(lambda hu: np.where((hu > 0) & (hu < 100), -1000.0, hu)), "phantom"),
    refuse("a skull full of one grey", painted(lambda hu: np.where((hu > 0) & (hu < 100), 35.0, hu)), "phantom"),
    refuse("a body without a skull", painted(lambda hu: np.where(hu > 100, -100.0, hu)), "not-head"),
    warn("a field of view that cuts off a little", spoilt(lambda v: spoiled.cropped(v, 0.2)),
         "cuts off a part of the head"),
    refuse("a field of view that cuts off more", spoilt(lambda v: spoiled.cropped(v, 0.3)), "partial-brain",
           "cuts off"),
    refuse("contrast in the vessels, no tag", spoilt(spoiled.with_contrast, matrix=192), "contrast", "vessels"),
    warn("a clip and its streaks", spoilt(lambda v: spoiled.with_metal(v, 100.0)), "Metal lies in or near the brain."),
    warn("4 mm of motion", spoilt(lambda v: spoiled.stepped_aside(v, 4.0)), "moved 4 mm"),
    refuse("12 mm of motion", spoilt(lambda v: spoiled.stepped_aside(v, 12.0)), "motion", "12 mm"),
    refuse("the noise of a bone kernel, no tag", spoilt(spoiled.through_bone_kernel), "bone-kernel", "without grain"),
)  # fmt: skip
