"""What must not tell the class: how the head lay, how it was scanned, which slices are kept and where the brain ends.

The other guards stand where their subject does: one owner for each field and stream (test_fields), the swap test
(test_render, test_patient), the counterfactual (test_render), headers (test_dicom_out), shuffled labels
(tests/training/test_evaluate.py).
"""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest

from inference import preprocess
from training.metrics import auc, dice
from training.prepare import as_volume, chosen
from training.simulate.cohort import as_hu, head_grid
from training.simulate.params import PatientParams, draw
from training.simulate.render import COUNTERFACTUAL, ncct


def numbers(of: dict, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nest of tables and tuples, by where it stands."""
    for name, value in of.items():
        match value:
            case dict():
                yield from numbers(value, f"{path}{name}.")
            case tuple() | list():
                yield from numbers(dict(enumerate(value)), f"{path}{name}.")
            case float() | int():
                yield f"{path}{name}", float(value)


def beside_the_stroke(params: PatientParams) -> dict[str, float]:
    parts = ("age", "pose", "build", "blood", "bolus", "acquisition")
    return dict(numbers({part: asdict(params)[part] if part != "age" else params.age for part in parts}))


def test_head_scanner_and_blood_carry_no_class():
    """AUC of stroke against none over 3,000 patients; 0.045 is four standard errors, for 31 numbers at once."""
    patients = [draw(seed, "balanced") for seed in range(3000)]
    stroke = np.array([params.severity != "none" for params in patients])
    found = [beside_the_stroke(params) for params in patients]
    assert len(found[0]) == 31
    for name in found[0]:
        assert auc(np.array([one[name] for one in found]), stroke) == pytest.approx(0.5, abs=0.045), name


def test_slices_carry_no_class(severe, mild, normal):
    severe, mild, normal = (head_grid(patient) for patient in (severe, mild, normal))
    assert severe.heights == mild.heights == normal.heights
    assert severe.shape == mild.shape == normal.shape


def test_the_brain_that_is_found_does_not_tell_the_stroke(severe):
    """An infarct of 10.7 h or none in the same head: the same slices are kept, and the masks share 99.5 %."""
    grid = head_grid(severe, 128, 5.0)
    ill, sound = (
        preprocess.prepare(as_volume(as_hu(hu).astype(np.float32), grid))
        for hu in (ncct(severe, grid), ncct(severe, grid, COUNTERFACTUAL))
    )
    for slices in (0, 10):
        assert chosen(ill.mask, slices).tolist() == chosen(sound.mask, slices).tolist()
    assert dice(ill.mask, sound.mask) > 0.995
