"""training.thin and training.reformats: a map for every slice, sides where a radiologist expects them, flicker."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from typer.testing import CliRunner, Result

from inference import volume, weights
from inference.maps import KINDS
from inference.volume import Volume
from tests import phantom
from training import reformats, thin, untrained
from training.__main__ import app
from training.simulate import dicom_out
from training.simulate.vendors import VENDORS
from training.thin import Case, Maps, Request

pytestmark = pytest.mark.slow  # half a minute of maps

CASES = [
    pytest.param(position, tilt, head_to_foot, id=f"{position}-{tilt:g}-{'down' if head_to_foot else 'up'}")
    for position in phantom.POSITIONS
    for tilt in (0.0, 16.0)
    for head_to_foot in (False, True)
]
LEFT_UPPER, RIGHT_LOWER, LEFT_FRONT = phantom.MARKS
NORMAL = 2_000_000  # a patient without a stroke
COARSE = 4.0  # mm: 41 slices are quick


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["thin", *map(str, arguments)])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return untrained.make(tmp_path_factory.mktemp("weights"), width=1)


@pytest.fixture(scope="module")
def request_(shipped, tmp_path_factory) -> Request:
    return Request(shipped, tmp_path_factory.mktemp("thin") / "out", slice_mm=COARSE, matrix=128)


@pytest.fixture(scope="module")
def case(request_) -> Case:
    return thin.look(request_, thin.engine(request_), every=2)


@pytest.fixture(scope="module")
def written(request_, case) -> Path:
    """The folder OUT."""
    return thin.write(request_, thin.engine(request_), case).parent


def head(position: str = "HFS", tilt: float = 0.0, head_to_foot: bool = False) -> Volume:
    """The phantom without noise, as the node reads it, in slices of 3 mm."""
    slices = phantom.head(
        phantom.even(42, 3.0),
        thickness=3.0,
        noise=0.0,
        patient_position=position,
        tilt_degrees=tilt,
        head_to_foot=head_to_foot,
    )
    return volume.from_slices(slices)


def found(plane: np.ndarray, mark: phantom.Mark) -> np.ndarray:
    """(2,) row and column of the middle of a mark in a plane through it, in mm."""
    ball = np.argwhere(np.abs(plane - mark.hu) < 0.5)
    near = np.linalg.norm(ball - np.median(ball, axis=0), axis=1) < mark.radius + 1
    return ball[near].mean(axis=0)


def middle_column(plane: np.ndarray) -> float:
    """Where the head, which is symmetric but for the marks, has its middle."""
    return float(np.flatnonzero((plane > reformats.HEAD_HU).any(axis=0))[[0, -1]].mean())


@pytest.mark.parametrize(("position", "tilt", "head_to_foot"), CASES)
def test_planes_stand_as_a_radiologist_expects_them(position, tilt, head_to_foot):
    scan = head(position, tilt, head_to_foot)
    coronal, sagittal = reformats.CUTS["coronal"], reformats.CUTS["sagittal"]
    rows = {}
    for mark in (LEFT_UPPER, RIGHT_LOWER):
        plane = reformats.reformat(scan.hu, scan, coronal, np.array(mark.centre), -1000.0)
        rows[mark.name], column = found(plane, mark)
        assert column - middle_column(plane) == pytest.approx(mark.centre[0], abs=1.5), mark.name  # left is right
    assert rows["right lower"] - rows["left upper"] == pytest.approx(40.0, abs=1.5)  # down is towards the feet
    plane = reformats.reformat(scan.hu, scan, sagittal, np.array(LEFT_FRONT.centre), -1000.0)
    _, column = found(plane, LEFT_FRONT)
    assert column - middle_column(plane) == pytest.approx(LEFT_FRONT.centre[1], abs=1.5)  # the face is on the left


def test_the_planes_of_a_region_go_through_its_middle():
    scan = head("FFDL", 16.0)
    assert reformats.middle(scan.hu == LEFT_UPPER.hu, scan) == pytest.approx(LEFT_UPPER.centre, abs=1.5)


def test_the_drawn_sheet_has_the_lesion_of_the_left_beside_the_letter_l():
    """Read from the pixels and from the places of the letters, as a person does."""
    scan = head()
    brain = (scan.hu > 0) & (scan.hu < 80)
    lesion = scan.hu == LEFT_UPPER.hu
    maps = {"Tmax": np.where(brain, np.where(lesion, 12.0, 0.0), np.nan)}
    figure = reformats.sheet(scan, {"truth": maps}, ["Tmax"], lesion, "VIRTUAL")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(int)
    panels = dict(zip(reformats.CUTS, figure.axes[1:4:2], strict=True))
    ends = {"sagittal": ("A", "P", LEFT_UPPER.centre[1]), "coronal": ("R", "L", LEFT_UPPER.centre[0])}
    for name, (first, last, across) in ends.items():
        frame = panels[name].get_window_extent()
        top = pixels.shape[0] - frame.y1
        inside = pixels[round(top) : round(pixels.shape[0] - frame.y0), round(frame.x0) : round(frame.x1)]
        red = np.argwhere((inside[..., 0] > 100) & (inside[..., 2] < 60))
        y, x = red.mean(axis=0) / inside.shape[:2]
        assert (x > 0.5) == (across > 0), name
        assert y < 0.5, name  # the mark lies in the upper half
        places = {text.get_text(): text.get_position() for text in panels[name].texts}
        assert places[first][0] < 0.1 < 0.9 < places[last][0]
        assert places["F"][1] < 0.1 < 0.9 < places["H"][1]


def test_a_map_that_is_even_or_a_ramp_does_not_flicker():
    slices = np.arange(7.0)[:, None, None] * np.ones((7, 4, 4))
    brain = np.ones((7, 4, 4), bool)
    assert thin.flicker(np.full((7, 4, 4), 3.0), brain) == 0.0
    assert thin.flicker(2.5 * slices, brain) == 0.0


def test_a_map_that_goes_up_and_down_flickers_by_its_height():
    brain = np.ones((8, 3, 3), bool)
    brain[:, 0] = False
    values = np.where(np.arange(8)[:, None, None] % 2 == 0, 5.0, 9.0) * np.ones((8, 3, 3))
    values[:, 0] = 1000.0 * np.arange(8)[:, None] ** 2  # outside the brain
    assert thin.flicker(values, brain) == pytest.approx(4.0)


def test_only_voxels_with_brain_above_and_below_are_asked():
    values = np.array([0.0, 8.0, 0.0, 0.0, 50.0])[:, None, None]
    brain = np.array([True, True, True, True, False])[:, None, None]
    assert thin.flicker(values, brain) == pytest.approx((8.0 + 4.0) / 2)
    assert np.isnan(thin.flicker(values, brain & (values == 8.0)))


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=20),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_flicker_is_the_second_difference_and_knows_no_ramp(heights, start, slope):
    values = np.array(heights)[:, None, None]
    brain = np.ones(values.shape, bool)
    expected = np.mean(np.abs(np.diff(heights, 2))) / 2
    assert thin.flicker(values, brain) == pytest.approx(expected, abs=1e-9)
    ramp = start + slope * np.arange(len(heights))[:, None, None]
    assert thin.flicker(values + ramp, brain) == pytest.approx(expected, abs=1e-6)


def test_thick_slices_are_themselves_and_linear_between():
    random = np.random.default_rng(0)
    true = Maps(random.uniform(1, 9, (2, 9, 4, 4)).astype(np.float32), np.ones((9, 4, 4), bool))
    thick = thin.interpolated(true, 4)
    assert np.array_equal(thick.values[:, ::4], true.values[:, ::4])
    assert thick.values[:, 1] == pytest.approx(0.75 * true.values[:, 0] + 0.25 * true.values[:, 4])
    assert thick.values[:, 7] == pytest.approx(0.25 * true.values[:, 4] + 0.75 * true.values[:, 8])
    assert thick.brain.all()


def test_what_lies_outside_the_brain_is_not_mixed_in():
    brain = np.array([False] + [True] * 8)[:, None, None]
    true = Maps(np.where(brain, 6.0, 0.0).astype(np.float32)[None], brain)
    thick = thin.interpolated(true, 4)
    assert thick.brain.ravel().tolist() == [False, False] + [True] * 7
    assert thick.values.ravel().tolist() == [0.0, 0.0] + [6.0] * 7


def test_the_last_thick_slice_is_repeated_to_the_end():
    values = np.arange(1, 8, dtype=np.float32)[None, :, None, None]
    thick = thin.interpolated(Maps(values, values[0] > 0), 4)
    assert thick.values.ravel().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0]


def test_every_slice_gets_a_map(case):
    assert case.head.hu.shape == (41, 128, 128)
    assert case.predicted.values.shape == case.true.values.shape == (len(KINDS), 41, 128, 128)
    assert (case.predicted.values[:, ~case.predicted.brain] == 0).all()
    assert case.predicted.brain.any(axis=(1, 2)).sum() > 25
    assert case.compared.sum() > 0.9 * case.true.brain.sum()


def test_slices_of_a_millimetre_are_161_from_one_thick_slice_to_another(case):
    heights = np.array(thin.slices_of(case.patient, 64, 1.0).heights)
    assert len(heights) == 161
    assert np.allclose(np.diff(heights), 1.0)
    assert (heights[-1] - heights[0]) % thin.THICK == 0


def test_the_truth_is_perfect_and_the_interpolated_truth_is_not(case):
    for kind in KINDS:
        perfect = thin.measure(replace(case, predicted=case.true), kind)
        assert (perfect.mae, perfect.ratio) == (0.0, 1.0)
        assert perfect.true_flicker > 0
        assert perfect.thick_mae > 0
        copied = thin.measure(replace(case, predicted=case.thick), kind)
        assert copied.mae == copied.thick_mae


def test_a_prediction_that_jumps_from_slice_to_slice_is_told_from_the_truth(case):
    jumping = case.true.values.copy()
    jumping[:, ::2] += 5.0
    found = thin.measure(replace(case, predicted=Maps(jumping, case.true.brain)), "Tmax")
    assert found.flicker > found.true_flicker + 3.0
    assert found.mae == pytest.approx(2.5, abs=0.1)


def test_the_lesion_is_on_the_side_of_the_stroke(case):
    x = reformats.middle(case.lesion, case.head)[0]
    assert case.patient.params.stroke.side == "right"
    assert x < -10  # LPS: the right is negative


def test_the_same_head_as_dicom_slices_gives_the_same_maps(case, request_):
    slices = list(dicom_out.ncct(case.patient, case.grid, VENDORS["plain"]))
    maps, warnings = thin.as_the_node(volume.from_slices(slices), thin.engine(request_))
    assert len(slices) == maps.values.shape[1] == 41
    assert warnings == case.warnings
    assert (maps.brain == case.predicted.brain).mean() > 0.9999
    assert np.median(np.abs(maps.values - case.predicted.values)[:, maps.brain]) < 1e-3


def test_everything_is_written(written, case):
    figures = json.loads((written / "thin.json").read_text())
    about: Mapping = figures["about"]
    assert about["slices_in"] == 41
    assert about["slices_out"] == dict.fromkeys(KINDS, 41)
    assert about["patient"]["patient_id"] == f"VSIM-{thin.SEED}"
    assert set(about["cpu_s"]) == {"patient", "NCCT", "true maps", "maps of the node"}
    assert {kind: one["unit"] for kind, one in figures["maps"].items()} == {k: row.unit for k, row in KINDS.items()}
    for one in figures["maps"].values():
        assert one["ratio"] == pytest.approx(one["flicker"] / one["true_flicker"])
    with Image.open(written / "pictures/thin.png") as picture:
        assert min(picture.size) > 800


def test_the_report_says_what_was_measured(written):
    text = (written / "thin.md").read_text()
    figures = json.loads((written / "thin.json").read_text())
    assert text.startswith("# 41 slices in, 41 maps out\n")
    assert "virtual patient, simulated" in text
    assert "training domain: untrained" in text
    assert "(pictures/thin.png)" in text
    (tmax,) = [line for line in text.splitlines() if line.startswith("| Tmax |")]
    cells = [cell.strip() for cell in tmax.strip("|").split("|")]
    one = figures["maps"]["Tmax"]
    assert cells[1:] == [
        "s",
        *(f"{one[name]:.3f}" for name in ("flicker", "true_flicker")),
        f"{one['ratio']:.1f}",
        *(f"{one[name]:.2f}" for name in ("mae", "thick_mae")),
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--seed", 7), "seed 7 is a train patient"),
        (("--seed", 1_000_000), "is a validation patient"),
        (("--slice-mm", 3), "choose 1, 2 or 4"),
        (("--slice-mm", 8), "choose 1, 2 or 4"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(shipped, tmp_path, options, reason):
    result = run(shipped, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert reason in result.output
    assert not (tmp_path / "out").exists()


def test_a_patient_without_a_stroke_is_refused(shipped, tmp_path):
    with pytest.raises(thin.ThinError, match=f"patient {NORMAL} has no stroke"):
        request = Request(shipped, tmp_path, seed=NORMAL, slice_mm=COARSE, matrix=64)
        thin.look(request, thin.engine(request), every=2)


def test_weights_that_are_not_there_or_make_too_little_are_refused(shipped, tmp_path):
    assert run(tmp_path / "nowhere", tmp_path / "out").exit_code == 2
    manifest, state = weights.load(shipped)
    few = {name: tensor for name, tensor in state.items() if not name.startswith("branches.")}
    weights.save(tmp_path / "few", replace(manifest, kinds=("CBF",), ranges=weights.ranges(("CBF",))), few)
    result = run(tmp_path / "few", tmp_path / "out")
    assert result.exit_code == 2
    assert "make no Tmax" in result.output


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of one free core; a busy neighbour is not a failure
def test_161_slices_of_a_millimetre_give_161_maps(tmp_path):
    result = run(weights.shipped(), tmp_path)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "thin.json").read_text())
    assert figures["about"]["slices_in"] == 161
    assert set(figures["about"]["slices_out"].values()) == {161}
    assert figures["about"]["slices_with_brain"] > 120
    assert (tmp_path / "thin.md").read_text().startswith("# 161 slices in, 161 maps out\n")
