"""The brain in a head CT, foramen magnum to vertex: where maps may have values.

The shape is found on a coarse grid of even steps, so that the time hardly grows with the number of slices: what lies
deep enough within soft tissue is core, the largest connected core is the brain (orbits, muscles and scalp hang on it by
canals narrower than that depth), and it ends where it narrows to the foramen magnum. The surface is then found slice by
slice on the model grid, by Hounsfield units alone and close to the coarse one.
"""

import numpy as np
import SimpleITK as sitk  # noqa: N813

COARSE = 2  # model pixels to a coarse pixel, in each direction of the plane
STEP = 2.0  # mm between coarse planes
# Bone and air are clipped 100 HU away from brain, so that the surface of a brain lies half way, at 50 HU, and stays in
# its place when pixels and slices are averaged. Unclipped, a thick slice of bone would swallow the brain beside it.
BRAIN, FAR, HALF_WAY = 40.0, 100.0, 50.0
SMOOTHING = 1.0  # mm, standard deviation
DEPTH = 6.0  # mm; the canals of the orbit and the gaps between vertebrae are narrower than twice this
HALF_VOXEL = 1.0  # mm; distances are between coarse voxels, so what is grown back needs as much more
FORAMEN_MAGNUM = 8.0  # cm2, about 32 mm across; where the brain is narrower it has become spinal cord
SOFT = (-30.0, 100.0)  # HU on the model grid: fluid with the noise of a thin slice to fresh blood
NEAR = 2.5  # mm about the coarse surface within which the Hounsfield units decide
GROWTH = 3  # pixels that soft tissue may reach farther within its slice; a vertex between thick slices needs them


def extract(hu: np.ndarray, offsets: np.ndarray, spacing: float) -> np.ndarray:
    """(slices, rows, columns) bool: the brain with its ventricles and the fluid around it; empty where there is none.

    hu: (slices, rows, columns) on the model grid, even numbers of rows and columns; offsets: (slices,) mm towards the
    head, ascending, in any steps; spacing: mm between pixels.
    """
    depth = _depth(hu, offsets, spacing)
    if depth is None:
        return np.zeros(hu.shape, bool)
    soft = (hu > SOFT[0]) & (hu < SOFT[1])
    reachable = soft & (depth > -NEAR - GROWTH * spacing)
    brain = soft & (depth > -NEAR)
    for _ in range(GROWTH):
        brain = _spread(brain) & reachable
    return _without_holes(brain | (depth > NEAR))


def _depth(hu: np.ndarray, offsets: np.ndarray, spacing: float) -> np.ndarray | None:
    """(slices, rows, columns) mm inside the coarse surface of the brain, negative outside; None without a brain."""
    levels = np.arange(offsets[0], offsets[-1] + STEP / 2, STEP)
    contrast = np.clip(_shrink(np.clip(hu, BRAIN - FAR, BRAIN + FAR)) - BRAIN, -FAR, FAR)
    coarse = sitk.GetImageFromArray(_between(contrast, offsets, levels))
    coarse.SetSpacing((spacing * COARSE, spacing * COARSE, STEP))
    shape = _shape(sitk.DiscreteGaussian(coarse, SMOOTHING**2))
    if shape is None:
        return None
    return _grow(_between(sitk.GetArrayFromImage(_distance_into(shape)), levels, offsets))


def _shape(contrast: sitk.Image) -> sitk.Image | None:
    """The brain, 1 in 0, on the coarse grid, with calcifications, clots and clips inside it filled."""
    soft = sitk.BinaryThreshold(contrast, -HALF_WAY, HALF_WAY)
    core = _largest(_distance_into(soft) > DEPTH)
    core = None if core is None else _largest(_above_foramen_magnum(core, _swell(core)))
    return None if core is None else sitk.BinaryFillhole(_swell(core))


def _above_foramen_magnum(core: sitk.Image, brain: sitk.Image) -> sitk.Image:
    """The core without all below the level where the brain, followed down from its widest, becomes too narrow."""
    pixel = brain.GetSpacing()[0] * brain.GetSpacing()[1] / 100.0  # cm2
    area = sitk.GetArrayViewFromImage(brain).sum(axis=(1, 2)) * pixel
    narrow = np.flatnonzero(area[: int(area.argmax())] < FORAMEN_MAGNUM)
    if narrow.size:
        core[:, :, : int(narrow[-1]) + 1] = 0
    return core


def _swell(core: sitk.Image) -> sitk.Image:
    return _distance_into(core) > -(DEPTH + HALF_VOXEL)


def _distance_into(mask: sitk.Image) -> sitk.Image:
    """mm from the surface of a mask, positive inside; the head goes on beyond the image, so its edge is no surface."""
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)


def _largest(mask: sitk.Image) -> sitk.Image | None:
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True) == 1
    return largest if sitk.GetArrayViewFromImage(largest).any() else None


def _spread(mask: np.ndarray) -> np.ndarray:
    """The mask and its four neighbours within each slice."""
    wider = mask.copy()
    wider[:, 1:] |= mask[:, :-1]
    wider[:, :-1] |= mask[:, 1:]
    wider[:, :, 1:] |= mask[:, :, :-1]
    wider[:, :, :-1] |= mask[:, :, 1:]
    return wider


def _without_holes(mask: np.ndarray) -> np.ndarray:
    for s in np.flatnonzero(mask.any(axis=(1, 2))):
        filled = sitk.BinaryFillhole(sitk.GetImageFromArray(mask[s].astype(np.uint8)))
        mask[s] = sitk.GetArrayViewFromImage(filled)
    return mask


def _shrink(planes: np.ndarray) -> np.ndarray:
    """The mean of each block of 2 x 2 pixels."""
    rows = planes[:, ::COARSE] + planes[:, 1::COARSE]
    mean: np.ndarray = (rows[:, :, ::COARSE] + rows[:, :, 1::COARSE]) / 4
    return mean


def _grow(planes: np.ndarray) -> np.ndarray:
    """Back from blocks to pixels, linearly between the centres of the blocks."""
    grown: np.ndarray = sitk.GetArrayFromImage(sitk.Expand(sitk.GetImageFromArray(planes), (COARSE, COARSE, 1)))
    return grown


def _between(planes: np.ndarray, offsets: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Planes at other places along the normal, linearly; the ends are repeated."""
    index = np.interp(wanted, offsets, np.arange(len(offsets)))
    low = np.minimum(index.astype(int), len(offsets) - 2)
    upper = (index - low).astype(np.float32)[:, None, None]
    between: np.ndarray = planes[low] * (1 - upper) + planes[low + 1] * upper
    return between
