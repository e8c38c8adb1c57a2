"""CT perfusion: arteries peak before tissue and veins, a lesion peaks late, and CBV can be measured."""

import numpy as np
import pytest

from tests.training.simulate.conftest import small_grid
from training.simulate import kinetics
from training.simulate.dynamic import Protocol, ctp

GRID = small_grid(slices=3, first=4.0)
SHORT = Protocol(frames=30, interval=2.0, noise=0.0)


@pytest.fixture(scope="module")
def scan(severe):
    return ctp(severe, GRID, SHORT).astype(np.float32)


def test_a_scan_has_one_volume_a_frame_of_whole_hu(severe):
    frames = ctp(severe, GRID, Protocol(frames=2))
    assert frames.shape == (2, *GRID.shape)
    assert frames.dtype == np.int16
    assert np.array_equal(frames, ctp(severe, GRID, Protocol(frames=2)))


def test_tissue_behind_the_occlusion_peaks_late(severe, scan):
    maps = severe.truth(GRID, operational=False)
    enhancement = scan - scan[0]
    healthy = (maps["CBF"] > 30) & (maps["Tmax"] < 1.0)
    late = (maps["CBF"] > 5) & (maps["Tmax"] > 4.0)
    assert enhancement[:, late].mean(axis=1).argmax() > enhancement[:, healthy].mean(axis=1).argmax() + 1


def test_the_area_under_the_curves_is_the_blood_volume(severe, scan):
    """Over healthy tissue, to 10 %: whole HU, and the scan ends before the last of the contrast has passed."""
    maps = severe.truth(GRID, operational=False)
    healthy = (maps["CBF"] > 30) & (maps["Tmax"] < 1.0) & (maps["CBV"] < 4.0)
    tissue = (scan - scan[0])[:, healthy].mean(axis=1).sum() * SHORT.interval
    bank = kinetics.bank(severe.params.bolus, severe.params.blood.residue)
    aif = np.interp(SHORT.times, kinetics.times(), bank.aif).sum() * SHORT.interval
    found = 100.0 * kinetics.HAEMATOCRIT_FACTOR / kinetics.DENSITY * tissue / aif
    assert found == pytest.approx(maps["CBV"][healthy].mean(), rel=0.10)
