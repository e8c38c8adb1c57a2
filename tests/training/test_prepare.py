"""training.prepare: virtual patients go the way of scanned ones, and their maps lie on their anatomy."""

import json
from pathlib import Path

import numpy as np
import pytest

from inference import preprocess
from inference.maps import KINDS
from tests import phantom
from training import data, prepare
from training.data import CohortError
from training.prepare import Choice
from training.simulate.cohort import WITHOUT_SIGNS
from training.simulate.geometry import Grid, even

GRID = Grid(even(20, 6.0, -56.0), 128, 128, 230.0 / 128, 6.0, tilt=12.0)


def hu() -> np.ndarray:
    """The phantom on the tilted slices of the simulator."""
    steps = np.arange(128.0)
    return phantom.hu_at(GRID.lps(steps, steps, np.array(GRID.heights)).numpy().astype(float))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two patients as `simulate cohort` leaves them; every map is the CT, in its own unit."""
    folder = tmp_path / "raw"
    folder.mkdir()
    head = hu()
    brain = (head > 0) & (head < 80)
    maps = {name: np.where(brain, head / 80 * kind.ceiling, 0).astype(np.float16) for name, kind in KINDS.items()}
    with (folder / "manifest.jsonl").open("w") as manifest:
        for seed in (3, 4):
            arrays = {**maps, "NCCT": head.astype(np.int16), "NCCT without signs": np.where(brain, 35, head)}
            np.savez_compressed(folder / f"{seed}.npz", **arrays)
            manifest.write(json.dumps(line(seed)) + "\n")
    return folder


def line(seed: int) -> dict:
    return {
        "seed": seed,
        "file": f"{seed}.npz",
        "split": "train",
        "severity": "severe",
        "kind": "stroke",
        "hypoperfused_ml": 100.0,
        "core_ml": 60.0,
        "grid": {"heights": GRID.heights, "matrix": 128, "spacing": GRID.spacing, "thickness": 6.0, "tilt": 12.0},
        "generator": "1",
        "params": {
            "stroke": {"vessel": "M1", "side": "left", "onset": 5.0},
            "focal": {"lacunes": [{}, {}], "old_infarcts": [{}], "haemorrhages": []},
        },
    }


def test_what_is_prepared_is_a_cohort_that_training_reads(raw: Path, tmp_path: Path):
    prepare.prepare(raw, tmp_path / "ready", Choice(slices=8))
    first, second = data.read_cohort(tmp_path / "ready")
    assert (first.patient_id, second.patient_id, first.severity, first.split) == ("VSIM-3", "VSIM-4", "severe", "train")
    assert first.slice_mm == pytest.approx(6.0 * np.cos(np.radians(12.0)))
    assert (first.facts["vessel"], first.facts["side"], first.facts["onset_h"]) == ("M1", "left", 5.0)
    assert [first.facts[name] for name in ("lacunes", "old_infarcts", "haemorrhages")] == [2, 1, 0]
    arrays = data.read_arrays(first, list(KINDS))
    assert arrays.planes.shape == (8, 3, 256, 256)
    assert arrays.maps.shape == (8, 5, 256, 256)
    assert (arrays.maps[~np.repeat(arrays.mask[:, None], 5, axis=1)] == 0).all()


def test_the_planes_are_those_of_the_node(raw: Path, tmp_path: Path):
    prepare.prepare(raw, tmp_path / "ready", Choice(slices=0))
    (patient, _) = data.read_cohort(tmp_path / "ready")
    arrays = data.read_arrays(patient, ["CBF"])
    prepared = preprocess.prepare(prepare.as_volume(hu().astype(np.int16).astype(np.float32), GRID))
    kept = np.flatnonzero(prepared.mask.any(axis=(1, 2)))
    assert np.array_equal(arrays.planes, prepared.planes[kept].astype(np.float16))
    assert np.array_equal(arrays.mask, prepared.mask[kept])


def test_maps_lie_on_their_anatomy(raw: Path, tmp_path: Path):
    """Every map was made from the CT, so inside the brain it must equal the CT of the middle plane."""
    prepare.prepare(raw, tmp_path / "ready", Choice())
    (patient, _) = data.read_cohort(tmp_path / "ready")
    arrays = data.read_arrays(patient, ["CBF"])
    inside = arrays.mask & (arrays.maps[:, 0] > 0)
    assert inside.sum() > 0.9 * arrays.mask.sum()
    from_ct = (arrays.planes[:, 1].astype(np.float32) + 1) / 2 * KINDS["CBF"].ceiling
    assert np.median(np.abs(from_ct - arrays.maps[:, 0])[inside]) < 0.1
    assert (
        np.corrcoef(from_ct[inside], arrays.maps[:, 0][inside].astype(np.float32))[0, 1] > 0.8
    )  # the rim, where bone is averaged in, differs


def test_a_counterfactual_head_takes_the_place_of_the_real_one(raw: Path, tmp_path: Path):
    prepare.prepare(raw, tmp_path / "ready", Choice(ncct=WITHOUT_SIGNS))
    arrays = data.read_arrays(data.read_cohort(tmp_path / "ready")[0], ["CBF"])
    assert np.abs(arrays.planes[:, 1][arrays.mask].astype(float) - (35 / 40 - 1)).mean() < 0.1


def test_only_strokes_have_a_counterfactual_head_and_a_cohort_without_any_is_refused(raw: Path, tmp_path: Path):
    manifest = raw / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["params"]["stroke"] = None
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare.prepare(raw, tmp_path / "ready", Choice(ncct=WITHOUT_SIGNS))
    assert [one.seed for one in data.read_cohort(tmp_path / "ready")] == [line["seed"] for line in lines[1:]]
    with pytest.raises(CohortError, match="simulate the cohort with --counterfactual"):
        prepare.prepare(raw, tmp_path / "more", Choice(ncct="NCCT of another kind"))


def test_patients_that_are_there_are_not_prepared_again(raw: Path, tmp_path: Path):
    manifest = prepare.prepare(raw, tmp_path / "ready", Choice())
    before = manifest.read_text()
    prepare.prepare(raw, tmp_path / "ready", Choice())
    assert manifest.read_text() == before


def test_slices_are_spread_over_the_brain():
    mask = np.zeros((20, 4, 4), bool)
    mask[2:18] = True
    mask[2, 1:] = False  # too little of it
    assert prepare.chosen(mask, 4).tolist() == [3, 8, 12, 17]
    assert len(prepare.chosen(mask, 0)) == 16
    assert prepare.chosen(mask, 99).tolist() == list(range(3, 18))
