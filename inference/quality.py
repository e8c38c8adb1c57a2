"""Is this a head with a brain that maps may be made of? Judged by the image alone: no text element is read.

One table of checks. Each is a number measured on the image with its limits; the first that fails with a reason code
refuses the study, those without one only warn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from inference import preprocess
from inference.preprocess import SPACING, Prepared
from inference.refusal import Refused
from inference.volume import Volume

HALVED = 2  # model pixels to one pixel of the checks
BLOCK = 8  # model pixels, 7.5 mm: fine enough to tell grey from white matter, coarse enough to average noise away
HARD, AIR = 120.0, -200.0  # HU: anything harder than tissue, anything thinner than fat
SHELL = 4  # halved pixels, 7.5 mm, around the brain in which a skull must begin
SMALL_BRAIN = 110.0  # mm from foramen magnum to vertex; a series that covers less may show a smaller volume


@dataclass(frozen=True, slots=True)
class Findings:
    """What is measured on the image; volumes in litres, lengths in mm, areas in cm2.

    trapped_air: air that hard walls enclose within a slice; a skull full of air is no patient's.
    brain: volume of the mask; covered: the same over what is expected of a small brain in the height covered.
    height: of the brain in the series.
    skull: share of the shell around the brain that is hard.
    median: HU of the brain; variety: HU from the 5th to the 95th percentile of blocks of 7.5 mm within it.
    slices: in the series; top, bottom: area of brain in its highest and lowest slice.
    """

    trapped_air: float
    brain: float
    covered: float
    height: float
    skull: float
    median: float
    variety: float
    slices: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Check:
    """A finding and its limits. code: of the refusal, empty for a warning; sentence: may name {value}."""

    code: str
    of: Callable[[Findings], float]
    low: float
    high: float
    sentence: str


ANY = float("inf")
CHECKS = (
    Check("phantom", lambda f: f.trapped_air, 0.0, 0.2, "the skull holds {value:.1f} litres of air: this is a phantom"),
    Check("not-head", lambda f: f.brain, 0.05, ANY, "no brain is found in the series"),
    Check("not-head", lambda f: f.brain, 0.0, 2.0, "what could be brain measures {value:.1f} litres: this is no head"),
    Check("not-head", lambda f: f.skull, 0.4, 1.0, "only {value:.0%} of what lies around the tissue is bone"),
    Check("phantom", lambda f: f.variety, 5.0, ANY, "the inside of the skull is one uniform grey: this is a phantom"),
    Check("not-head", lambda f: f.median, 15.0, 50.0, "the inside of the skull measures {value:.0f} HU, unlike brain"),
    Check("partial-brain", lambda f: f.height, 60.0, ANY, "the series shows {value:.0f} mm of brain; 60 mm are needed"),
    Check("partial-brain", lambda f: f.covered, 0.8, ANY, "the brain in the series is too small for its height"),
    Check("", lambda f: f.brain, 0.0, 1.75, "The brain with its fluid measures {value:.2f} litres, which is unusual."),
    Check("", lambda f: f.covered, 1.0, ANY, "The brain is small for its height, which is unusual."),
    Check("", lambda f: f.median, 22.0, 42.0, "The brain measures {value:.0f} HU, which is unusual."),
    Check("", lambda f: f.slices, 20, ANY, "The series holds only {value:.0f} slices; there are no maps between them."),
    Check("", lambda f: f.top, 0.0, 25.0, "The top of the brain lies outside the series."),
    Check("", lambda f: f.bottom, 0.0, 25.0, "The bottom of the brain lies outside the series."),
)


def judge(volume: Volume, prepared: Prepared) -> tuple[str, ...]:
    """Warnings as sentences; raises Refused("phantom" | "not-head" | "partial-brain", sentence)."""
    findings = measure(volume, prepared)
    warnings = []
    for check in CHECKS:
        value = check.of(findings)
        if check.low <= value <= check.high:
            continue
        sentence = check.sentence.format(value=value)
        if check.code:
            raise Refused(check.code, sentence)
        warnings.append(sentence)
    return tuple(warnings)


def measure(volume: Volume, prepared: Prepared) -> Findings:
    """All findings of one series; those about a brain are 0 where there is none."""
    heights = prepared.grid.heights
    each = np.abs(np.gradient(heights))  # mm of the head that one slice stands for
    area = prepared.mask.sum(axis=(1, 2)) * SPACING**2  # mm2
    height = float(each[area > 0].sum())
    brain = float(area @ each) / 1e6
    hu = preprocess.on_grid(volume, prepared.grid)
    return Findings(
        trapped_air=_trapped_air(hu, each),
        brain=brain,
        covered=brain / max(min(height / SMALL_BRAIN, 1.0), 1e-6),
        height=height,
        skull=_skull(hu, prepared.mask),
        median=_median(prepared),
        variety=_variety(prepared),
        slices=len(heights),
        top=float(area[heights.argmax()]) / 100,
        bottom=float(area[heights.argmin()]) / 100,
    )


def _trapped_air(hu: np.ndarray, each: np.ndarray) -> float:
    """Litres of air inside hard walls; the highest of four pixels closes a wall thinner than a pixel."""
    hard = _blocks(hu, HALVED).max(axis=(2, 4)) > HARD
    air = _blocks(hu, HALVED).mean(axis=(2, 4)) < AIR
    enclosed = np.stack([_filled(plane) for plane in hard]) & ~hard
    pixels = (enclosed & air).sum(axis=(1, 2))
    return float(pixels @ each) * (HALVED * SPACING) ** 2 / 1e6


def _filled(plane: np.ndarray) -> np.ndarray:
    filled = sitk.BinaryFillhole(sitk.GetImageFromArray(plane.astype(np.uint8)))
    inside: np.ndarray = sitk.GetArrayFromImage(filled) > 0
    return inside


def _skull(hu: np.ndarray, mask: np.ndarray) -> float:
    """The share of hard pixels in the shell around the brain, within each slice."""
    brain = mask[:, ::HALVED, ::HALVED]
    image = sitk.BinaryDilate(sitk.GetImageFromArray(brain.astype(np.uint8)), (SHELL, SHELL, 0), sitk.sitkBall)
    shell = (sitk.GetArrayFromImage(image) > 0) & ~brain
    return float((hu[:, ::HALVED, ::HALVED][shell] > HARD).mean()) if shell.any() else 0.0


def _median(prepared: Prepared) -> float:
    return float(np.median(_brain_hu(prepared)[prepared.mask])) if prepared.mask.any() else 0.0


def _variety(prepared: Prepared) -> float:
    """The spread of the means of all blocks that lie wholly within the brain."""
    whole = _blocks(prepared.mask, BLOCK).all(axis=(2, 4))
    means = _blocks(_brain_hu(prepared), BLOCK).mean(axis=(2, 4))[whole]
    return float(np.ptp(np.percentile(means, (5, 95)))) if means.size else 0.0


def _brain_hu(prepared: Prepared) -> np.ndarray:
    """(slices, 256, 256) HU as the generator sees them, 0 to 80."""
    low, high = preprocess.WINDOW
    hu: np.ndarray = (prepared.planes[:, 1] + 1) * ((high - low) / 2) + low
    return hu


def _blocks(planes: np.ndarray, side: int) -> np.ndarray:
    """(slices, rows / side, side, columns / side, side)."""
    slices, rows, columns = planes.shape
    return planes.reshape(slices, rows // side, side, columns // side, side)
