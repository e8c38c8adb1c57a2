"""What is measured on a head CT before any map is made of it; the limits stand in the table of `inference.quality`.

Lengths and areas are on the model grid, so they mean the same for every matrix, field of view and tilt; noise and grain
are of the slices as the scanner wrote them.
"""

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from inference import preprocess
from inference.preprocess import SPACING, Prepared
from inference.volume import AIR, Volume

HALVED = 2  # model pixels to one pixel of the checks
BLOCK = 8  # model pixels, 7.5 mm: fine enough to tell grey from white matter, coarse enough to average noise away
HARD, THIN = 120.0, -200.0  # HU: anything harder than tissue, anything thinner than fat
SHELL = 4  # halved pixels, 7.5 mm, around the brain in which a skull must begin
SMALL_BRAIN = 110.0  # mm from foramen magnum to vertex; a series that covers less may show a smaller volume
DEEP = 4  # model pixels, 3.75 mm: what lies so deep in the brain holds no bone
BRIGHT = 110.0  # HU: no blood is so dense without contrast, no vessel with contrast is less dense in its middle
BESIDE = 6  # model pixels from the middle, where the falx calcifies
FEW = 3  # model pixels, 2.6 mm2: fewer are noise
METAL = 2500.0  # HU; bone of a head averages less over a model pixel
LITTLE = 2500.0  # mm2 of brain in a slice
LOWER = 15.0  # mm below the lowest brain that is found: metal may have hidden what is there
DARK = -40.0  # HU: no fluid and no noise is so dark in a brain
TALL = 0.4  # of the largest slice of brain: those at the ends are little else than rim
WIDE = 0.5  # of the widest row of a slice: the others lie along the front or the back of the skull
SMOOTHED = 3.0  # mm; what smoothing by this takes away is noise
LAG = 1.0  # mm apart, at which the grain of the noise is measured
SAMPLED = 9  # slices in which the noise is measured


@dataclass(frozen=True, slots=True)
class Findings:
    """What is measured on the image; volumes in litres, lengths in mm, areas in cm2.

    air: HU of the thinnest hundredth of what was scanned.
    trapped_air: air that hard walls enclose within a slice; a skull full of air is no patient's.
    brain: volume of the mask; covered: the same over what is expected of a small brain in the height covered.
    height: of the brain in the series.
    skull: share of the shell around the brain that is hard; cut: share of it that lies outside the field of view.
    median: HU of the brain; variety: HU from the 5th to the 95th percentile of blocks of 7.5 mm within it.
    slices: in the series; step: the largest from one slice of brain to the next.
    top, bottom: area of brain in the highest and lowest slice of the series; broken: with
    which it ends although slices follow.
    vessels: height over which something beside the middle of the brain is denser than blood; bright: or in the middle.
    metal: ml denser than bone within the outline of the brain; dark: share of the brain that is
    thinner than any brain or fluid: air, fat, or the streaks of metal and motion.
    jump: the largest step of the skull to one side from a slice to the next.
    noise: standard deviation in HU of what smoothing by 3 mm takes away from a slice; grain: its autocorrelation 1 mm
    away, high for soft kernels and about 0 for those that sharpen edges.
    """

    air: float
    trapped_air: float
    brain: float
    covered: float
    height: float
    skull: float
    cut: float
    median: float
    variety: float
    slices: float
    step: float
    top: float
    bottom: float
    broken: float
    vessels: float
    bright: float
    metal: float
    dark: float
    jump: float
    noise: float
    grain: float


def measure(volume: Volume, prepared: Prepared) -> Findings:
    """All findings of one series; those about a brain are 0 where there is none."""
    heights = prepared.grid.heights
    each = np.abs(np.gradient(heights))  # mm of the head that one slice stands for
    area = prepared.mask.sum(axis=(1, 2)) * SPACING**2  # mm2
    height = float(each[area > 0].sum())
    brain = float(area @ each) / 1e6
    hu = preprocess.on_grid(volume, prepared.grid)
    shell = _shell(prepared.mask)
    deep = _eroded(prepared.mask, DEEP)
    bright = deep & (_softened(hu) > BRIGHT)
    noise, grain = _noise(volume, prepared)
    return Findings(
        air=float(np.percentile(volume.hu[:, ::HALVED, ::HALVED], 1)),
        trapped_air=_trapped_air(hu, each),
        brain=brain,
        covered=brain / max(min(height / SMALL_BRAIN, 1.0), 1e-6),
        height=height,
        skull=_share(_halved(hu) > HARD, shell),
        cut=_share(_halved(_beyond(volume, prepared)), shell),
        median=float(np.median(_brain_hu(prepared)[prepared.mask])) if prepared.mask.any() else 0.0,
        variety=_variety(prepared),
        slices=len(heights),
        step=_largest_step(heights[area > 0]),
        top=float(area[heights.argmax()]) / 100,
        bottom=float(area[heights.argmin()]) / 100,
        broken=_broken(area[np.argsort(heights)]) / 100,
        vessels=_dense_height(bright, each, BESIDE),
        bright=_dense_height(bright, each, 0),
        metal=_metal(hu, prepared.mask, heights, each),
        dark=_share(hu < DARK, deep),
        jump=_jump(hu, prepared.mask, heights),
        noise=noise,
        grain=grain,
    )


