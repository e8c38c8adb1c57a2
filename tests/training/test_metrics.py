"""Metrics against the libraries that everybody quotes, and regions against boxes of pixels."""

import numpy as np
import pytest

from inference import regions
from inference.maps import KINDS
from inference.regions import Regions
from training import metrics

# Computed once on `pair()` with scikit-image 0.26.0 and sewar 0.4.10 (numpy 2.4.6, scipy 1.17.1):
# structural_similarity(true, predicted, data_range=60, full=True), the mean of its map over true > 0, sewar's uqi,
# peak_signal_noise_ratio(..., data_range=60), normalized_root_mse(true, predicted), and the first and the third of the
# box around true > 0.
SSIM_WHOLE, SSIM_MASK, SSIM_BOX = 0.6690259465338317, 0.6758408977601538, 0.6762135525587487
UQI_WHOLE, UQI_BOX = 0.8625948513443731, 0.9243755324706239
PSNR, NRMSE = 16.76222687486026, 0.3533060900510718
TOLERANCE = 1e-6  # models.md E1


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two waves in two ellipses, (64, 48), 0 outside."""
    rows, columns = np.mgrid[:64, :48]
    true = np.where(
        (rows - 32.0) ** 2 / 900 + (columns - 24.0) ** 2 / 400 < 1,
        30 + 20 * np.sin(rows / 5) * np.cos(columns / 7),
        0,
    )
    predicted = np.where(
        (rows - 31.0) ** 2 / 850 + (columns - 25.0) ** 2 / 420 < 1,
        28 + 18 * np.sin(rows / 5 + 0.3) * np.cos(columns / 6),
        0,
    )
    return true, predicted


@pytest.fixture
def scores() -> dict[str, float]:
    true, predicted = pair()
    return metrics.compare(true[None], predicted[None], (true > 0)[None], KINDS["CBF"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssim_whole", SSIM_WHOLE),
        ("ssim_box", SSIM_BOX),
        ("ssim_mask", SSIM_MASK),
        ("uqi_whole", UQI_WHOLE),
        ("uqi_box", UQI_BOX),
        ("psnr_whole", PSNR),
        ("nrmse_whole", NRMSE),
    ],
)
def test_a_metric_equals_the_library(scores, name, value):
    assert scores[name] == pytest.approx(value, abs=TOLERANCE)


def test_every_metric_comes_for_every_region(scores):
    names = {f"{metric}_{area}" for metric in ("ssim", "uqi", "mae", "psnr", "nrmse") for area in metrics.AREAS}
    assert scores.keys() == names


def test_equal_maps_are_perfect():
    true, _ = pair()
    scores = metrics.compare(true[None], true[None], (true > 0)[None], KINDS["CBF"])
    assert scores["ssim_mask"] == pytest.approx(1.0)
    assert scores["mae_mask"] == scores["nrmse_mask"] == 0.0
    assert scores["psnr_mask"] == float("inf")


def test_the_background_flatters_the_whole_image():
    """Nothing at all predicted: 76 % of background like that of models.md 0.5 carry the SSIM of the whole image."""
    true, mask = np.zeros((1, 256, 256)), np.zeros((1, 256, 256), bool)
    mask[:, 66:191, 66:191] = True
    true[mask] = 30.0
    scores = metrics.compare(true, np.zeros_like(true), mask, KINDS["CBF"])
    assert scores["ssim_whole"] > 0.7
    assert scores["ssim_mask"] < 0.05


def test_errors_are_in_the_unit_of_the_map_and_slices_without_brain_do_not_count():
    true, mask = np.zeros((2, 32, 32)), np.zeros((2, 32, 32), bool)
    mask[0, 8:24, 8:24] = True
    true[mask] = 6.0
    predicted = np.where(mask, 4.5, 0.0)
    predicted[1] = 12.0
    scores = metrics.compare(true, predicted, mask, KINDS["Tmax"])
    assert scores["mae_mask"] == pytest.approx(1.5)
    assert scores["mae_box"] == pytest.approx(1.5)
    assert scores["mae_whole"] == pytest.approx(1.5 * 16**2 / 32**2)
    assert scores["nrmse_mask"] == pytest.approx(0.25)
    assert scores["psnr_mask"] == pytest.approx(20 * np.log10(12 / 1.5))


def test_values_beyond_the_range_count_as_its_end():
    true = np.full((1, 16, 16), 40.0)
    scores = metrics.compare(true, np.full_like(true, 12.0), np.ones_like(true, bool), KINDS["Tmax"])
    assert scores["mae_mask"] == 0.0


def test_a_box_smaller_than_the_window_has_no_windowed_value():
    true, mask = np.zeros((1, 32, 32)), np.zeros((1, 32, 32), bool)
    mask[0, 10:14, 10:14] = True
    scores = metrics.compare(true, true, mask, KINDS["CBF"])
    assert np.isnan(scores["ssim_box"]) and np.isfinite(scores["ssim_whole"])


def test_the_box_is_that_of_each_slice():
    mask = np.zeros((2, 20, 20), bool)
    mask[0, 3, 4] = mask[0, 8, 6] = mask[1, 0, 19] = True
    assert metrics.areas(mask)["box"].sum(axis=(1, 2)).tolist() == [6 * 3, 1]


def test_dice_by_hand():
    true, predicted = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    true[0, 0], predicted[0, 0, :2], predicted[0, 1, :2] = True, True, True
    assert metrics.dice(true, predicted) == pytest.approx(2 * 2 / (4 + 4))
    assert metrics.dice(true, ~true) == 0.0
    assert np.isnan(metrics.dice(~true & true, ~true & true))


def found_in(core: np.ndarray, late: np.ndarray) -> Regions:
    return Regions(core, late, 40.0, regions.volume(core, 0.5), regions.volume(late, 0.5))


def test_how_well_a_lesion_was_found_by_hand():
    """True: columns 6 to 9 late, 8 and 9 core; predicted: 4 to 7 late; left is 5 and beyond, 0.5 ml a voxel."""
    left, nothing = (np.arange(10) >= 5)[None, None], np.zeros((1, 1, 10), bool)
    true_core, true_late, late = nothing.copy(), nothing.copy(), nothing.copy()
    true_core[..., 8:], true_late[..., 6:], late[..., 4:8] = True, True, True
    assert metrics.lesions(found_in(true_core, true_late), found_in(nothing, late), left, 0.5) == {
        "dice_core": 0.0,
        "dice_hypoperfused": 0.5,
        "bias_core_ml": -1.0,
        "bias_hypoperfused_ml": 0.0,
        "false_hypoperfused_ml": 1.0,
        "side_right": 1.0,
    }


def test_a_patient_without_a_lesion_has_no_side_and_what_is_predicted_is_false():
    left, nothing = (np.arange(10) >= 5)[None, None], np.zeros((1, 1, 10), bool)
    late = ~nothing & left
    scores = metrics.lesions(found_in(nothing, nothing), found_in(nothing, late), left, 0.5)
    assert scores["false_hypoperfused_ml"] == scores["bias_hypoperfused_ml"] == 2.5
    assert np.isnan(scores["side_right"]) and np.isnan(scores["dice_core"])
    assert metrics.lesions(found_in(nothing, late), found_in(nothing, nothing), left, 0.5)["side_right"] == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
    ],
)
def test_the_area_under_the_curve(scores, labels, area):
    assert metrics.auc(np.array(scores), np.array(labels)) == pytest.approx(area)


def test_the_area_under_the_curve_wants_both_kinds():
    assert np.isnan(metrics.auc(np.array([1.0, 2.0]), np.array([1, 1])))


@pytest.mark.parametrize("name", metrics.WINDOWED)
def test_the_value_of_a_box_is_that_of_the_box_cut_out(name):
    random, metric = np.random.default_rng(3), metrics.WINDOWED[name]
    true, predicted = random.uniform(0.0, 12.0, (2, 1, 64, 48))
    mask = np.zeros((1, 64, 48), bool)
    mask[0, 10:41, 7:33] = True
    cut = metric.local(true[0, 10:41, 7:33], predicted[0, 10:41, 7:33], 12.0)
    inner = cut[metric.border : -metric.border, metric.border : -metric.border]
    assert metrics.compare(true, predicted, mask, KINDS["Tmax"])[f"{name}_box"] == pytest.approx(float(inner.mean()))
