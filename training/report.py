"""The report of an evaluation in Markdown: the rows of metrics.json as tables, to be read from top to bottom."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from inference.maps import KINDS
from training import bars
from training.metrics import POINTWISE, WINDOWED
from training.pictures import Picture
from training.summary import ABSTRACT_ACCURACY, MODEL, Row


@dataclass(frozen=True, slots=True)
class Table:
    """How a table of the rows is shown. by: what a line is, "group", "source" or both; note: stands below it."""

    title: str
    by: tuple[str, ...]
    note: str


TABLES: Mapping[str, Table] = {
    "presence": Table(
        "Is there an infarct?",
        ("source",),
        "Score: predicted volume of Tmax > 6 s; present: class mild or severe. Shuffled labels: mean and 95 % range "
        "over permutations of who has an infarct, the AUC of chance. The accuracy is at the threshold that "
        "was best on the validation patients, whose own accuracy is therefore too good. Abstract 000 states an "
        "accuracy of {accuracy:.1%} in patients (clinical, another cohort; not to be compared with simulated figures).",
    ),
    "regions": Table(
        "Core and hypoperfused tissue by group",
        ("group",),
        "Regions of design.md contract 13. Dice: patients in whom either map has the region. Side: patients with a "
        "true lesion, no side found counts as wrong. Bias: predicted less true volume. False: predicted outside the "
        "true region.",
    ),
    "baselines: regions": Table(
        "Core and hypoperfused tissue, model and trivial baselines",
        ("source",),
        "A Dice without that of the mirrored prediction beside it says little: what knows the anatomy but not the side "
        "earns as much.",
    ),
    "volumes": Table("Volumes in ml, means", ("group",), "True and predicted volumes of the patients of each group."),
    "baselines: errors": Table(
        "Mean absolute error, half over the lesions and half over other brain",
        ("source",),
        "In the unit of each map. Lesion: true Tmax > 6 s. Each half is the mean over the patients who have it. "
        "Levelled: after removing each patient's median.",
    ),
    "differences": Table(
        "Difference of that error to the trivial baselines",
        ("source",),
        "Paired over patients; below 0 the model is better, and the interval must exclude 0 before anybody says so.",
    ),
    "errors": Table(
        "Mean absolute error of the model by group, half over the lesions and half over other brain",
        ("group",),
        "As above. Groups without a true lesion have the other half alone.",
    ),
    "baselines: likeness": Table(
        "Likeness over the brain, model and trivial baselines",
        ("group", "source"),
        "SSIM and UQI reward smooth anatomy: they are never an acceptance figure alone (design.md contract 14).",
    ),
    "maps": Table(
        "Errors and likeness of the model over whole image, box and brain",
        ("group",),
        "MAE in the unit of the map, PSNR in dB, NRMSE as a share of the truth. The whole image is mostly background.",
    ),
    "physiology": Table(
        "Physiology",
        ("source",),
        "Mean of |CBF * MTT / 60 - CBV| over the brain in ml/100 g, of the model and, for the clipping of the ranges, "
        "of the truth.",
    ),
    "counterfactual": Table(
        "Counterfactual: the same patients without a sign of the stroke in their CT",
        ("group", "source"),
        "What stays without signs is prior knowledge, not reading: side 50 % of those found, core Dice below 0.1.",
    ),
    "retest": Table(
        "Test and retest: the same patients scanned twice",
        ("group",),
        "The second scan differs by its noise alone, so whatever differs between the predictions is noise too. "
        "Difference: second less first. Repeatability: in 95 % of patients both differ by less (1.96 times the root "
        "mean square of the differences). Dice: between both predictions, patients in whom either has the region.",
    ),
    "operating point": Table(
        "Validation patients at other Tmax thresholds",
        ("group", "source"),
        "A threshold is chosen here, never on the evaluated patients.",
    ),
}

ANSWERS = {True: "met", False: "MISSED"}
HEADINGS: Mapping[str, str] = {
    "dice_hypoperfused": "Dice Tmax > 6 s",
    "dice_core": "Dice core",
    "side_right": "side right",
    "side_right_of_found": "side right, of those found",
    "false_hypoperfused_ml (median)": "false Tmax > 6 s, median ml",
    "bias_hypoperfused_ml": "bias Tmax > 6 s, ml",
    "bias_core_ml": "bias core, ml",
    "true_hypoperfused_ml": "true Tmax > 6 s, ml",
    "predicted_hypoperfused_ml": "predicted Tmax > 6 s, ml",
    "true_core_ml": "true core, ml",
    "predicted_core_ml": "predicted core, ml",
    "difference_hypoperfused_ml": "difference Tmax > 6 s, ml",
    "difference_core_ml": "difference core, ml",
    "repeatability_hypoperfused_ml": "repeatability Tmax > 6 s, ml",
    "repeatability_core_ml": "repeatability core, ml",
    "threshold_ml": "threshold, ml",
    "auc": "AUC",
    "residual": "predicted",
    "residual_true": "true",
    **{f"{name}{area}": name.upper() for name in (*POINTWISE, *WINDOWED) for area in ("", "_mask")},
}


def write(about: Mapping[str, Any], rows: Sequence[Row], drawn: Sequence[Picture]) -> str:
    """The whole report."""
    patients = kind(about)
    parts = [*_head(about), *_bars(rows, patients), *_verdicts(rows), *_tables(rows, patients), *_pictures(drawn)]
    return "\n\n".join(parts) + "\n"


def kind(about: Mapping[str, Any]) -> str:
    """What the patients are, for the title of every table."""
    return "simulated patients" if about["virtual"] else "clinical patients"


def _head(about: Mapping[str, Any]) -> Iterator[str]:
    weights, drawn = about["weights"], about["bootstrap"]
    yield f"# {weights['name']} version {weights['version']} on {about['patients']} {kind(about)}"
    if about["virtual"]:
        yield "These patients are **simulated**. The figures say nothing about accuracy in real ones."
    yield (
        f"Split {about['split']}, never trained on. Predicted Tmax above {about['tmax_threshold_s']:g} s counts as "
        f"hypoperfused, true Tmax above 6 s. In brackets: {drawn['level']:.0%} interval over patients (bootstrap, "
        f"{drawn['draws']} draws, seed {drawn['seed']}). Weights sha256 {weights['sha256'][:16]}, trained on "
        f"{weights['training_domain']} data; cohort sha256 {about['cohort_digest'][:16]}."
    )


def _bars(rows: Sequence[Row], patients: str) -> Iterator[str]:
    lines = [f"| {one.words} | {cell(one.row, 0)} | {ANSWERS[one.met]} |" for one in bars.judge(rows)]
    yield f"## Bars ({patients})"
    yield "\n".join(["| demand | found | |", "| --- | ---: | --- |", *lines])


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """For each map, whether the model beats the baseline that comes nearest."""
    named: dict[str, list[Row]] = {}
    for row in rows:
        if row.table == "differences":
            named.setdefault(row.figure, []).append(row)
    if named:
        yield "\n".join(
            f"- {heading(figure)}: {_verdict(max(found, key=lambda row: row.value))}" for figure, found in named.items()
        )


def _verdict(row: Row) -> str:
    words = "better than" if row.high < 0 else "worse than" if row.low > 0 else "not told apart from"
    baseline = row.source.removeprefix(f"{MODEL} - ")
    return f"the model is {words} the best trivial baseline ({baseline}), difference {cell(row, row.n)}"


def _tables(rows: Sequence[Row], patients: str) -> Iterator[str]:
    for name, table in TABLES.items():
        if found := [row for row in rows if row.table == name]:
            yield f"## {table.title} ({patients})"
            yield grid(found, table.by)
            yield table.note.format(accuracy=ABSTRACT_ACCURACY)


def grid(rows: Sequence[Row], by: Sequence[str]) -> str:
    """One line for each group or source, one column for each figure; a cell with fewer patients says how many."""
    figures = list(dict.fromkeys(row.figure for row in rows))
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault(tuple(getattr(row, part) for part in by), {})[row.figure] = row
    yielded = [[*by, "n", *map(heading, figures)], ["---"] * len(by) + ["---:"] * (1 + len(figures))]
    for names, found in lines.items():
        n = max(row.n for row in found.values())
        yielded.append([*names, str(n), *(cell(found[figure], n) if figure in found else "" for figure in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in yielded)


def heading(figure: str) -> str:
    """A figure as the head of a column, a map with its unit."""
    name = figure.removesuffix(" levelled")
    return f"{figure}, {KINDS[name].unit}" if name in KINDS else HEADINGS.get(figure, figure)


def cell(row: Row, n: int) -> str:
    """Value and interval; the number of patients where it is not that of the line."""
    if isnan(row.value):
        return "–"
    interval = f" [{number(row.low)}, {number(row.high)}]" if isfinite(row.low) and isfinite(row.high) else ""
    return f"{number(row.value)}{interval}" + (f", n {row.n}" if row.n != n else "")


def number(value: float) -> str:
    """Two decimals, fewer for large values."""
    return "∞" if value == float("inf") else f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _pictures(drawn: Sequence[Picture]) -> Iterator[str]:
    yield "## Pictures"
    for picture in drawn:
        yield f"![{picture.caption}](pictures/{picture.name})\n\n{picture.caption}"
