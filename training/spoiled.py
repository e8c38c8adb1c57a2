"""Heads spoiled on purpose: what the quality gate must notice, made from a head that it accepts, real or virtual.

Likenesses, and crude ones: they show that a check sees what it is for, not how often it would in a hospital.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy import ndimage

from inference import preprocess
from inference.preprocess import Prepared
from inference.volume import AIR, THINNEST, Volume

Spoil = Callable[[Volume], Volume]

# Arteries and sinuses in fractions of the box around the brain: to the left and to the back from -1 to 1, upwards from
# 0 at the foramen magnum to 1 at the vertex. Each has a radius in mm; those beside the middle are on both sides.
VESSELS: tuple[tuple[float, tuple[tuple[float, float, float], ...]], ...] = (
    (2.0, ((0.18, -0.1, 0.2), (0.18, -0.12, 0.31))),  # internal carotid
    (1.5, ((0.18, -0.12, 0.31), (0.5, -0.15, 0.33))),  # M1
    (1.2, ((0.5, -0.15, 0.33), (0.62, 0.0, 0.45), (0.7, 0.25, 0.62), (0.6, 0.2, 0.85))),  # M2 to M4, superior
    (1.2, ((0.5, -0.15, 0.33), (0.6, 0.15, 0.42), (0.68, 0.45, 0.5))),  # inferior
    (1.2, ((0.5, -0.15, 0.33), (0.55, -0.35, 0.5), (0.5, -0.45, 0.7))),  # frontal
    (1.1, ((0.18, -0.12, 0.31), (0.03, -0.25, 0.34), (0.03, -0.6, 0.5), (0.03, -0.4, 0.75))),  # anterior cerebral
    (1.5, ((0.0, 0.1, 0.08), (0.0, 0.0, 0.28))),  # basilar
    (1.2, ((0.0, 0.0, 0.28), (0.25, 0.15, 0.31), (0.2, 0.6, 0.36))),  # posterior cerebral
    (2.0, ((0.0, 0.35, 0.45), (0.0, 0.85, 0.38))),  # straight sinus
)
SOFT, HARD = 0.45, 0.26  # mm, standard deviation of the grain of the noise of a soft and of a bone kernel
FINE = 5  # planes to the thickness of a slice, in which vessels are drawn
BALL, TEETH = 4.0, 9  # mm, radius of a piece of metal; streaks that start from it


def noisy(head: Volume, sd: float, seed: int = 0) -> Volume:
    """Noise of so many HU added, with the grain of a soft kernel."""
    return as_scanned(head, head.hu + _noise(head, sd, SOFT, seed))


def through_bone_kernel(head: Volume, noise: float = 17.0, seed: int = 0) -> Volume:
    """Edges sharpened, and noise of so many HU whose grain is finer than a soft kernel's."""
    between = head.pixel_spacing
    blur = (0.0, 1.0 / between[0], 1.0 / between[1])
    sharp = head.hu + 1.5 * (head.hu - ndimage.gaussian_filter(head.hu, blur))
    return as_scanned(head, sharp + _noise(head, noise, HARD, seed))


def stepped_aside(head: Volume, mm: float) -> Volume:
    """The upper half of the slices scanned after the patient has moved to one side."""
    hu = head.hu.copy()
    half = len(hu) // 2
    hu[half:] = ndimage.shift(hu[half:], (0, 0, mm / head.pixel_spacing[1]), order=1, cval=AIR)
    return replace(head, hu=hu)


def cropped(head: Volume, share: float) -> Volume:
    """A field of view that leaves out so much of the columns."""
    columns = int(head.hu.shape[2] * share)
    moved = head.positions + columns * head.pixel_spacing[1] * head.row_direction
    return replace(head, hu=head.hu[:, :, columns:], positions=moved)


def rescaled(head: Volume, slope: float = 1.0, intercept: float = 0.0) -> Volume:
    """Values read with a wrong Rescale Slope or Intercept."""
    return as_scanned(head, head.hu * slope + intercept)


