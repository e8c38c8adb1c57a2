"""The NCCT: right greys, signs of the stroke that can be switched off, nothing of the flow where there is no lesion."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.simulate.conftest import small_grid
from training.simulate import qa
from training.simulate.fields import FIELDS, Owner, Streams
from training.simulate.patient import Patient
from training.simulate.render import COUNTERFACTUAL, GREY_HU, SIGNAL, VENTRICLE_HU, WHITE_HU, ncct, thin

GRID = small_grid()


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


def test_more_signal_is_a_darker_infarct(severe):
    means = [
        ncct(severe, GRID, SIGNAL[level], noise=False).clip(0, 80).mean() for level in ("none", "low", "mid", "high")
    ]
    assert (np.diff(means) < 0).all()


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