def _trapped_air(hu: np.ndarray, each: np.ndarray) -> float:
    """Litres of air inside hard walls; the highest of four pixels closes a wall thinner than a pixel."""
    hard = _blocks(hu, HALVED).max(axis=(2, 4)) > HARD
    air = _blocks(hu, HALVED).mean(axis=(2, 4)) < THIN
    enclosed = np.stack([_filled(plane) for plane in hard]) & ~hard
    pixels = (enclosed & air).sum(axis=(1, 2))
    return float(pixels @ each) * (HALVED * SPACING) ** 2 / 1e6


def _filled(plane: np.ndarray) -> np.ndarray:
    filled = sitk.BinaryFillhole(sitk.GetImageFromArray(plane.astype(np.uint8)))
    inside: np.ndarray = sitk.GetArrayFromImage(filled) > 0
    return inside


def _shell(mask: np.ndarray) -> np.ndarray:
    """(slices, 128, 128) bool: the surroundings of the brain within each slice, in halved pixels."""
    brain = _halved(mask)
    image = sitk.BinaryDilate(sitk.GetImageFromArray(brain.astype(np.uint8)), (SHELL, SHELL, 0), sitk.sitkBall)
    around: np.ndarray = (sitk.GetArrayFromImage(image) > 0) & ~brain
    return around


def _eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    image = sitk.BinaryErode(sitk.GetImageFromArray(mask.astype(np.uint8)), (pixels, pixels, 0), sitk.sitkBall)
    deep: np.ndarray = sitk.GetArrayFromImage(image) > 0
    return deep


def _halved(planes: np.ndarray) -> np.ndarray:
    return planes[:, ::HALVED, ::HALVED]


def _share(what: np.ndarray, of: np.ndarray) -> float:
    return float(what[of].mean()) if of.any() else 0.0


def _beyond(volume: Volume, prepared: Prepared) -> np.ndarray:
    """(slices, 256, 256) bool: outside the field of view."""
    inside = preprocess.on_grid(replace(volume, hu=np.zeros(volume.hu.shape, np.float32)), prepared.grid)
    outside: np.ndarray = inside == AIR
    return outside


def _variety(prepared: Prepared) -> float:
    """The spread of the means of all blocks that lie wholly within the brain."""
    whole = _blocks(prepared.mask, BLOCK).all(axis=(2, 4))
    means = _blocks(_brain_hu(prepared), BLOCK).mean(axis=(2, 4))[whole]
    return float(np.ptp(np.percentile(means, (5, 95)))) if means.size else 0.0


def _largest_step(heights: np.ndarray) -> float:
    return float(np.abs(np.diff(heights)).max()) if len(heights) > 1 else 0.0


def _broken(ascending: np.ndarray) -> float:
    """The largest change of area from a slice that holds next to no brain to the one beside it."""
    smaller = np.minimum(ascending[1:], ascending[:-1])
    changes = np.abs(np.diff(ascending))[smaller < LITTLE]
    return float(changes.max(initial=0.0))


def _dense_height(bright: np.ndarray, each: np.ndarray, beside: int) -> float:
    """mm of height. Calcium is dense in one place; vessels with contrast are, from the base to the convexity.

    beside: pixels left out to both sides of the middle.
    """
    middle = bright.shape[2] // 2  # the grid is centred on the brain
    counts = bright.sum(axis=(1, 2)) - bright[:, :, middle - beside : middle + beside].sum(axis=(1, 2))
    return float(each[counts >= FEW].sum())


