"""How the head of one scan lies in another: a rigid transform between two CT volumes, judged before it is believed.

Volumes are straightened by the node's own preprocessing first: readers of series that keep one direction matrix drop
the shear of a tilted gantry silently, and then everything is out of place by millimetres.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from inference import preprocess
from inference.preprocess import SIDE, SPACING
from inference.volume import Volume
from training.cohort import Rejected

HALF = 2  # model pixels, in each direction of the plane, to a pixel that is registered: four times as fast
HU = (-100.0, 300.0)  # what is between air and hard bone decides
BINS, SAMPLED = 48, 0.25  # of Mattes mutual information; regular sampling
# The last level is smoothed too: unsmoothed, thick slices of noise draw each other onto the same planes, 0.8 mm away.
SHRINK, SMOOTH = (3, 2, 1), (3.0, 2.0, 1.0)  # levels, coarse to fine; factors, and standard deviations in mm
FIRST_STEP, LAST_STEP, ITERATIONS = 2.0, 0.001, 150  # mm, mm
FARTHEST = 40.0  # mm that a head may have moved between two scans
AWAY = 20.0  # mm: a found place is compared with places so far to the left, right, front and back
LEAST_GAIN = 0.15  # of mutual information over the best of these; two scans of one virtual head gain 0.5 to 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where points of the fixed scan lie in the moving one.

    matrix: (4, 4), LPS mm of the fixed to LPS mm of the moving scan. shift: mm that the centre of the fixed scan moves.
    gain: mutual information at this place, less the best 20 mm away from it.
    """

    matrix: np.ndarray
    shift: float
    gain: float


def register(fixed: Volume, moving: Volume) -> Registration:
    """Rigid, by mutual information, from where the two headers say that the head lies. Raises Rejected."""
    fixed_image, moving_image = straight(fixed), straight(moving)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(_centre(fixed_image))
    method = _method()
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP, LAST_STEP, ITERATIONS, 0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SMOOTH)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed_image, moving_image)
    except RuntimeError as problem:  # of ITK, where the two hardly overlap
        raise Rejected("head CT and perfusion do not overlap where their headers put them") from problem
    found = Registration(_matrix(transform), _shift(transform), _gain(fixed_image, moving_image, transform))
    if found.shift > FARTHEST:
        raise Rejected(f"registration moves the head by {found.shift:.0f} mm; more than {FARTHEST:.0f} is not believed")
    if found.gain < LEAST_GAIN:
        raise Rejected(
            f"registration gains {found.gain:.2f} of mutual information over places {AWAY:.0f} mm away; "
            f"under {LEAST_GAIN} head CT and perfusion show different things"
        )
    return found


def straight(volume: Volume) -> sitk.Image:
    """A volume without its shear, on even steps in LPS mm, clamped to what a registration should see."""
    grid = preprocess.grid_about_head(volume)
    order = np.argsort(grid.heights)
    heights, planes = grid.heights[order], preprocess.on_grid(volume, grid)[order]
    step = float(np.median(np.diff(heights)))
    levels = np.arange(heights[0], heights[-1] + step / 2, step)
    index = np.interp(levels, heights, np.arange(len(heights)))
    low = np.minimum(index.astype(int), len(heights) - 2)
    upper = (index - low).astype(np.float32)[:, None, None]
    clamped = np.clip(planes[low] * (1 - upper) + planes[low + 1] * upper, *HU)
    image = sitk.GetImageFromArray(
        clamped.reshape(len(levels), SIDE // HALF, HALF, SIDE // HALF, HALF).mean(axis=(2, 4))
    )
    image.SetSpacing((HALF * SPACING, HALF * SPACING, step))
    image.SetOrigin(tuple(np.array([*(grid.origin + (HALF - 1) / 2 * SPACING), heights[0]]) @ grid.axes))
    image.SetDirection(tuple(grid.axes.T.ravel()))
    return image


def _method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLED)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _centre(image: sitk.Image) -> tuple[float, float, float]:
    middle: tuple[float, float, float] = image.TransformContinuousIndexToPhysicalPoint(
        [(count - 1) / 2 for count in image.GetSize()]
    )
    return middle


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    """(4, 4) of a transform about a centre."""
    turn, centre = np.array(transform.GetMatrix()).reshape(3, 3), np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre + np.array(transform.GetTranslation()) - turn @ centre
    return matrix


def _shift(transform: sitk.Euler3DTransform) -> float:
    return float(np.linalg.norm(transform.GetTranslation()))


def _gain(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Euler3DTransform) -> float:
    """How much more the two say of each other at this place than at any of four places about it."""
    away = [_information(fixed, moving, transform, (x, y)) for x, y in ((AWAY, 0), (-AWAY, 0), (0, AWAY), (0, -AWAY))]
    return _information(fixed, moving, transform, (0, 0)) - max(away)


def _information(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Euler3DTransform, off: tuple[float, float]
) -> float:
    """Mattes mutual information with the transform displaced by some mm to the left and to the back."""
    displaced = sitk.Euler3DTransform(transform)
    x, y, z = transform.GetTranslation()
    displaced.SetTranslation((x + off[0], y + off[1], z))
    method = _method()
    method.SetInitialTransform(displaced)
    return -float(method.MetricEvaluate(fixed, moving))
