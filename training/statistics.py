"""Intervals and agreement: what Table 1 of paper 001 was made with, and the bootstrap over patients.

Wilson intervals reproduce all seven agreements of that table, the kappa all of its rows that can be recomputed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np

Statistic = Callable[[np.ndarray], float]
LEVEL = 0.95
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that holds the true value at the level that was asked for."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside."""
        return not self.low <= value <= self.high


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """A share and its Wilson score interval without continuity correction (models.md A18).

    Source: Newcombe, Stat Med 1998;17:857-872, method 3.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"a share needs successes among at least one trial, got {successes} of {trials}")
    z, share = _z(level), successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Interval(share, middle - half, middle + half)


def kappa(table: np.ndarray, level: float = LEVEL) -> Interval:
    """Cohen's unweighted kappa of two raters; nan where both always give the same single answer.

    table: (answers, answers) counts, rows the one rater, columns the other.
    Source of the standard error: Fleiss, Cohen and Everitt, Psychol Bull 1969;72:323-327.
    """
    n = table.sum()
    p = table / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if expected == 1.0:
        return Interval(nan, nan, nan)
    value = (observed - expected) / (1 - expected)
    diagonal = np.diag(p) @ (1 - expected - (rows + columns) * (1 - observed)) ** 2
    elsewhere = (p * (columns[:, None] + rows[None, :]) ** 2).sum() - np.diag(p) @ (rows + columns) ** 2
    rest = (observed * expected - 2 * expected + observed) ** 2
    variance = (diagonal + (1 - observed) ** 2 * elsewhere - rest) / (n * (1 - expected) ** 4)
    half = _z(level) * sqrt(max(float(variance), 0.0))  # rounding can leave it just below 0
    return Interval(value, value - half, value + half)


def bootstrap(
    patients: np.ndarray, statistic: Statistic = np.mean, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> Interval:
    """A statistic over patients with its percentile interval; the same seed gives the same interval.

    patients: (patients, ...), a row for each; whole rows are drawn, so what belongs to a patient stays together.
    """
    drawn = [float(statistic(patients[chosen])) for chosen in _samples(len(patients), seed, draws)]
    return Interval(float(statistic(patients)), *_percentiles(drawn, level))


def paired_bootstrap(
    ours: np.ndarray,
    theirs: np.ndarray,
    statistic: Statistic = np.mean,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval:
    """statistic(ours) - statistic(theirs) on the same patients in the same order, each draw taking both alike."""
    if len(ours) != len(theirs):
        raise ValueError(f"pairs want the same patients on both sides, got {len(ours)} and {len(theirs)}")

    def difference(chosen: np.ndarray) -> float:
        return float(statistic(ours[chosen])) - float(statistic(theirs[chosen]))

    drawn = [difference(chosen) for chosen in _samples(len(ours), seed, draws)]
    return Interval(difference(np.arange(len(ours))), *_percentiles(drawn, level))


def permuted(
    patients: np.ndarray, statistic: Statistic, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> Interval:
    """What a statistic is where the last column means nothing: its mean over permutations, and the range of most.

    patients: (patients, columns); the last column is dealt out anew among the patients in every draw.
    """
    random = np.random.default_rng(seed)
    drawn = [
        float(statistic(np.column_stack([patients[:, :-1], random.permutation(patients[:, -1])]))) for _ in range(draws)
    ]
    return Interval(float(np.mean(drawn)), *_percentiles(drawn, level))


def repeatability(differences: np.ndarray) -> float:
    """What two measurements of one patient differ by at most in 95 % of patients; differences: (patients, ...).

    1.96 times the root of twice the variance within patients, which is half the mean squared difference.
    Source: Bland and Altman, Stat Methods Med Res 1999;8:135-160.
    """
    return _z(0.95) * sqrt(float(np.mean(differences**2)))


def _samples(count: int, seed: int, draws: int) -> np.ndarray:
    """(draws, count) indices of patients, with replacement."""
    if count == 0:
        raise ValueError("a bootstrap needs at least one patient")
    return np.random.default_rng(seed).integers(0, count, (draws, count))


def _percentiles(drawn: list[float], level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