def _softened(planes: np.ndarray) -> np.ndarray:
    """Weights 1, 2, 1 along rows and columns, so that no lone pixel of noise counts."""
    soft = planes.copy()
    soft[:, 1:-1] = (planes[:, :-2] + 2 * planes[:, 1:-1] + planes[:, 2:]) / 4
    soft[:, :, 1:-1] = (soft[:, :, :-2] + 2 * soft[:, :, 1:-1] + soft[:, :, 2:]) / 4
    return soft


def _metal(hu: np.ndarray, mask: np.ndarray, heights: np.ndarray, each: np.ndarray) -> float:
    """ml within the outline of the brain as seen from above, and no lower than the brain: there are teeth."""
    held = mask.any(axis=(1, 2))
    if not held.any():
        return 0.0
    level = heights > heights[held].min() - LOWER
    dense = (hu > METAL) & mask.any(axis=0) & level[:, None, None]
    return float(dense.sum(axis=(1, 2)) @ each) * SPACING**2 / 1000


def _jump(hu: np.ndarray, mask: np.ndarray, heights: np.ndarray) -> float:
    """mm that the middle of the skull steps to the side from one slice to the next, beyond the lean of the whole head.

    A head narrows towards front and vertex, but evenly on both sides; so only steps to a side are steps of the patient.
    """
    order = np.argsort(heights)
    order = order[_tall(mask)[order]]
    middles = np.array([_middle(hu[s] > HARD) for s in order]) * SPACING
    steps, between = np.diff(middles), np.diff(heights[order])
    if not steps.size or not np.isfinite(steps).any():
        return 0.0
    lean = np.nanmedian(steps / between)
    return float(np.nanmax(np.abs(steps - lean * between)))


def _middle(hard: np.ndarray) -> float:
    """The column half way between the left and right rim of the skull, over the rows where it is wide."""
    rows = np.flatnonzero(hard.any(axis=1))
    if not rows.size:
        return float("nan")
    first, last = hard[rows].argmax(axis=1), hard.shape[1] - 1 - hard[rows, ::-1].argmax(axis=1)
    wide = last - first > WIDE * (last - first).max()
    return float(np.median((first + last)[wide])) / 2


def _tall(mask: np.ndarray) -> np.ndarray:
    """(slices,) bool: those with a good part of the largest area of brain."""
    area = mask.sum(axis=(1, 2))
    tall: np.ndarray = area >= max(TALL * area.max(), 1.0)
    return tall


def _noise(volume: Volume, prepared: Prepared) -> tuple[float, float]:
    """Standard deviation and grain of the noise in quiet brain of the source slices, medians over some of them."""
    tall = np.flatnonzero(_tall(prepared.mask))
    if not tall.size:
        return 0.0, 0.0
    chosen = tall[np.unique(np.linspace(0, len(tall) - 1, SAMPLED).astype(int))]
    sampled = np.zeros_like(prepared.mask)
    sampled[chosen] = prepared.mask[chosen]
    deep = _eroded(prepared.mask, 2 * DEEP)[None].astype(np.float32)
    quiet = preprocess.to_source(deep, replace(prepared, mask=sampled), volume)[0] > 0
    each = [_noise_of(volume.hu[s], quiet[s], volume.pixel_spacing) for s in chosen if quiet[s].any()]
    return (0.0, 0.0) if not each else tuple(float(v) for v in np.median(each, axis=0))  # type: ignore[return-value]


def _noise_of(plane: np.ndarray, quiet: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    image = sitk.GetImageFromArray(np.clip(plane, -100.0, 200.0))
    image.SetSpacing((spacing[1], spacing[0]))
    rest = np.where(quiet, plane - sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, SMOOTHED)), 0.0)
    variance = float(np.median(np.abs(rest[quiet])) * 1.4826) ** 2
    steps = max(1, round(LAG / spacing[1]))
    both = quiet[:, steps:] & quiet[:, :-steps]
    together = np.clip(rest[:, steps:] * rest[:, :-steps], -9 * variance, 9 * variance)[both]
    return variance**0.5, float(together.mean()) / variance if variance and both.any() else 0.0


def _brain_hu(prepared: Prepared) -> np.ndarray:
    """(slices, 256, 256) HU as the generator sees them, 0 to 80."""
    low, high = preprocess.WINDOW
    hu: np.ndarray = (prepared.planes[:, 1] + 1) * ((high - low) / 2) + low
    return hu


def _blocks(planes: np.ndarray, side: int) -> np.ndarray:
    """(slices, rows / side, side, columns / side, side)."""
    slices, rows, columns = planes.shape
    return planes.reshape(slices, rows // side, side, columns // side, side)
