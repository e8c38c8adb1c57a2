"""Table 1 of paper 001, reproduced, and the bootstrap over patients."""

import numpy as np
import pytest

from training import statistics
from training.metrics import auc
from training.statistics import bootstrap, kappa, paired_bootstrap, permuted, repeatability, wilson

TABLE_1 = {  # question: agreements, ratings, printed percentage and interval (models.md 2.3; Q3 has 139 ratings, A22)
    "1": (113, 140, 80.71, 73.39, 86.39),
    "2A CBV": (127, 140, 90.71, 84.76, 94.49),
    "2B CBF": (133, 140, 95.00, 90.04, 97.56),
    "2C MTT": (106, 140, 75.71, 67.99, 82.07),
    "2D TTP": (116, 140, 82.86, 75.76, 88.20),
    "3": (74, 139, 53.24, 44.97, 61.33),
    "4": (77, 140, 55.00, 46.74, 63.00),
}
S6 = [[43, 14, 0, 2], [13, 9, 2, 6], [3, 2, 6, 13], [6, 2, 1, 16]]  # question 3, rows RAPID, columns MAGIC
S7 = [[1, 0, 1, 0, 0], [0, 3, 1, 4, 2], [0, 1, 4, 8, 1], [0, 9, 6, 44, 15], [0, 1, 3, 11, 25]]  # question 4
S3 = [[133, 7, 0], [0, 0, 0], [0, 0, 0]]  # question 2B: all 140 RAPID maps acceptable, 7 MAGIC maps not


@pytest.mark.parametrize("question", TABLE_1)
def test_the_agreement_of_table_1_is_reproduced(question):
    agreed, rated, *printed = TABLE_1[question]
    found = wilson(agreed, rated)
    assert [round(100 * value, 2) for value in (found.value, found.low, found.high)] == printed


@pytest.mark.parametrize(
    ("table", "printed"),
    [(S6, (0.334, 0.223, 0.445)), (S7, (0.298, 0.176, 0.421)), (S3, (0.0, 0.0, 0.0))],
    ids=["3", "4", "2B CBF"],
)
def test_the_kappa_of_table_1_is_reproduced(table, printed):
    found = kappa(np.array(table))
    assert (found.value, found.low, found.high) == pytest.approx(printed, abs=0.0006)


def test_raters_who_always_agree_have_kappa_1():
    assert kappa(np.diag([5, 7])).value == pytest.approx(1.0)


def test_raters_who_know_a_single_answer_have_no_kappa():
    assert np.isnan(kappa(np.array([[10, 0], [0, 0]])).value)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, 0)])
def test_an_impossible_share_is_refused(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


def test_the_interval_of_a_share_stays_within_0_and_1():
    assert wilson(0, 10).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(10, 10).high == pytest.approx(1.0, abs=1e-12)


def test_the_bootstrap_of_a_mean_is_near_the_interval_of_theory():
    """Standard normal, 400 patients: mean +- 1.96 / 20; 2,000 draws leave about 5 % of the half width."""
    patients = np.random.default_rng(0).normal(size=400)
    found = bootstrap(patients, seed=1)
    assert found.value == patients.mean()
    half = 1.96 * patients.std() / 20
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)


def test_the_same_seed_gives_the_same_interval():
    patients = np.random.default_rng(0).normal(size=30)
    assert bootstrap(patients, seed=3) == bootstrap(patients, seed=3)
    assert bootstrap(patients, seed=3) != bootstrap(patients, seed=4)


def test_what_belongs_to_a_patient_stays_together():
    """Two columns that are equal in every patient: their difference has no spread."""
    column = np.random.default_rng(0).normal(size=30)
    rows = np.stack([column, column], axis=1)
    found = bootstrap(rows, lambda drawn: float((drawn[:, 0] - drawn[:, 1]).mean()))
    assert (found.low, found.high) == (0.0, 0.0)


def test_pairs_see_a_difference_that_separate_intervals_do_not():
    theirs = np.random.default_rng(0).normal(0, 10, size=40)
    ours = theirs - 0.5
    assert not bootstrap(ours).excludes(theirs.mean())
    found = paired_bootstrap(ours, theirs)
    assert found.excludes(0.0) and found.value == pytest.approx(-0.5)


def test_the_paired_difference_is_of_the_statistic():
    theirs, ours = np.array([1.0, 2.0, 9.0]), np.array([2.0, 1.0, 4.0])
    assert paired_bootstrap(ours, theirs, np.median).value == 0.0


def test_pairs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_bootstrap(np.zeros(3), np.zeros(2))


def test_the_auc_of_shuffled_labels_is_a_half_within_the_range_of_theory():
    """Mann and Whitney: variance (m + n + 1) / (12 m n) for m of one kind and n of the other."""
    volumes = np.random.default_rng(0).gamma(1.0, 80.0, 300)
    patients = np.stack([volumes, volumes > np.median(volumes)], axis=1)
    statistic = lambda values: auc(values[:, 0], values[:, 1])  # noqa: E731
    assert statistic(patients) == 1.0
    found = permuted(patients, statistic, seed=1)
    half = 1.96 * np.sqrt(301 / (12 * 150 * 150))
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)
    assert found.excludes(1.0)


def test_permutations_are_the_same_for_the_same_seed():
    patients = np.random.default_rng(0).normal(size=(20, 2))
    statistic = lambda values: float((values[:, 0] * values[:, 1]).sum())  # noqa: E731
    assert permuted(patients, statistic, seed=3) == permuted(patients, statistic, seed=3)
    assert permuted(patients, statistic, seed=3) != permuted(patients, statistic, seed=4)


def test_19_of_20_repeats_differ_by_less_than_the_repeatability():
    """2,000 patients measured twice with an error of 5: 1.96 * 5 * root 2 = 13.9."""
    first, second = np.random.default_rng(0).normal(0, 5, (2, 2000))
    found = repeatability(second - first)
    assert found == pytest.approx(1.96 * 5 * 2**0.5, rel=0.05)
    assert np.mean(np.abs(second - first) < found) == pytest.approx(0.95, abs=0.015)


def test_nobody_cannot_be_drawn():
    with pytest.raises(ValueError, match="at least one patient"):
        bootstrap(np.zeros(0))


def test_an_interval_excludes_what_lies_outside():
    interval = statistics.Interval(0.5, 0.1, 0.9)
    assert interval.excludes(0.0) and not interval.excludes(0.1)
