"""training.evaluate: perfect, mirrored and empty predictions score as they must, and the report says what was found."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from inference import weights
from inference.maps import KINDS
from tests.training import cohorts
from training import __main__ as commands
from training import bars, data, evaluate, report, scores, strata, summary, untrained
from training.data import CohortError
from training.evaluate import EvaluationError, Request
from training.summary import Row

pytestmark = pytest.mark.slow  # a minute of maps

TEST, VALIDATION = 2_000_000, 1_000_000
FACTS = {  # by class; a second stroke of a class comes late
    "none": {"kind": "lacunes", "onset_h": None, "vessel": None, "lacunes": 3},
    "mild": {"kind": "stroke", "onset_h": 2.0, "vessel": "M1", "lacunes": 0},  # of severe ones it is not known
    "severe": {"kind": "stroke", "onset_h": 4.5, "vessel": "ICA"},
}
QUICK = {"draws": 40, "threads": 1}
Transform = Callable[[np.ndarray], np.ndarray]


def write(folder: Path, seeds: Sequence[int], split: str) -> Path:
    """A tiny cohort with the facts of virtual patients."""
    cohorts.write(folder, seeds, split=split)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    (folder / "manifest.jsonl").write_text(
        "".join(json.dumps({**line, **FACTS[line["class"]]}) + "\n" for line in lines)
    )
    return folder


class Oracle:
    """An engine that knows the truth of a cohort by its planes, and says what a transform makes of it."""

    def __init__(self, manifest: weights.Manifest, folder: Path, transform: Transform):
        self.manifest, self.known = manifest, {}
        for patient in data.read_cohort(folder):
            arrays = data.read_arrays(patient, manifest.kinds)
            for planes, maps in zip(arrays.planes, arrays.maps.astype(np.float32), strict=True):
                learnt = [KINDS[kind].normalise(values) for kind, values in zip(manifest.kinds, maps, strict=True)]
                self.known[key(planes)] = transform(np.stack(learnt))

    def run(self, planes: np.ndarray) -> np.ndarray:
        return np.stack([self.known[key(slab.astype(np.float16))] for slab in planes])


def key(planes: np.ndarray) -> str:
    return hashlib.sha256(planes.tobytes()).hexdigest()


def scan_again(source: Path, folder: Path) -> Path:
    """The patients of a cohort with other noise, on a grid that lies three rows higher."""
    shutil.copytree(source, folder)
    for patient in data.read_cohort(folder):
        with np.load(patient.path) as stored:
            arrays = {name: stored[name] for name in stored}
        moved = {name: np.roll(arrays[name], 3, axis=-2) for name in ("planes", "maps", "mask")}
        noise = np.random.default_rng(patient.seed).normal(0, 0.05, moved["planes"].shape)
        noisy = np.where(moved["mask"][:, None], moved["planes"] + noise, -1.0).clip(-1, 1).astype(np.float16)
        np.savez_compressed(patient.path, **{**arrays, **moved, "planes": noisy})
    return folder


def mirror(maps: np.ndarray) -> np.ndarray:
    """The other half; the brain of the cohort is symmetric about column 128."""
    return np.roll(maps[..., ::-1], 1, axis=-1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("evaluate")
    return {
        "weights": untrained.make(root / "weights", width=1),
        "cohort": write(root / "test", range(TEST, TEST + 6), "test"),
        "train_cohort": write(root / "train", range(3), "train"),
        "validation": write(root / "validation", range(VALIDATION, VALIDATION + 3), "validation"),
        "retest": scan_again(root / "test", root / "retest"),
    }


@pytest.fixture
def oracle(folders, monkeypatch) -> Callable[..., None]:
    """Put an oracle in the place of the engine; again: what it makes of the truth of a second scan."""

    def put(transform: Transform, again: Transform | None = None) -> None:
        def load(manifest: weights.Manifest, state: object, threads: int) -> Oracle:
            engine = Oracle(manifest, folders["cohort"], transform)
            engine.known |= Oracle(manifest, folders["validation"], transform).known
            if again is not None:
                engine.known |= Oracle(manifest, folders["retest"], again).known
            return engine

        monkeypatch.setattr(evaluate, "load_engine", load)

    return put


@pytest.fixture(scope="module")
def measured(folders, tmp_path_factory) -> Path:
    """Random weights, with everything that can be asked for; the counterfactual is the cohort itself."""
    out = tmp_path_factory.mktemp("measured")
    evaluate.evaluate(Request(**folders, **QUICK, out=out, counterfactual=folders["cohort"]))
    return out


def rows_of(out: Path) -> list[Row]:
    """The rows of metrics.json, null as nan."""
    lines = json.loads((out / "metrics.json").read_text())["rows"]
    return [Row(**{name: np.nan if value is None else value for name, value in line.items()}) for line in lines]


def one(rows: Sequence[Row], table: str, group: str, figure: str, source: str = "model") -> Row:
    (found,) = [row for row in rows if (row.table, row.group, row.source, row.figure) == (table, group, source, figure)]
    return found


def run(folders, out: Path, *names: str) -> list[Row]:
    wanted = {name: folders[name] for name in ("weights", "cohort", *names)}
    evaluate.evaluate(Request(**wanted, **QUICK, out=out))
    return rows_of(out)


def test_the_truth_scores_perfectly(folders, oracle, tmp_path):
    oracle(lambda maps: maps)
    rows = run(folders, tmp_path, "train_cohort", "validation")
    for figure in ("dice_hypoperfused", "dice_core", "side_right"):
        assert one(rows, "regions", "all", figure).value == 1.0
    assert one(rows, "presence", "all", "auc").value == 1.0
    assert one(rows, "presence", "all", "accuracy").value == 1.0
    chance = one(rows, "presence", "all", "auc", "shuffled labels")
    assert chance.low < 0.5 < chance.high
    assert chance.value == pytest.approx(0.5, abs=0.15)  # 40 draws of six patients: three standard errors
    assert one(rows, "regions", "all", "false_hypoperfused_ml (median)").value == 0.0
    for kind in KINDS:
        assert one(rows, "errors", "all", kind).value == pytest.approx(0.0, abs=0.01)
        assert one(rows, "maps", f"{kind}, mask", "ssim").value == pytest.approx(1.0, abs=1e-3)
        assert one(rows, "differences", "all", kind, "model - zero").high < 0
    assert one(rows, "physiology", "all", "residual").value == pytest.approx(
        one(rows, "physiology", "all", "residual_true").value, abs=1e-4
    )


def test_the_mirrored_truth_has_the_wrong_side(folders, oracle, tmp_path):
    oracle(mirror)
    rows = run(folders, tmp_path)
    assert one(rows, "regions", "all", "dice_hypoperfused").value == 0.0
    assert one(rows, "regions", "all", "side_right").value == 0.0
    assert one(rows, "baselines: regions", "all", "dice_hypoperfused", "model, mirrored").value == pytest.approx(1.0)
    volume = one(rows, "volumes", "class severe", "predicted_hypoperfused_ml").value
    assert one(rows, "regions", "class severe", "bias_hypoperfused_ml").value == pytest.approx(0.0, abs=0.02 * volume)


def test_nothing_predicted_is_the_zero_baseline(folders, oracle, tmp_path):
    oracle(lambda maps: np.full_like(maps, -1.0))
    rows = run(folders, tmp_path, "train_cohort")
    of_zero = [row for row in rows if row.source == "zero"]
    assert len(of_zero) > 20
    for row in of_zero:
        assert one(rows, row.table, row.group, row.figure) == replace(row, source="model") or np.isnan(row.value)
    assert {row.value for row in rows if row.source == "model - zero"} == {0.0}
    assert one(rows, "regions", "class severe", "side_right").value == 0.0
    assert one(rows, "baselines: regions", "all", "side_right_of_found").n == 0


def test_the_truth_of_two_scans_is_the_same_wherever_their_grids_lie(folders, oracle, tmp_path):
    oracle(lambda maps: maps, again=lambda maps: maps)
    rows = run(folders, tmp_path, "retest")
    for group, n in (("all", 6), ("class none", 2), ("class severe", 2)):
        for figure in ("difference", "repeatability"):
            found = one(rows, "retest", group, f"{figure}_hypoperfused_ml")
            assert (found.n, found.value, found.low, found.high) == (n, 0.0, 0.0, 0.0)
    for figure in ("dice_hypoperfused", "dice_core"):
        found = one(rows, "retest", "all", figure)
        assert (found.n, found.value) == (4, 1.0)  # nobody else has a region


def test_what_is_not_found_again_is_a_difference(folders, oracle, tmp_path):
    """Repeatability by hand: 1.96 times the root mean square of what was lost."""
    oracle(lambda maps: maps, again=lambda maps: np.full_like(maps, -1.0))
    rows = run(folders, tmp_path, "retest")
    lost = [one(rows, "volumes", f"class {name}", "true_hypoperfused_ml").value for name in ("mild", "severe")]
    assert one(rows, "retest", "class mild", "difference_hypoperfused_ml").value == pytest.approx(-lost[0], rel=1e-3)
    expected = 1.959964 * np.sqrt(np.mean(np.square([0.0, *lost])))
    assert one(rows, "retest", "all", "repeatability_hypoperfused_ml").value == pytest.approx(expected, rel=1e-2)
    assert one(rows, "retest", "all", "dice_core").value == 0.0


def test_the_first_scan_is_no_retest(folders, tmp_path):
    with pytest.raises(CohortError, match=f"first scan of VSIM-{TEST} once more.*--repeat 1"):
        evaluate.evaluate(Request(folders["weights"], folders["cohort"], tmp_path, retest=folders["cohort"]))


def test_a_retest_of_other_patients_is_refused(folders, tmp_path):
    other = write(tmp_path / "other", range(TEST + 10, TEST + 13), "test")
    with pytest.raises(CohortError, match="no patient of the evaluated cohort"):
        evaluate.evaluate(Request(folders["weights"], folders["cohort"], tmp_path, retest=other))


def test_every_row_counts_the_patients_it_is_made_of(measured):
    rows = rows_of(measured)
    expected = {"all": 6, "class none": 2, "class mild": 2, "class severe": 2}
    expected |= {"with infarct": 4, "without infarct": 2, "onset < 3 h": 2, "onset 3 to 6 h": 2}
    expected |= {"vessel M1": 2, "vessel ICA": 2, "kind stroke": 4, "kind lacunes": 2}
    expected |= {"with lacunes": 2, "without lacunes": 2}
    assert {row.group: row.n for row in rows if (row.table, row.figure) == ("errors", "Tmax")} == expected
    assert one(rows, "regions", "all", "side_right").n == 4
    assert one(rows, "presence", "all", "threshold_ml", "validation patients").n == 3
    assert one(rows, "counterfactual", "with infarct", "dice_core", "without signs").n == 4
    assert one(rows, "operating point", "class none", "false_hypoperfused_ml (median)", "6 s").n == 1
    assert one(rows, "presence", "all", "auc", "shuffled labels").n == 6
    assert one(rows, "retest", "class mild", "repeatability_core_ml").n == 2


def test_intervals_hold_their_estimates(measured):
    given = [row for row in rows_of(measured) if np.isfinite(row.low)]
    assert len(given) > 300
    slack = 1e-12  # of the value: the order of a sum
    assert all(row.low - slack * abs(row.low) <= row.value <= row.high + slack * abs(row.high) for row in given)


def test_the_counterfactual_of_the_same_pictures_is_the_same(measured):
    rows = [row for row in rows_of(measured) if row.table == "counterfactual"]
    with_signs, without = ([row for row in rows if row.source == source] for source in ("with signs", "without signs"))
    assert with_signs
    for row, bare in zip(with_signs, without, strict=True):
        assert (row.group, row.figure, row.n) == (bare.group, bare.figure, bare.n)
        assert row.value == bare.value or np.isnan(row.value)


def test_the_report_says_what_the_json_says(measured):
    text, rows = (measured / "report.md").read_text(), rows_of(measured)
    assert {row.table for row in rows} == set(report.TABLES)
    for name, table in report.TABLES.items():
        assert report.grid([row for row in rows if row.table == name], table.by) in text, name
    titles = re.findall(r"^#+ .*", text, re.MULTILINE)
    assert all("simulated" in title for title in titles if title != "## Pictures")
    assert len(titles) == 3 + len(report.TABLES)


def test_bars_are_met_by_the_truth_and_missed_by_nothing(folders, oracle, tmp_path):
    oracle(lambda maps: maps)
    truth = {one.words: one.met for one in bars.judge(run(folders, tmp_path / "truth", "train_cohort"))}
    assert len(truth) == 8
    assert all(truth.values())
    oracle(lambda maps: np.full_like(maps, -1.0))
    nothing = {one.words: one.met for one in bars.judge(run(folders, tmp_path / "nothing", "train_cohort"))}
    assert [words for words, met in nothing.items() if met] == ["false Tmax > 6 s, none, at most 60 ml"]
    assert "MISSED" in (tmp_path / "nothing" / "report.md").read_text()


def test_one_baseline_that_is_not_beaten_is_enough_to_miss():
    beaten = Row("differences", "all", "model - zero", "CBF", 5, -1.0, -2.0, -0.5)
    close = replace(beaten, source="model - constant", value=-0.1, high=0.1)
    assert [one.met for one in bars.judge([beaten])] == [True]
    assert [(one.met, one.row) for one in bars.judge([beaten, close])] == [(False, close)]


def test_ssim_never_stands_alone(measured):
    for table in {row.table for row in rows_of(measured) if "ssim" in row.figure}:
        assert any("mae" in row.figure for row in rows_of(measured) if row.table == table)


def test_pictures_and_patients_are_there(measured):
    pictures = sorted(path.name for path in (measured / "pictures").iterdir())
    assert pictures == ["bad.png", "good.png", "median.png", "volumes.png"]
    assert all(f"pictures/{name}" in (measured / "report.md").read_text() for name in pictures)
    patients = json.loads((measured / "metrics.json").read_text())["patients"]
    assert [patient["patient_id"] for patient in patients] == [f"VSIM-{seed}" for seed in range(TEST, TEST + 6)]
    assert patients[0]["baselines"].keys() == {"zero", "constant", "tissue mean", "mean map", "ncct copy"}


def test_another_time_and_more_workers_give_the_same_bytes(folders, measured, tmp_path):
    evaluate.evaluate(Request(**folders, **QUICK, out=tmp_path, counterfactual=folders["cohort"], workers=2))
    for name in ("metrics.json", "report.md"):
        assert (tmp_path / name).read_bytes() == (measured / name).read_bytes()


def test_likeness_over_the_brain_is_that_of_the_whole_picture(folders):
    case = scores.open_case(data.read_cohort(folders["cohort"])[0], tuple(KINDS))
    random = np.random.default_rng(0)
    predicted = np.clip(case.true * random.uniform(0.5, 1.0, case.true.shape), 0, None).astype(np.float32)
    whole = scores.everything(case, predicted, 6.0)
    for name, value in scores.similarity(case, predicted):
        assert value == pytest.approx(whole[name], abs=1e-9)


def test_a_higher_threshold_finds_less(folders):
    case = scores.open_case(data.read_cohort(folders["cohort"])[0], tuple(KINDS))
    assert np.array_equal(case.find(case.true).hypoperfused, case.regions.hypoperfused)
    assert case.find(case.true, 8.9).hypoperfused_ml == pytest.approx(case.regions.hypoperfused_ml)  # its Tmax is 9 s
    assert case.find(case.true, 9.1).hypoperfused_ml == 0.0


def test_half_of_an_error_is_that_of_the_lesions():
    nan = float("nan")
    assert summary.halves(np.array([[4.0, 1.0], [nan, 3.0]])) == 0.5 * 4.0 + 0.5 * 2.0
    assert summary.halves(np.array([[nan, 1.0], [nan, 3.0]])) == 2.0


def test_a_level_that_is_wrong_everywhere_is_no_error_of_what_is_levelled(folders):
    case = scores.open_case(data.read_cohort(folders["cohort"])[0], tuple(KINDS))
    found = scores.errors(case, case.true + case.mask[:, None] * np.float32(1.5))
    assert found["TTP mae_lesion"] == pytest.approx(1.5, rel=1e-3)
    assert found["TTP levelled mae_lesion"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("volumes", "labels", "threshold"),
    [([0, 10, 20, 30], [0, 0, 1, 1], 15.0), ([5, 5, 5], [1, 1, 0], -1.0), ([0, 40, 50, 9], [0, 0, 1, 0], 45.0)],
)
def test_the_threshold_of_presence_makes_most_answers_right(volumes, labels, threshold):
    assert summary.best_threshold(np.array(volumes, float), np.array(labels, bool)) == threshold


@pytest.mark.parametrize(("hours", "group"), [(2.9, "< 3 h"), (3.0, "3 to 6 h"), (6.0, "3 to 6 h"), (6.1, "> 6 h")])
def test_onset_is_binned(hours, group):
    assert strata.onset(hours) == group


def test_cells_say_how_many_patients_where_it_differs():
    row = Row("regions", "all", "model", "dice_core", 7, 0.5, 0.4, 0.6)
    assert report.cell(row, 7) == "0.50 [0.40, 0.60]"
    assert report.cell(row, 9) == "0.50 [0.40, 0.60], n 7"
    assert report.cell(replace(row, value=float("nan"), n=0), 9) == "–"
    assert report.cell(replace(row, value=float("inf"), low=float("nan"), high=float("nan")), 7) == "∞"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights", "model.safetensors and manifest.json"),
        ("cohort", "has no manifest.jsonl"),
        ("train_cohort", "has no"),
    ],
)
def test_what_is_not_there_is_a_sentence_and_exit_code_2(folders, tmp_path, name, words):
    given = {**folders, name: tmp_path / "nowhere"}
    arguments = [str(given[part]) for part in ("weights", "cohort")]
    result = CliRunner().invoke(
        commands.app, ["evaluate", *arguments, str(tmp_path / "out"), "--train-cohort", str(given["train_cohort"])]
    )
    assert result.exit_code == 2
    assert words in result.stderr.replace("\n", "")


def test_the_command_writes_a_report(folders, tmp_path):
    arguments = [str(folders["weights"]), str(folders["cohort"]), str(tmp_path), "--draws", "2"]
    result = CliRunner().invoke(commands.app, ["evaluate", *arguments, "--tmax-threshold", "7"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metrics.json").read_text())["about"]["tmax_threshold_s"] == 7.0


def test_an_empty_split_is_refused(folders, tmp_path):
    with pytest.raises(CohortError, match="no patients of the split 'external'"):
        evaluate.evaluate(Request(folders["weights"], folders["cohort"], tmp_path, split="external"))


def test_weights_without_tmax_are_refused(folders, tmp_path):
    manifest, state = weights.load(folders["weights"])
    kinds = ("CBF", "CBV", "MTT")
    weights.save(tmp_path / "three", replace(manifest, kinds=kinds, ranges=weights.ranges(kinds)), state)
    with pytest.raises(EvaluationError, match="make no Tmax"):
        evaluate.evaluate(Request(tmp_path / "three", folders["cohort"], tmp_path))


def test_a_cohort_without_all_its_slices_is_refused(folders):
    (patient, *_) = data.read_cohort(folders["cohort"])
    ml = scores.open_case(patient, tuple(KINDS)).regions.hypoperfused_ml
    whole, part = (replace(patient, facts={"hypoperfused_ml": stated}) for stated in (1.1 * ml, 3.5 * ml))
    assert scores.open_case(whole, tuple(KINDS)).regions.hypoperfused_ml == ml
    with pytest.raises(CohortError, match="prepare the cohort with --slices 0"):
        scores.open_case(part, tuple(KINDS))


def test_maps_that_are_no_numbers_are_refused(folders, oracle, tmp_path):
    oracle(lambda maps: maps * np.float32("nan"))
    with pytest.raises(EvaluationError, match="no numbers"):
        run(folders, tmp_path)


def test_a_counterfactual_of_other_patients_is_refused(folders, tmp_path):
    other = write(tmp_path / "other", range(TEST + 10, TEST + 13), "test")
    with pytest.raises(CohortError, match="no stroke of the evaluated cohort"):
        evaluate.evaluate(Request(folders["weights"], folders["cohort"], tmp_path, counterfactual=other))


def test_real_and_virtual_patients_are_not_mixed(folders, tmp_path):
    real = write(tmp_path / "real", range(3), "train")
    text = re.sub(r'"seed": \d+', '"seed": null', (real / "manifest.jsonl").read_text())
    (real / "manifest.jsonl").write_text(text)
    with pytest.raises(CohortError, match="mixed"):
        evaluate.evaluate(Request(folders["weights"], folders["cohort"], tmp_path, train_cohort=real))
