"""Whole trainings of a tiny generator: resumed in the same bits, measured by patient, exported for the node."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from inference import weights
from inference.engine import load_engine
from inference.maps import KINDS
from tests.training import cohorts
from training import __main__ as commands
from training import data, recipe, state, team, train, validation
from training.data import CohortError, Slices
from training.recipe import RecipeError

QUICK = {
    "model": {"width": 1, "discriminator_width": 1},
    "data": {"validation_share": 0.25, "cache": 2},
    "training": {"batch": 2, "ema": 0.5, "device": "cpu"},
}

TINY = """
data.validation_share = 0.25
model = {width = 1, discriminator_width = 1}
[training]
device = "cpu"
"""


def quick(**training) -> recipe.Recipe:
    return recipe.parse({**QUICK, "training": {**QUICK["training"], "epochs": 1, **training}})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return cohorts.write(tmp_path_factory.mktemp("cohort"), range(4), slices=2)


@pytest.fixture(scope="module")
def straight(cohort, tmp_path_factory) -> Path:
    """Two epochs without a stop."""
    out = tmp_path_factory.mktemp("straight")
    train.train(quick(epochs=2), cohort, out)
    torch.save(torch.get_rng_state(), out / "random.pt")
    return out


def curves_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "curves.csv").read_text().splitlines()))


def assert_same(one, other, where: str = "checkpoint") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


def test_a_resumed_training_ends_in_the_same_bits(cohort, straight, tmp_path):
    """Networks, both optimisers, the running mean, the history, the files written and the next random number."""
    train.train(quick(epochs=1), cohort, tmp_path)
    torch.manual_seed(12345)  # whatever happened in between
    train.train(quick(epochs=2), cohort, tmp_path)
    assert torch.equal(torch.get_rng_state(), torch.load(straight / "random.pt"))
    one, other = (torch.load(out / state.CHECKPOINT, weights_only=True) for out in (straight, tmp_path))
    assert {"generator", "average", "discriminators", "generator_optimiser", "discriminator_optimiser"} <= one.keys()
    assert_same(one, other)
    for name in ("curves.csv", "weights/model.safetensors", "weights/manifest.json"):
        assert (straight / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_finished_training_is_left_alone(cohort, straight):
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    assert train.train(quick(epochs=2), cohort, straight) == straight / "weights"
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


def test_another_seed_is_another_training(cohort, straight, tmp_path):
    train.train(quick(seed=1), cohort, tmp_path)
    one, other = (torch.load(out / state.CHECKPOINT, weights_only=True) for out in (straight, tmp_path))
    assert one["history"][0] != other["history"][0]


@pytest.mark.parametrize("changes", [{"batch": 1}, {"learning_rate": 1e-3}])
def test_a_checkpoint_of_another_recipe_is_refused(cohort, straight, changes):
    with pytest.raises(RecipeError, match=r"checkpoint\.pt was made with another recipe"):
        train.train(quick(**changes), cohort, straight)


def test_a_checkpoint_of_other_patients_is_refused(straight, tmp_path):
    with pytest.raises(RecipeError, match=r"checkpoint\.pt was made with another data"):
        train.train(quick(), cohorts.write(tmp_path / "other", range(10, 14)), straight)


def test_a_checkpoint_that_is_half_written_leaves_the_old_one(cohort, straight, tmp_path, monkeypatch):
    train.train(quick(), cohort, tmp_path)
    before = (tmp_path / state.CHECKPOINT).read_bytes()

    def fall(content, file) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fall)
    with pytest.raises(OSError, match="no space left"):
        train.train(quick(epochs=2), cohort, tmp_path)
    assert (tmp_path / state.CHECKPOINT).read_bytes() == before


def test_the_curves_have_a_row_for_each_epoch(straight):
    rows = curves_of(straight)
    assert [float(row["epoch"]) for row in rows] == [0, 1]
    assert {"discriminators", "adversarial", "l1", "extrema", "multimodal", "validation_score"} <= rows[0].keys()
    assert {f"validation_mae_{name}" for name in KINDS} <= rows[0].keys()
    assert (straight / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_weights_load_into_the_engine_with_a_complete_manifest(cohort, straight):
    manifest, tensors = weights.load(straight / "weights")
    planes = cohorts.arrays(0, 1, "none")["planes"].astype(np.float32)
    assert load_engine(manifest, tensors, threads=1).run(planes).shape == (1, 5, 256, 256)
    assert manifest.training_domain == "virtual" and manifest.licence == "Apache-2.0"
    assert manifest.data_digest == data.digest(data.read_cohort(cohort))
    assert manifest.seeds == (0,) and manifest.width == 1 and manifest.kinds == tuple(KINDS)
    rows = curves_of(straight)
    best = min(rows, key=lambda row: float(row["validation_score"]))
    assert manifest.metrics == {name: float(best[name]) for name in best if name.startswith("validation_")}


def test_a_training_starts_from_the_weights_it_is_given(cohort, straight, tmp_path):
    begun = state.begin(quick(), torch.device("cpu"), straight / "weights")
    for network in (begun.generator, begun.average):
        assert_same(network.state_dict(), weights.load(straight / "weights")[1])


def test_a_branch_begins_as_a_copy_of_another(straight):
    copied = recipe.parse({**QUICK, "model": {**QUICK.get("model", {}), "copied": {"MTT": "Tmax", "Tmax": "CBF"}}})
    branches = state.begin(copied, torch.device("cpu"), straight / "weights").generator.branches
    before = state.begin(quick(), torch.device("cpu"), straight / "weights").generator.branches
    for kind, source in (("CBF", "CBF"), ("CBV", "CBV"), ("MTT", "Tmax"), ("TTP", "TTP"), ("Tmax", "CBF")):
        ours, theirs = list(KINDS).index(kind), list(KINDS).index(source)
        assert_same(branches[ours].state_dict(), before[theirs].state_dict())
    with pytest.raises(RecipeError, match="wants trained branches"):
        state.begin(copied, torch.device("cpu"))


def test_weights_of_another_generator_are_no_start(straight):
    wider = recipe.parse({**QUICK, "model": {"width": 2}})
    with pytest.raises(RecipeError, match="start from fitting weights"):
        state.begin(wider, torch.device("cpu"), straight / "weights")


def test_regression_without_discriminators_learns(cohort, tmp_path):
    plain = recipe.parse(
        {
            **QUICK,
            "data": {**QUICK["data"], "augment": False},
            "loss": {"adversarial": 0.0, "extrema": 0.0, "multimodal": 0.0},
            "training": {**QUICK["training"], "epochs": 4, "learning_rate": 0.01, "ema": 0.0},
        }
    )
    train.train(plain, cohort, tmp_path)
    rows = curves_of(tmp_path)
    assert rows[0].keys().isdisjoint({"discriminators", "adversarial", "extrema", "multimodal"})
    assert float(rows[-1]["l1"]) < 0.9 * float(rows[0]["l1"])


def test_two_updates_in_an_epoch_when_they_want_two_batches_each(cohort, tmp_path):
    with team.join("cpu") as members:
        work = train._prepare(quick(batch=1, accumulate=3), cohort, tmp_path, members)
        groups = list(train.groups(work, 0, train.schedule(work, 0)))
    assert [[len(batch.planes) for batch in group] for group in groups] == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("epoch", range(4))
def test_an_epoch_of_patients_with_unlike_numbers_of_slices_has_whole_batches_alone(tmp_path, epoch):
    cohorts.write(tmp_path, [0, 3, 6, 1], slices=1)  # three of class none and two mild: one of these comes twice,
    patients = data.read_cohort(cohorts.write(tmp_path, [4], slices=3))  # so an epoch has 8 or 10 slices
    chosen = recipe.parse({**QUICK, "data": {"balanced": True}})
    alone = team.Team(0, 1, torch.device("cpu"))
    work = train.Work(chosen, alone, Slices(patients, ("CBF",), 0), Slices([], ("CBF",), None), "", tmp_path)
    batches = train.schedule(work, epoch)
    assert {len(batch) for batch in batches} == {2} and len(batches) in (4, 5)


def test_processes_share_the_slices_of_an_epoch_out(cohort, tmp_path):
    with team.join("cpu") as members:
        work = train._prepare(quick(batch=1), cohort, tmp_path, members)
    each = [train.schedule(replace(work, team=team.Team(rank, 2, members.device)), epoch=0) for rank in (0, 1)]
    assert [len(batches) for batches in each] == [3, 3]
    assert sorted(index for batches in each for batch in batches for index in batch) == list(range(6))


def test_processes_that_read_ahead_change_nothing(cohort, straight, tmp_path):
    ahead = recipe.parse(
        {**QUICK, "data": {**QUICK["data"], "workers": 1}, "training": {**QUICK["training"], "epochs": 2}}
    )
    train.train(ahead, cohort, tmp_path)
    assert (tmp_path / "curves.csv").read_bytes() == (straight / "curves.csv").read_bytes()


def test_losses_that_are_no_numbers_stop_the_training(cohort, tmp_path):
    with pytest.raises(FloatingPointError, match=r"no longer numbers: .*lower learning_rate"):
        train.train(quick(learning_rate=1e30), cohort, tmp_path)
    assert not (tmp_path / state.CHECKPOINT).exists()


def test_an_update_larger_than_the_cohort_is_refused_in_words(cohort, tmp_path):
    with pytest.raises(CohortError, match="an epoch has 6 slices and one update wants 7"):
        train.train(quick(batch=7), cohort, tmp_path)


class Perfect(torch.nn.Module):
    """Answers with maps that are known, slice after slice."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps, self.done, self.modes = maps, 0, set()

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        self.done += len(planes)
        self.modes.add(self.training)
        return self.maps[self.done - len(planes) : self.done]


