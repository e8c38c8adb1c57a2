"""Test against retest: how far apart the predictions from two scans of one patient lie.

Each scan finds its own brain and so has a model grid of its own, which noise may put a voxel or a slice away from the
other's. So one brain is laid over the other first, by whole voxels.
"""

import numpy as np

from inference.regions import Regions
from training.metrics import dice
from training.scores import Figures

REACH = 4  # voxels and slices that noise moves a grid by, at most


def apart(first: Regions, first_mask: np.ndarray, second: Regions, second_mask: np.ndarray) -> Figures:
    """How two predictions for one patient differ, each with the mask of the brain on its own grid.

    difference_hypoperfused_ml, difference_core_ml: second less first.
    dice_hypoperfused, dice_core: between both; nan where neither has the region.
    """
    slices = max(len(first_mask), len(second_mask))
    moved = _between(_laid_out(first_mask, slices), _laid_out(second_mask, slices))

    def common(one: np.ndarray, other: np.ndarray) -> float:
        return dice(_laid_out(one, slices), np.roll(_laid_out(other, slices), moved, axis=(0, 1, 2)))

    return {
        "difference_hypoperfused_ml": second.hypoperfused_ml - first.hypoperfused_ml,
        "difference_core_ml": second.core_ml - first.core_ml,
        "dice_hypoperfused": common(first.hypoperfused, second.hypoperfused),
        "dice_core": common(first.core, second.core),
    }


def _laid_out(region_SYX: np.ndarray, slices: int) -> np.ndarray:
    """With REACH empty voxels on every side, and above them as many slices as are asked for."""
    return np.pad(region_SYX, ((REACH, REACH + slices - len(region_SYX)), (REACH, REACH), (REACH, REACH)))


def _between(first: np.ndarray, second: np.ndarray) -> tuple[int, int, int]:
    """Slices, rows and columns to move the second mask by, so that its areas from plane to plane are the first's."""
    s, y, x = (_step(first.sum(axis=others), second.sum(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    return s, y, x


def _step(first: np.ndarray, second: np.ndarray) -> int:
    return min(range(-REACH, REACH + 1), key=lambda step: int(np.abs(first - np.roll(second, step)).sum()))
