"""Baselines: fitted on training patients alone, as good as their definition allows, and nothing outside the brain."""

from pathlib import Path

import numpy as np
import pytest

from inference.maps import KINDS
from tests.training import cohorts
from training import baselines, data
from training.baselines import Pose
from training.data import Arrays, CohortError, Patient

NAMES = tuple(KINDS)
CT = baselines.TARGET


def arrays(seed: int = 0, severity: str = "none", slices: int = 2) -> Arrays:
    made = cohorts.arrays(seed, slices, severity)
    return Arrays(made["planes"], made["maps"], made["mask"], 4.0)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    cohort = cohorts.write(tmp_path_factory.mktemp("cohort"), range(3), slices=2)
    return baselines.fit(data.read_cohort(cohort), NAMES)


def ellipse(row: float, column: float, along: float, across: float, degrees: float) -> np.ndarray:
    rows, columns = np.mgrid[:256, :256]
    angle = np.deg2rad(degrees)
    v = np.cos(angle) * (rows - row) + np.sin(angle) * (columns - column)
    u = -np.sin(angle) * (rows - row) + np.cos(angle) * (columns - column)
    return (v / along) ** 2 + (u / across) ** 2 < 1


def test_the_baselines_are_those_of_the_design(fitted):
    assert list(fitted) == ["zero", "constant", "tissue mean", "mean map", "ncct copy"]
    assert fitted.keys() >= baselines.SIMILARITY_ONLY


@pytest.mark.parametrize("name", ["zero", "constant", "tissue mean", "mean map", "ncct copy"])
def test_a_baseline_is_in_range_and_0_outside_the_brain(fitted, name):
    patient = arrays(7, "severe")
    made = fitted[name].predict(patient)
    assert made.shape == (2, 5, 256, 256) and made.dtype == np.float32
    assert (made.swapaxes(0, 1)[:, ~patient.mask] == 0).all()
    for k, kind in enumerate(NAMES):
        assert made[:, k].min() >= 0 and made[:, k].max() <= KINDS[kind].ceiling


@pytest.mark.parametrize("split", ["validation", "test", "external"])
def test_a_patient_who_is_not_for_training_is_refused_by_name(split):
    with pytest.raises(CohortError, match=f"patient P is in {split}"):
        baselines.fit([Patient("P", None, split, "none", Path("absent"), 8.0, {})], NAMES)


def test_nobody_to_fit_on_is_refused():
    with pytest.raises(CohortError, match="no brain to fit baselines on"):
        baselines.fit([], NAMES)


def test_the_constant_is_the_median_of_all_training_voxels(tmp_path, fitted):
    values = np.concatenate([arrays(seed, cohorts.CLASSES[seed]).maps[:, 0][arrays(seed).mask] for seed in range(3)])
    middle = float(np.median(np.clip(values.astype(float), 0, 60)))
    patient = arrays()
    made = fitted["constant"].predict(patient)[:, 0][patient.mask]
    assert made.max() == made.min() == pytest.approx(middle, abs=60 / baselines.VALUE_BINS)


def test_the_tissue_mean_finds_a_map_that_hangs_on_hounsfield_units_alone():
    patient = arrays()
    tmax = NAMES.index("Tmax")
    patient.maps[:, tmax] = np.where(patient.mask, np.where(patient.planes[:, CT] > 0, 8.0, 2.0), 0)
    sums = baselines.Sums(NAMES)
    sums.add(patient)
    means = baselines.TissueMean(sums.tissue / np.maximum(sums.tissue_counts, 1))
    near_the_step = np.abs(patient.planes[:, CT]) < 0.06
    error = np.abs(means.predict(patient)[:, tmax] - patient.maps[:, tmax])
    assert error[patient.mask & ~near_the_step].max() < 1e-3


def test_the_pose_of_an_ellipse_is_its_axes():
    """The standard deviation of the pixels of an ellipse along an axis is half that axis."""
    mask = np.stack([np.zeros((256, 256), bool), ellipse(120, 135, 90, 70, 8.0), ellipse(120, 135, 90, 70, 8.0)])
    pose = Pose.of(mask)
    assert (pose.first, pose.last) == (1, 2)
    assert pose.middle == pytest.approx([120, 135], abs=0.1)
    turn = np.array([[np.cos(np.deg2rad(8)), -np.sin(np.deg2rad(8))], [np.sin(np.deg2rad(8)), np.cos(np.deg2rad(8))]])
    assert pose.axes == pytest.approx(turn * [45, 35], abs=0.4)


def test_cells_and_voxels_are_each_other_s_inverse():
    pose = Pose.of(np.stack([ellipse(120, 135, 90, 70, 8.0)] * 5))
    voxels = np.array([[0, 2, 4], [60, 120, 190], [90, 135, 180]], float)
    assert pose.to_voxels(pose.to_cells(voxels)) == pytest.approx(voxels)


def posed(degrees: float, row: float, column: float, size: float) -> Arrays:
    """A head in a pose: a map that falls from front to back and from left to right within it."""
    mask = np.stack([ellipse(row, column, 90 * size, 70 * size, degrees)] * 3)
    rows, columns = np.mgrid[:256, :256]
    angle = np.deg2rad(degrees)
    v = (np.cos(angle) * (rows - row) + np.sin(angle) * (columns - column)) / (90 * size)
    u = (-np.sin(angle) * (rows - row) + np.cos(angle) * (columns - column)) / (70 * size)
    maps = np.where(mask, 6 + 3 * v + 2 * u, 0)[:, None].repeat(5, axis=1)
    return Arrays(np.zeros((3, 3, 256, 256), np.float16), maps.astype(np.float16), mask, 4.0)


def test_the_mean_map_follows_the_pose_of_a_head():
    """Fitted on three poses and asked for a fourth: the gradient lies along the head, not along the grid."""
    sums = baselines.Sums(NAMES)
    for pose in ((-8, 120, 130, 0.95), (0, 128, 128, 1.0), (9, 133, 122, 1.05)):
        sums.add(posed(*pose))
    means = (sums.cells / np.maximum(sums.cell_counts, 1e-9)).reshape(5, baselines.LEVELS, baselines.CELLS, -1)
    patient = posed(5, 110, 140, 0.9)
    made = baselines.MeanMap(means).predict(patient)
    tmax = NAMES.index("Tmax")
    error = np.abs(made[:, tmax] - patient.maps[:, tmax])[patient.mask]
    assert np.quantile(error, 0.95) < 0.1


def test_the_copy_is_the_ct_over_the_range_of_each_map(fitted):
    patient = arrays()
    made = fitted["ncct copy"].predict(patient)
    grey = (patient.planes[:, CT][patient.mask].astype(np.float32) + 1) / 2
    np.testing.assert_allclose(made[:, 0][patient.mask], grey * 60, rtol=1e-5)
    np.testing.assert_allclose(made[:, 1][patient.mask], grey * 4, rtol=1e-5)
