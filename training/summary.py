"""From figures of patients to rows of tables: each a statistic over patients with its bootstrap interval.

A row stands in metrics.json as it is, and report.md is written from the same rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from training.baselines import SIMILARITY_ONLY
from training.metrics import AREAS, POINTWISE, WINDOWED, auc
from training.scores import LEVELLED, NAN, Figures, Score
from training.statistics import DRAWS, Statistic, bootstrap, paired_bootstrap, permuted, repeatability
from training.strata import ALL, STRATA, groups, with_infarct

MODEL = "model"
ABSTRACT_ACCURACY = 0.875  # of infarct presence in patients, stated in the abstract 000; clinical, another cohort
SIGNS, BARE = "with signs", "without signs"  # what a counterfactual compares
CHOSEN_ON = "validation patients"  # whose accuracy is therefore too good
SHUFFLED = "shuffled labels"
SCORE = "predicted_hypoperfused_ml"  # what presence is judged by


@dataclass(frozen=True, slots=True)
class Row:
    """One statistic. table, group, source and figure say where it stands.

    n: patients it is made of; value is nan where there are none, and low and high where no interval can be given.
    """

    table: str
    group: str
    source: str
    figure: str
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of a table. names: what is read of every patient; statistic: what is made of the (patients, names)."""

    title: str
    names: tuple[str, ...]
    statistic: Statistic = np.mean


@dataclass(frozen=True, slots=True)
class Draws:
    """How intervals are drawn."""

    seed: int = 0
    count: int = DRAWS


def halves(values: np.ndarray) -> float:
    """Half the mean of the first column and half that of the second, each over patients who have it; (patients, 2)."""
    has = np.isfinite(values)
    counts = has.sum(axis=0)
    means = np.where(has, values, 0.0).sum(axis=0)[counts > 0] / counts[counts > 0]
    return float(means.mean())


def half_lesion(name: str) -> Figure:
    """The error of a map, half over the lesions and half over the rest of the brains."""
    return Figure(name, (f"{name} mae_lesion", f"{name} mae_rest"), halves)


def plain(*names: str) -> tuple[Figure, ...]:
    """Means of figures, under their own names."""
    return tuple(Figure(name, (name,)) for name in names)


def half_lesions(kinds: Sequence[str]) -> tuple[Figure, ...]:
    """The error of every map, and of some after removing each patient's median."""
    levelled = [f"{kind} levelled" for kind in kinds if kind in LEVELLED]
    return tuple(half_lesion(name) for name in (*kinds, *levelled))


REGIONS = plain("dice_hypoperfused", "dice_core")
SIDES = plain("side_right", "side_right_of_found")
MIRRORED = Figure("dice_hypoperfused", ("dice_mirrored",))
FALSE = Figure("false_hypoperfused_ml (median)", ("false_hypoperfused_ml",), np.median)
BIASES = plain("bias_hypoperfused_ml", "bias_core_ml")
VOLUMES = plain("true_hypoperfused_ml", SCORE, "true_core_ml", "predicted_core_ml")
AGAIN = (
    *plain("difference_hypoperfused_ml"),
    Figure("repeatability_hypoperfused_ml", ("difference_hypoperfused_ml",), repeatability),
    *plain("difference_core_ml"),
    Figure("repeatability_core_ml", ("difference_core_ml",), repeatability),
    *REGIONS,
)
PRESENCE = Figure("auc", (SCORE, "with_infarct"), lambda values: auc(values[:, 0], values[:, 1]))


def summarise(scores: Sequence[Score], kinds: Sequence[str], draws: Draws) -> Iterator[Row]:
    """The rows of the patients that are evaluated."""
    for stratum in STRATA:
        for group, members in groups(scores, stratum).items():
            for table, figures in (
                ("regions", (*REGIONS, SIDES[0], FALSE, *BIASES)),
                ("volumes", VOLUMES),
                ("errors", half_lesions(kinds)),
            ):
                yield from _rows(table, group, MODEL, figures, figures_of(members, MODEL), draws)
    for source in sources(scores):
        if source not in SIMILARITY_ONLY:
            theirs = figures_of(scores, source)
            yield from _rows("baselines: errors", ALL, source, half_lesions(kinds), theirs, draws)
            yield from _rows("baselines: regions", ALL, source, (*REGIONS, *SIDES, FALSE, PRESENCE), theirs, draws)
    yield from _rows("baselines: regions", ALL, "model, mirrored", (MIRRORED,), figures_of(scores, MODEL), draws)
    yield from differences(scores, kinds, draws)
    yield from _likeness(scores, kinds, draws)
    yield from _by_area(scores, kinds, draws)
    yield from _rows("physiology", ALL, MODEL, plain("residual", "residual_true"), figures_of(scores, MODEL), draws)


def _likeness(scores: Sequence[Score], kinds: Sequence[str], draws: Draws) -> Iterator[Row]:
    for kind in kinds:
        figures = tuple(Figure(f"{name}_mask", (f"{kind} {name}_mask",)) for name in ("mae", *WINDOWED))
        for source in sources(scores):
            yield from _rows("baselines: likeness", kind, source, figures, figures_of(scores, source), draws)


def _by_area(scores: Sequence[Score], kinds: Sequence[str], draws: Draws) -> Iterator[Row]:
    for kind in kinds:
        for area in AREAS:
            figures = tuple(Figure(name, (f"{kind} {name}_{area}",)) for name in (*POINTWISE, *WINDOWED))
            yield from _rows("maps", f"{kind}, {area}", MODEL, figures, figures_of(scores, MODEL), draws)


