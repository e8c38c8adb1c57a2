"""Maps smoothed across slices: what one slice says of late blood is weighed with what its neighbours say.

The generator sees 8 mm of the head at a time and guesses in each slice anew how late the blood is; the territory of a
vessel is far taller. Only what exceeds healthy tissue is smoothed, so that healthy tissue keeps its detail. How it is
done belongs to the weights (`Manifest.smoothing`) and is chosen on validation patients.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Smoothing:
    """above: in the unit of the map, what healthy tissue has at most. sigma_mm: of a Gaussian along the normal."""

    above: float
    sigma_mm: float


def across_slices(
    values_SYX: np.ndarray, mask_SYX: np.ndarray, heights_S: np.ndarray, smoothing: Smoothing
) -> np.ndarray:
    """The map with the Gaussian mean of the excess, over the brain below and above a pixel, in place of its own.

    values_SYX: (S, Y, X) in the unit of the map; mask_SYX: bool, the brain; heights_S: mm along the normal, in either
    direction, however unevenly. Returns float32, 0 outside the brain.
    """
    inside = np.where(mask_SYX, values_SYX, np.float32(0.0))
    if len(heights_S) < 2:
        return inside
    excess = np.maximum(inside - np.float32(smoothing.above), 0.0)
    weights_SS = np.exp(-0.5 * (np.subtract.outer(heights_S, heights_S) / smoothing.sigma_mm) ** 2)
    weights_SS = (weights_SS * np.abs(np.gradient(heights_S))).astype(
        np.float32
    )  # a slice counts for what it stands for
    sums = np.tensordot(weights_SS, excess, axes=1)
    shares = np.tensordot(weights_SS, mask_SYX.astype(np.float32), axes=1)
    mean = np.divide(sums, shares, out=np.zeros_like(sums), where=mask_SYX)
    smoothed: np.ndarray = inside - excess + mean
    return smoothed
