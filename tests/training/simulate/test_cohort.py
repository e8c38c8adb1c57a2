"""Cohorts on disk: the same whoever makes them, resumable, and never across a split."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from inference.maps import KINDS
from training.simulate import cohort
from training.simulate.cli import app
from training.simulate.cohort import Order, make_cohort, read_manifest
from training.simulate.params import from_json

SMALL = Order(severity="mild", matrix=64, step=10.0, counterfactual=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(40, 2, SMALL, folder)
    return folder


def test_a_patient_is_one_file_and_one_line(made):
    lines = read_manifest(made)
    assert [line["seed"] for line in lines] == [40, 41]
    for line in lines:
        assert (line["severity"], line["split"]) == ("mild", "train")
        assert from_json(json.dumps(line["params"])).seed == line["seed"]
        with np.load(made / line["file"]) as arrays:
            assert set(arrays) == {"NCCT", "NCCT without signs", "CBF", "CBV", "MTT", "TTP", "Tmax"}
            assert {values.shape for values in arrays.values()} == {(16, 64, 64)}


def test_what_is_there_is_kept(made):
    before = (made / "00000040.npz").stat().st_mtime_ns
    make_cohort(40, 2, SMALL, made)
    assert (made / "00000040.npz").stat().st_mtime_ns == before
    assert len(read_manifest(made)) == 2


def test_scanned_again_the_same_patients_differ_by_noise_alone(made, tmp_path):
    """The maps keep their bits, and every other word of the manifest stays; what stays and what is seen as noise."""
    make_cohort(40, 1, replace(SMALL, repeat=1), tmp_path)
    (again,), first = read_manifest(tmp_path), read_manifest(made)[0]
    assert again == {**first, "repeat": 1}
    with np.load(made / first["file"]) as one, np.load(tmp_path / again["file"]) as other:
        for name in KINDS:
            assert np.array_equal(one[name], other[name])
        for name in ("NCCT", "NCCT without signs"):
            inside = one["CBF"] > 0
            apart = (one[name].astype(float) - other[name])[inside]
            assert abs(apart.mean()) < 0.3
            assert apart.std() > 1.0


@pytest.mark.slow
def test_processes_make_the_same_patients(made, tmp_path):
    make_cohort(40, 2, SMALL, tmp_path, processes=2)
    assert read_manifest(tmp_path) == read_manifest(made)
    for line in read_manifest(made):
        with np.load(made / line["file"]) as one, np.load(tmp_path / line["file"]) as other:
            assert all(np.array_equal(one[name], other[name]) for name in one)


def test_seeds_never_cross_a_split(tmp_path):
    with pytest.raises(ValueError, match="validation from 1000000"):
        make_cohort(999_999, 2, SMALL, tmp_path)
    result = CliRunner().invoke(app, ["cohort", str(tmp_path), "--n", "2", "--seed", "999999"])
    assert result.exit_code == 2


def test_head_slices_follow_the_patients_tilt(severe):
    grid = cohort.head_grid(severe, 128)
    assert grid.tilt == severe.params.pose.tilt
    assert grid.shape == (40, 128, 128)