def differences(scores: Sequence[Score], kinds: Sequence[str], draws: Draws) -> Iterator[Row]:
    """The error of the model less that of each baseline, on the same patients; below 0 the model is better."""
    ours = figures_of(scores, MODEL)
    for source in sources(scores)[1:]:
        if source in SIMILARITY_ONLY:
            continue
        theirs = figures_of(scores, source)
        for figure in half_lesions(kinds):
            pair = (values_of(ours, figure), values_of(theirs, figure))
            found = paired_bootstrap(*pair, figure.statistic, seed=draws.seed, draws=draws.count)
            yield Row(
                "differences", ALL, f"model - {source}", figure.title, len(scores), found.value, found.low, found.high
            )


def sources(scores: Sequence[Score]) -> list[str]:
    """The model first, then the baselines."""
    return [MODEL, *scores[0].baselines]


def figures_of(scores: Iterable[Score], source: str) -> list[Figures]:
    """What was measured of each patient, and whether there is an infarct."""
    return [
        {**(score.model if source == MODEL else score.baselines[source]), "with_infarct": with_infarct(score.patient)}
        for score in scores
    ]


def values_of(patients: Sequence[Figures], figure: Figure) -> np.ndarray:
    """(patients, names) float64, nan where a patient has none."""
    return np.array([[one.get(name, NAN) for name in figure.names] for one in patients], np.float64)


def _rows(
    table: str, group: str, source: str, figures: Iterable[Figure], patients: Sequence[Figures], draws: Draws
) -> Iterator[Row]:
    for figure in figures:
        yield row(table, group, source, figure, patients, draws)


def row(table: str, group: str, source: str, figure: Figure, patients: Sequence[Figures], draws: Draws) -> Row:
    """One statistic over those patients who have the figure."""
    values = values_of(patients, figure)
    values = values[~np.isnan(values).all(axis=1)]
    if not len(values):
        return Row(table, group, source, figure.title, 0, NAN, NAN, NAN)
    if len(values) < 2 or np.isinf(values).any():  # no spread to draw from, or the PSNR of an equal map
        value = float(figure.statistic(values))
        return Row(table, group, source, figure.title, len(values), value, NAN, NAN)
    found = bootstrap(values, figure.statistic, seed=draws.seed, draws=draws.count)
    return Row(table, group, source, figure.title, len(values), found.value, found.low, found.high)


def best_threshold(volumes: np.ndarray, labels: np.ndarray) -> float:
    """The volume in ml above which a stroke is called present, so that most validation patients are called rightly.

    Half way between neighbouring volumes; of equals the lowest, which misses fewest strokes.
    """
    ordered = np.unique(volumes)
    candidates = np.concatenate([[-1.0], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1.0]])
    right = [float(((volumes > candidate) == labels).mean()) for candidate in candidates]
    return float(candidates[int(np.argmax(right))])


def presence(scores: Sequence[Score], validation: Sequence[Score], draws: Draws) -> Iterator[Row]:
    """AUC, also of shuffled labels, and the accuracy at the threshold that suits the validation patients best.

    Without validation patients there is no accuracy.
    """
    patients = figures_of(scores, MODEL)
    yield row("presence", ALL, MODEL, PRESENCE, patients, draws)
    chance = permuted(values_of(patients, PRESENCE), PRESENCE.statistic, seed=draws.seed, draws=draws.count)
    yield Row("presence", ALL, SHUFFLED, PRESENCE.title, len(patients), chance.value, chance.low, chance.high)
    if not validation:
        return
    known = figures_of(validation, MODEL)
    values = values_of(known, PRESENCE)
    threshold = best_threshold(values[:, 0], values[:, 1].astype(bool))
    accuracy = Figure("accuracy", PRESENCE.names, partial(_accuracy, threshold))
    yield row("presence", ALL, MODEL, accuracy, patients, draws)
    yield from _rows("presence", ALL, CHOSEN_ON, (PRESENCE, accuracy), known, draws)
    yield Row("presence", ALL, CHOSEN_ON, "threshold_ml", len(validation), threshold, NAN, NAN)


def _accuracy(threshold: float, values: np.ndarray) -> float:
    return float(((values[:, 0] > threshold) == values[:, 1].astype(bool)).mean())


def counterfactual(real: Sequence[Score], without: Sequence[Score], draws: Draws) -> Iterator[Row]:
    """Strokes as they are beside the same patients without a sign of the stroke in their CT."""
    ids = {score.patient.patient_id for score in without}
    seen = [score for score in real if score.patient.patient_id in ids]
    figures = (*SIDES, *REGIONS, *plain(SCORE))
    for stratum in ("infarct", "class"):
        for source, scores in ((SIGNS, seen), (BARE, without)):
            for group, members in groups(filter(lambda score: with_infarct(score.patient), scores), stratum).items():
                yield from _rows("counterfactual", group, source, figures, figures_of(members, MODEL), draws)


def retest(twice: Sequence[Score], draws: Draws) -> Iterator[Row]:
    """How the predictions from a second scan of the same patients differ from those of the first."""
    for stratum in ("everyone", "class"):
        for group, members in groups(twice, stratum).items():
            yield from _rows("retest", group, MODEL, AGAIN, figures_of(members, MODEL), draws)


def operating_points(by_threshold: Mapping[float, Sequence[Score]], draws: Draws) -> Iterator[Row]:
    """What each Tmax threshold would mean on the validation patients."""
    classes = {threshold: groups(scores, "class") for threshold, scores in by_threshold.items()}
    figures = (*REGIONS, SIDES[0], FALSE)
    for group in next(iter(classes.values()), {}):
        for threshold, members in classes.items():
            patients = figures_of(members[group], MODEL)
            yield from _rows("operating point", group, f"{threshold:g} s", figures, patients, draws)