def test_validation_counts_patients_alike_and_lesion_and_rest_half_each(tmp_path):
    """A severe patient with 1 slice, one without lesion with 3; only Tmax in the lesion is wrong, by half its range."""
    cohorts.write(tmp_path, [2], slices=1)
    patients = data.read_cohort(cohorts.write(tmp_path, [3], slices=3))
    slices = Slices(patients, ("CBF", "Tmax"), seed=None)
    maps = torch.stack([slices[index].maps for index in range(4)])
    lesion = maps[:, 1] > 2 * 6 / 12 - 1 + 0.01
    maps[:, 1][lesion] -= 1.0
    generator = Perfect(maps)
    found = validation.validate(generator, slices, torch.device("cpu"), batch=2)
    share = int(lesion[0].sum()) / int(slices[0].mask.sum())
    assert generator.modes == {False} and generator.training  # without dropout, and back to training afterwards
    assert found["mae_CBF"] == 0
    assert found["mae_Tmax"] == pytest.approx((6.0 * share + 0.0) / 2, rel=1e-4)
    assert found["score"] == pytest.approx(((0.5 / 2) / 2 + 0.0) / 2, rel=1e-4)


def test_the_command_trains_and_says_where_the_weights_are(cohort, tmp_path):
    chosen = tmp_path / "tiny.toml"
    chosen.write_text(f"{TINY}batch = 6\nepochs = 1\n")
    result = CliRunner().invoke(commands.app, ["train", str(chosen), str(cohort), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "weights of the best epoch" in result.output
    chosen.write_text("[model]\nwide = 1\n")
    result = CliRunner().invoke(commands.app, ["train", str(chosen), str(cohort), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "there is no key model.wide" in result.stderr


@pytest.mark.slow
def test_two_processes_train_one_model(cohort, tmp_path):
    """By torchrun over gloo; resumed in the same bits here too."""
    chosen = tmp_path / "tiny.toml"
    for out, stops in (("straight", (2,)), ("stopped", (1, 2))):
        for epochs in stops:
            chosen.write_text(f"{TINY}batch = 1\naccumulate = 2\nema = 0.5\nepochs = {epochs}\n")
            run_two(chosen, cohort, tmp_path / out)
    one, other = (torch.load(tmp_path / out / state.CHECKPOINT, weights_only=True) for out in ("straight", "stopped"))
    assert_same(one, other)
    assert len(one["history"]) == 2


def run_two(chosen: Path, cohort: Path, out: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, "-m", "training", "train", str(chosen), str(cohort), str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
