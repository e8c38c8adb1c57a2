"""training.retest: two predictions are compared in the patient, wherever the grids of the scans lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.regions import Regions
from training import retest

SHAPE = (14, 64, 64)
VOXEL_ML = 0.5


def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    inside: np.ndarray = (((places - centre) / radii) ** 2).sum(axis=-1) < 1
    return inside


BRAIN = ball((6.5, 31.0, 32.0), (5.0, 24.0, 19.0))
LATE = ball((7.0, 28.0, 40.0), (3.0, 9.0, 7.0)) & BRAIN
CORE = ball((7.0, 27.0, 41.0), (2.0, 4.0, 4.0)) & BRAIN


def regions(core: np.ndarray, late: np.ndarray) -> Regions:
    return Regions(core, late, 40.0, core.sum() * VOXEL_ML, late.sum() * VOXEL_ML)


def moved(region: np.ndarray, by: tuple[int, int, int]) -> np.ndarray:
    """The same place on a grid that begins elsewhere; slices without brain are left out, as in a prepared patient."""
    slices = np.flatnonzero(BRAIN.any(axis=(1, 2)))
    kept = region[slices[0] - by[0] : slices[-1] + 1]
    return np.roll(kept, by[1:], axis=(1, 2))


STEPS = st.integers(-retest.REACH, retest.REACH)


@given(st.tuples(st.integers(-1, 1), STEPS, STEPS))
def test_the_same_regions_on_another_grid_are_the_same(by):
    first, second = regions(CORE, LATE), regions(moved(CORE, by), moved(LATE, by))
    found = retest.apart(first, BRAIN, second, moved(BRAIN, by))
    assert found == {
        "difference_hypoperfused_ml": 0.0,
        "difference_core_ml": 0.0,
        "dice_hypoperfused": 1.0,
        "dice_core": 1.0,
    }


def test_a_brain_whose_rim_is_noise_is_laid_in_its_place():
    """Two percent of the brain's voxels differ, all of them at its rim."""
    random = np.random.default_rng(0)
    rim = BRAIN & ~ball((6.5, 31.0, 32.0), (4.7, 23.0, 18.0))
    frayed = BRAIN & ~(rim & (random.random(SHAPE) < 0.3))
    by = (0, 1, -1)
    found = retest.apart(regions(CORE, LATE), BRAIN, regions(moved(CORE, by), moved(LATE, by)), moved(frayed, by))
    assert found["dice_hypoperfused"] == 1.0


def test_what_differs_is_counted_by_hand():
    smaller = LATE & ball((7.0, 28.0, 40.0), (2.0, 9.0, 7.0))
    found = retest.apart(regions(CORE, LATE), BRAIN, regions(np.zeros_like(CORE), smaller), BRAIN)
    lost = int(LATE.sum() - smaller.sum())
    assert found["difference_hypoperfused_ml"] == -lost * VOXEL_ML
    assert found["dice_hypoperfused"] == pytest.approx(2 * smaller.sum() / (LATE.sum() + smaller.sum()))
    assert (found["difference_core_ml"], found["dice_core"]) == (-CORE.sum() * VOXEL_ML, 0.0)


def test_patients_without_a_region_in_either_scan_have_no_dice():
    nothing = regions(np.zeros_like(CORE), np.zeros_like(LATE))
    found = retest.apart(nothing, BRAIN, nothing, BRAIN)
    assert np.isnan(found["dice_core"]) and np.isnan(found["dice_hypoperfused"])
    assert found["difference_hypoperfused_ml"] == 0.0
