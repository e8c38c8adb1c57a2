"""What a CT scanner adds: sharpness, noise, beam hardening, streaks, a moving patient, a head rest.

The grain of the noise is set in mm, not in pixels, after the real GE head of the test data: its autocorrelation in
quiet brain is .7 at .49 mm and .2 to .4 at .98 mm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from training.simulate.geometry import Grid
from training.simulate.head import AIR_HU
from training.simulate.params import PatientParams, Scanner, population_of

PROJECTED = 96  # pixels a side and, times 1.5, views: beam hardening is smooth, so it is computed coarsely
REFERENCE_THICKNESS = 5.0  # mm at which the noise of an acquisition is stated
REFERENCE_WIDTH = 18.0  # cm of water: the head at which it is stated
NOISE_PER_CM = 0.06  # relative growth of noise with the water width, tube current modulation included
WATER_PER_CM = 0.19  # attenuation of water at 70 keV
HARDENING = 9.0  # HU of the darkest band between the petrous bones, about


@dataclass(frozen=True, slots=True)
class Kernel:
    """A reconstruction kernel: blur and noise grain as standard deviations in mm, noise relative to the soft kernel.

    edge: overshoot at edges, as a share of what a blur of 1.2 mm removes.
    """

    name: str
    blur: float
    grain: float
    noise: float
    edge: float


_BONE = Kernel("bone", blur=0.28, grain=0.26, noise=4.5, edge=0.9)
KERNELS: Mapping[Scanner, Mapping[str, Kernel]] = {
    "usual": {"soft": Kernel("soft", blur=0.50, grain=0.42, noise=1.0, edge=0.0), "bone": _BONE},
    # Smoother and blotchier, as an iterative reconstruction of a low dose is; the dose is Population.noise.
    "other": {"soft": Kernel("smooth", blur=0.75, grain=0.62, noise=1.0, edge=0.0), "bone": _BONE},
}


def kernel_of(params: PatientParams, name: str) -> Kernel:
    """The kernel of that name, "soft" or "bone", of the scanner in which the patient lies."""
    return KERNELS[population_of(params.seed).scanner][name]


def blurred(planes: Tensor, sd_pixels: float) -> Tensor:
    """(n, rows, columns) convolved in-plane with a Gaussian."""
    line = _gaussian(sd_pixels)
    reach = len(line) // 2
    rows = functional.conv2d(planes[:, None], line[None, None, :, None], padding=(reach, 0))
    return functional.conv2d(rows, line[None, None, None, :], padding=(0, reach))[:, 0]


def _gaussian(sd: float) -> Tensor:
    reach = max(1, int(np.ceil(3.0 * sd)))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sd) ** 2)
    return line / line.sum()


def reconstructed(hu: Tensor, spacing: float, kernel: Kernel) -> Tensor:
    """The noise-free head through a kernel."""
    sharp = blurred(hu - AIR_HU, kernel.blur / spacing)  # 0 outside the field of view, so that rims stay air
    if kernel.edge:
        sharp = sharp + kernel.edge * (sharp - blurred(sharp, 1.2 / spacing))
    return sharp + AIR_HU


def noise(random: np.random.Generator, hu: np.ndarray, grid: Grid, sd: float, kernel: Kernel) -> np.ndarray:
    """(slices, rows, columns) HU to add; more of it in wide and bony slices and in the middle of the head.

    sd: HU in 5 mm slices of an average head with the soft kernel.
    """
    white = torch.from_numpy(random.standard_normal(hu.shape, dtype=np.float32))
    pixel, wide = kernel.grain / grid.spacing, 2.0 / grid.spacing
    # Filtered back projection leaves no noise at low frequencies.
    grains = blurred(white, pixel) - 0.3 * blurred(white, wide)
    narrow_line, wide_line = (_gaussian(value).numpy().astype(float) for value in (pixel, wide))
    power = _power(narrow_line, wide_line)
    thickness = np.sqrt(REFERENCE_THICKNESS / grid.thickness)
    level = sd * kernel.noise * thickness * np.exp(NOISE_PER_CM * (_water_width(hu, grid.spacing) - REFERENCE_WIDTH))
    x, y = (np.arange(n) - (n - 1) / 2 for n in (grid.columns, grid.rows))
    radius2 = (x[None, :] ** 2 + y[:, None] ** 2) * grid.spacing**2
    bowl = 0.88 + 0.24 * np.exp(-radius2 / (2 * 60.0**2))
    result: np.ndarray = grains.numpy() / np.sqrt(power) * (level[:, None, None] * bowl).astype(np.float32)
    return result.astype(np.float32)


def _power(narrow: np.ndarray, wide: np.ndarray) -> float:
    """The variance that white noise of unit variance has after the difference of two Gaussian blurs."""
    reach = max(len(narrow), len(wide)) // 2
    narrow, wide = (np.pad(line, reach - len(line) // 2) for line in (narrow, wide))
    return float(((np.outer(narrow, narrow) - 0.3 * np.outer(wide, wide)) ** 2).sum())


def _water_width(hu: np.ndarray, spacing: float) -> np.ndarray:
    """(slices,) cm: diameter of the disc of water that attenuates as much."""
    area = np.clip(hu / 1000.0 + 1.0, 0.0, None).sum(axis=(1, 2), dtype=np.float64) * (spacing / 10.0) ** 2
    width: np.ndarray = np.maximum(np.sqrt(4.0 * area / np.pi), 8.0)
    return width


def beam_hardening(hu: np.ndarray, strength: float, random: np.random.Generator | None) -> np.ndarray:
    """(slices, rows, columns) HU to add: dark bands between dense bones, and streaks of starved rays.

    random: None leaves the streaks out, which are noise.

    Bone is projected, what a water correction misses (the square of the bone's path) and the noise of starved rays are
    projected back. Joseph and Spital, J Comput Assist Tomogr 1978;2:100-108.
    """
    slices, rows, columns = hu.shape
    small = functional.adaptive_avg_pool2d(torch.from_numpy(hu)[:, None], PROJECTED)[:, 0].numpy()
    matrix = _projection()
    cell = 24.0 / PROJECTED  # cm, about; the strength is calibrated, not the length
    bone = matrix @ (np.clip(small - 150.0, 0.0, None) / 1000.0 * cell).reshape(slices, -1).T
    water = matrix @ (np.clip(small / 1000.0 + 1.0, 0.0, None) * cell).reshape(slices, -1).T
    missed = strength * HARDENING * 0.35 * bone**2
    if random is not None:
        starved = np.exp(0.5 * WATER_PER_CM * (water + bone - 22.0)) * smooth_threshold(bone)
        missed -= strength * 4.0 * starved * random.standard_normal(bone.shape)
    artefact = -(matrix.T @ _ramp(missed)).T.reshape(slices, 1, PROJECTED, PROJECTED)
    large = functional.interpolate(
        torch.from_numpy(artefact.astype(np.float32)), size=(rows, columns), mode="bilinear", align_corners=False
    )[:, 0]
    result: np.ndarray = large.numpy()
    return result


def smooth_threshold(bone: np.ndarray) -> np.ndarray:
    """How much a ray is starved by bone: 0 through the vault, 1 along the petrous ridges."""
    share: np.ndarray = np.clip((bone - 2.0) / 3.0, 0.0, 1.0)
    return share


VIEWS = PROJECTED * 3 // 2
BINS = PROJECTED * 3 // 2


@cache
def _projection() -> sparse.csr_array:
    """(views * bins, pixels): parallel projection with linear interpolation between bins."""
    line = np.arange(PROJECTED) - (PROJECTED - 1) / 2
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    inside = np.hypot(x, y) < PROJECTED / 2 + 8
    pixels = np.flatnonzero(inside)
    angles = np.arange(VIEWS)[:, None] * np.pi / VIEWS
    place = np.cos(angles) * x[inside] + np.sin(angles) * y[inside] + (BINS - 1) / 2
    low = np.floor(place).astype(int)
    upper = place - low
    row = low + np.arange(VIEWS)[:, None] * BINS
    column = np.broadcast_to(pixels, row.shape)
    entries = np.concatenate([1.0 - upper.ravel(), upper.ravel()])
    where = (np.concatenate([row.ravel(), row.ravel() + 1]), np.concatenate([column.ravel(), column.ravel()]))
    return sparse.csr_array((entries, where), shape=(VIEWS * BINS, PROJECTED**2))


def _ramp(sinogram: np.ndarray) -> np.ndarray:
    """(views * bins, slices) filtered for back projection, the finest half of the frequencies rolled off."""
    views = sinogram.reshape(VIEWS, BINS, -1)
    size = 2 * BINS
    frequency = np.fft.rfftfreq(size)
    window = frequency * np.cos(np.pi * frequency) ** 2
    filtered = np.fft.irfft(np.fft.rfft(views, size, axis=1) * window[None, :, None], size, axis=1)[:, :BINS]
    result: np.ndarray = filtered.reshape(VIEWS * BINS, -1) * (np.pi / VIEWS)
    return result


def moved(hu: np.ndarray, random: np.random.Generator, mm: float, spacing: float) -> np.ndarray:
    """The head with a double contour in a run of slices, as if it had moved by `mm` during the rotation."""
    slices = len(hu)
    first = int(random.integers(0, max(1, slices // 2)))
    last = first + max(2, slices // 4)
    angle = random.uniform(0, 2 * np.pi)
    result = hu.copy()
    result[first:last] = 0.6 * hu[first:last] + 0.4 * shifted(
        hu[first:last], mm * np.sin(angle) / spacing, mm * np.cos(angle) / spacing
    )
    return result


def shifted(hu: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """In-plane displacement by fractions of a pixel, linearly; what comes in is the opposite rim, air."""
    for pixels, axis in ((rows, 1), (columns, 2)):
        whole = int(np.floor(pixels))
        share = np.float32(pixels - whole)
        hu = (1 - share) * np.roll(hu, whole, axis) + share * np.roll(hu, whole + 1, axis)
    return hu


def with_head_rest(hu: np.ndarray, grid: Grid) -> np.ndarray:
    """A shell of plastic behind and beside the head, painted where there was air."""
    x, y = ((np.arange(n) - (n - 1) / 2) * grid.spacing for n in (grid.columns, grid.rows))
    ring = np.hypot(x[None, :] / 109.0, (y[:, None] + 6.0) / 112.0)
    shell = (np.abs(ring - 1.0) < 0.012) & (y[:, None] > -15.0)
    return np.where(shell[None] & (hu < -700.0), np.float32(60.0), hu)
