"""Maps smoothed across slices: what one slice says of slow flow is weighed with what its neighbours say.

The generator sees 8 mm of the head at a time and guesses in each slice anew how late the blood is; the territory of a
vessel is far taller. How far a map is smoothed belongs to the weights (`Manifest.smoothing_mm`) and is chosen on
validation patients.
"""

import numpy as np


def across_slices(values_SYX: np.ndarray, mask_SYX: np.ndarray, heights_S: np.ndarray, sigma_mm: float) -> np.ndarray:
    """A Gaussian mean along the normal of the slices, over brain alone.

    values_SYX: (S, Y, X) of any unit; mask_SYX: bool, the brain; heights_S: mm along the normal, in either direction,
    however unevenly. sigma_mm: of the Gaussian; 0 leaves the map as it is. Returns float32, 0 outside the brain.
    """
    inside = np.where(mask_SYX, values_SYX, np.float32(0.0))
    if sigma_mm == 0 or len(heights_S) < 2:
        return inside
    weights_SS = np.exp(-0.5 * (np.subtract.outer(heights_S, heights_S) / sigma_mm) ** 2)
    weights_SS = (weights_SS * np.abs(np.gradient(heights_S))).astype(
        np.float32
    )  # a slice counts for what it stands for
    sums = np.tensordot(weights_SS, inside, axes=1)
    shares = np.tensordot(weights_SS, mask_SYX.astype(np.float32), axes=1)
    smoothed: np.ndarray = np.divide(sums, shares, out=np.zeros_like(sums), where=mask_SYX)
    return smoothed
