"""The NCCT: right greys, signs of the stroke that can be switched off, nothing of the flow where there is no lesion."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.simulate.conftest import small_grid
from training.simulate import qa
from training.simulate.fields import FIELDS, Owner, Streams
from training.simulate.geometry import Grid, even
from training.simulate.patient import Patient
from training.simulate.render import COUNTERFACTUAL, GREY_HU, SIGNAL, VENTRICLE_HU, WHITE_HU, ncct, nccts, thin

GRID = small_grid()
CLOTTED = 4
STATED = {  # lowest, highest, half of the last digit
    "grey": (37.5, 39.0, 0.051),
    "white": (29.5, 30.5, 0.051),
    "ventricle": (6.6, 7.1, 0.051),
    "noise": (5.1, 6.5, 0.051),
    "fluid_share": (0.15, 0.27, 0.0051),
    "skull": (5.5, 9.1, 0.051),
}


@pytest.fixture(scope="module")
def clean(normal):
    return ncct(normal, GRID, noise=False)


def test_the_same_patient_scanned_again_differs_by_noise_alone(normal, clean):
    first, again, second = ncct(normal, GRID), ncct(normal, GRID), ncct(normal, GRID, scan=1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    inside = (clean > 10) & (clean < 60)
    noise = (first - second)[inside].std() / 2**0.5
    assert 0.6 * normal.params.acquisition.noise < noise < 1.6 * normal.params.acquisition.noise


def test_tissue_means_lie_within_1_hu(normal, clean):
    found = qa.truths(normal, GRID, clean)
    assert found.grey == pytest.approx(GREY_HU - 1.2 * (normal.params.age - 60) / 60, abs=1.0)
    assert found.white == pytest.approx(WHITE_HU, abs=1.0)
    assert found.ventricle == pytest.approx(VENTRICLE_HU, abs=2.0)  # narrow: the walls blur into it


def test_no_physiology_shows_where_there_is_no_lesion(normal, clean):
    """The swap test: another patient's flow, the same image, bit for bit."""
    flow = {name for name, field in FIELDS.items() if field.owner is Owner.PHYSIOLOGY} | {"territories"}
    other = Patient(normal.params, Streams(normal.params.seed, normal.params.attempt, frozenset(flow)))
    assert not np.array_equal(other.latent.cbf.numpy(), normal.latent.cbf.numpy())
    assert np.array_equal(ncct(other, GRID, noise=False), clean)


def test_the_infarct_is_darker_on_its_side_and_the_counterfactual_is_not(severe):
    """Severe right M1, 10.7 h: several HU lower where flow is lowest, nothing left without the signs."""
    seen, unseen = ncct(severe, GRID, noise=False), ncct(severe, GRID, COUNTERFACTUAL, noise=False)
    flow = severe.at(("flow",), GRID, planes=False)[0].numpy()
    core = np.zeros(GRID.shape, bool)
    row, rows, column, columns = GRID.box
    core[:, row : row + rows, column : column + columns] = flow < 0.12
    tissue = core & (unseen > 20) & (unseen < 45)
    assert tissue.sum() > 500
    assert (seen - unseen)[tissue].mean() < -3.0
    far = (flow == 1.0) & (np.abs(seen - unseen) > 0.2)
    assert far.mean() < 0.01  # beam hardening and sharpness carry a trace beyond the lesion


def test_the_counterfactual_knows_nothing_of_the_stroke(severe):
    """Bit for bit the image of the same person without an occlusion."""
    sound = replace(severe.params, stroke=None)
    other = Patient(sound, severe.streams)
    assert np.array_equal(ncct(severe, GRID, COUNTERFACTUAL, noise=False), ncct(other, GRID, noise=False))


def test_scans_made_together_are_those_made_one_by_one(severe):
    together = nccts(severe, GRID, [SIGNAL["mid"], COUNTERFACTUAL])
    for made, signs in zip(together, (SIGNAL["mid"], COUNTERFACTUAL), strict=True):
        assert np.array_equal(made, ncct(severe, GRID, signs))


def test_more_signal_is_a_darker_infarct(severe):
    means = [
        ncct(severe, GRID, SIGNAL[level], noise=False).clip(0, 80).mean() for level in ("none", "low", "mid", "high")
    ]
    assert (np.diff(means) < 0).all()


def test_a_dense_clot_shows_in_the_occluded_artery_and_nowhere_else(patient):
    """A clot of 74 HU in the right carotid and M1; without the sign they hold flowing blood."""
    ill = patient(CLOTTED, "severe")
    assert (ill.params.stroke.vessel, ill.params.stroke.side) == ("ICA", "right")
    assert ill.params.stroke.clot > 70
    grid = small_grid(first=-40.0)
    brighter = ncct(ill, grid, noise=False) - ncct(ill, grid, replace(SIGNAL["mid"], clot=False), noise=False)
    x = grid.lps(*grid.pixels(), np.array(grid.heights))[..., 0].numpy()
    shown = brighter > 4.0
    assert 0.1 < shown.sum() * grid.voxel_ml < 3.0
    assert brighter.min() > -2.0  # beam hardening and sharpness carry a trace beyond the clot
    assert (x[shown] < 0).all()  # LPS: the patient's right


def test_the_scanner_of_the_external_patients_has_a_coarser_grain(patient):
    """Autocorrelation of the noise one pixel of 0.9 mm away; the real GE head has .2 to .4 there."""
    grid = Grid(even(3, 5.0, 4.0), 256, 256, 0.9, 5.0)
    grains = []
    for seed in (1, 3_000_001):
        someone = patient(seed, "none")
        mean = ncct(someone, grid, noise=False)
        middle = (ncct(someone, grid) - mean)[:, 96:160, 96:160]
        grains.append((middle[..., 1:] * middle[..., :-1]).mean() / middle.var())
    assert 0.1 < grains[0] < 0.45
    assert grains[1] > grains[0] + 0.15


@pytest.mark.slow
def test_twelve_heads_lie_in_the_ranges_that_the_document_states():
    """docs/virtual-patients.md, over its own twelve patients, to half of the last digit that it prints."""
    heads = [qa.make_head(seed, "balanced") for seed in range(4000396, 4000408)]
    rows = qa.table(heads)
    for name, (low, high, half) in STATED.items():
        found = [row[name] for row in rows]
        assert (min(found), max(found)) == pytest.approx((low, high), abs=half), name
    for head, row in zip(heads, rows, strict=True):
        assert row["grey"] == pytest.approx(GREY_HU - 1.2 * (head.patient.params.age - 60) / 60, abs=1.1)
        assert row["white"] == pytest.approx(WHITE_HU, abs=1.1)
        assert row["ventricle"] == pytest.approx(VENTRICLE_HU, abs=1.15)


def test_a_bone_kernel_is_noisier_and_thin_slices_are_too(normal, clean):
    inside = (clean > 25) & (clean < 45)

    def noise(image, mean):
        return (image - mean)[inside].std()

    soft = noise(ncct(normal, GRID), clean)
    bone = noise(ncct(normal, GRID, kernel="bone"), ncct(normal, GRID, kernel="bone", noise=False))
    assert bone > 2.5 * soft
    few = replace(GRID, heights=GRID.heights[3:4], crop=None)
    slices = thin(few, 1.0)
    assert slices.shape[0] == 5
    thin_noise = (ncct(normal, slices) - ncct(normal, slices, noise=False))[:, 40:90, 40:90].std()
    assert thin_noise == pytest.approx(soft * 5**0.5, rel=0.35)