def thicker(head: Volume, slices: int) -> Volume:
    """So many slices averaged into one."""
    count = len(head.hu) // slices * slices

    def joined(each: np.ndarray) -> np.ndarray:
        mean: np.ndarray = each[:count].reshape(-1, slices, *each.shape[1:]).mean(axis=1)
        return mean

    order = tuple(range(count // slices))
    thickness = head.slice_thickness * slices
    return replace(head, hu=joined(head.hu), positions=joined(head.positions), slice_thickness=thickness, order=order)


def half(head: Volume) -> Volume:
    """Only the upper half of the slices."""
    kept = slice(len(head.hu) // 2, None)
    hu, positions = head.hu[kept], head.positions[kept]
    return replace(head, hu=hu, positions=positions, order=tuple(range(len(hu))))


def with_metal(head: Volume, hu: float = 400.0) -> Volume:
    """A clip in the left half of the brain, and bright and dark streaks of so many HU from it through its slices."""
    prepared = preprocess.prepare(head)
    clip = _in_box(prepared, (0.35, 0.0, 0.4))
    made = head.hu.copy()
    for s, position in enumerate(head.positions):
        away, angle = _polar(head, prepared, position, clip)
        near = abs(position @ prepared.grid.axes[2] - clip[2]) < BALL + head.slice_thickness / 2
        if near:
            made[s] += hu * np.cos(TEETH * angle) / (1.0 + away / 15.0) * (made[s] > -300)
            made[s][away < BALL] = 3071.0
    return as_scanned(head, made)


def with_contrast(head: Volume, hu: float = 260.0) -> Volume:
    """Arteries and sinuses denser by so many HU, as after contrast."""
    prepared = preprocess.prepare(head)
    tubes = [(radius, _along(prepared, points, side)) for radius, points in VESSELS for side in (1, -1)]
    made = head.hu + np.float32(hu) * np.stack([_in_slice(head, prepared, s, tubes) for s in range(len(head.hu))])
    return as_scanned(head, made)


def as_scanned(head: Volume, hu: np.ndarray) -> Volume:
    """Values as inference.volume lets them through."""
    return replace(head, hu=np.where(hu < THINNEST, AIR, np.minimum(hu, 3071.0)).astype(np.float32))


SPOILED: Mapping[str, Spoil] = {
    "contrast in the vessels, no tag": with_contrast,
    "bone kernel": through_bone_kernel,
    "noise of 20 HU more": lambda head: noisy(head, 20.0),
    "half a head": half,
    "field of view cuts a quarter off": lambda head: cropped(head, 0.3),
    "metal, streaks of 100 HU": lambda head: with_metal(head, 100.0),
    "metal, streaks of 400 HU": with_metal,
    "4 mm of motion": lambda head: stepped_aside(head, 4.0),
    "12 mm of motion": lambda head: stepped_aside(head, 12.0),
    "40 HU too high": lambda head: rescaled(head, 1.0, 40.0),
    "100 HU too high": lambda head: rescaled(head, 1.0, 100.0),
    "intercept forgotten": lambda head: rescaled(head, 1.0, 1024.0),
    "slope halved": lambda head: rescaled(head, 0.5, 0.0),
}


def _noise(head: Volume, sd: float, grain: float, seed: int) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal(head.hu.shape, dtype=np.float32)
    grains = ndimage.gaussian_filter(white, (0.0, grain / head.pixel_spacing[0], grain / head.pixel_spacing[1]))
    noise: np.ndarray = grains * (sd / grains.std())
    return noise


def _in_box(prepared: Prepared, place: tuple[float, float, float]) -> np.ndarray:
    """(3,) mm along the axes of the model grid."""
    planes, rows, columns = (np.flatnonzero(prepared.mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    left, back, up = place
    column = (columns[0] + columns[-1]) / 2 + left * (columns[-1] - columns[0]) / 2
    row = (rows[0] + rows[-1]) / 2 + back * (rows[-1] - rows[0]) / 2
    heights = prepared.grid.heights[planes]
    x, y = prepared.grid.origin + preprocess.SPACING * np.array([column, row])
    return np.array([x, y, heights.min() + up * (heights.max() - heights.min())])


def _along(prepared: Prepared, points: tuple[tuple[float, float, float], ...], side: int) -> np.ndarray:
    """(n, 3) places every half millimetre along a line of points."""
    corners = np.array([_in_box(prepared, (side * x, y, z)) for x, y, z in points])
    reached = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))]
    wanted = np.arange(0.0, reached[-1], 0.5)
    return np.stack([np.interp(wanted, reached, corners[:, axis]) for axis in range(3)], axis=1)


def _polar(head: Volume, prepared: Prepared, position: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) mm and angle from a place, within one slice."""
    x, y = _pixels(head, prepared, position)
    return np.hypot(x - centre[0], y - centre[1]), np.arctan2(y - centre[1], x - centre[0])


def _pixels(head: Volume, prepared: Prepared, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) mm along the first two axes of the model grid, of the pixels of one slice."""
    rows, columns = np.indices(head.hu.shape[1:])
    between_rows, between_columns = head.pixel_spacing
    axes = prepared.grid.axes
    x, y = (
        axis @ position
        + columns * between_columns * (axis @ head.row_direction)
        + rows * between_rows * (axis @ head.column_direction)
        for axis in axes[:2]
    )
    return x, y


def _in_slice(head: Volume, prepared: Prepared, s: int, tubes: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """(rows, columns) share of each pixel of a slice that vessels fill."""
    share = np.zeros(head.hu.shape[1:], np.float32)
    height = float(head.positions[s] @ prepared.grid.axes[2])
    x, y = _pixels(head, prepared, head.positions[s])
    for offset in (np.arange(FINE) - (FINE - 1) / 2) / FINE * head.slice_thickness:
        filled = np.zeros(share.shape, bool)
        for radius, places in tubes:
            below = radius**2 - (places[:, 2] - height - offset) ** 2
            for (px, py, _), left in zip(places[below > 0], below[below > 0], strict=True):
                _fill(filled, x, y, px, py, float(left))
        share += filled / np.float32(FINE)
    return share


def _fill(filled: np.ndarray, x: np.ndarray, y: np.ndarray, px: float, py: float, radius2: float) -> None:
    """A disc; only the few pixels about it are looked at, whatever way the rows and columns run."""
    row = int(np.abs(y[:, 0] - py).argmin()) if abs(y[-1, 0] - y[0, 0]) > 1 else int(np.abs(x[:, 0] - px).argmin())
    column = int(np.abs(x[0] - px).argmin()) if abs(x[0, -1] - x[0, 0]) > 1 else int(np.abs(y[0] - py).argmin())
    reach = 8
    window = (slice(max(row - reach, 0), row + reach), slice(max(column - reach, 0), column + reach))
    filled[window] |= (x[window] - px) ** 2 + (y[window] - py) ** 2 < radius2
