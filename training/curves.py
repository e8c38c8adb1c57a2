"""The curves of a training: a CSV with a row for each epoch, and the same as a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, float]  # of one epoch: name -> value
VALIDATION = "validation_"  # what the names of figures from validation patients begin with


def write(out: Path, history: Sequence[Row]) -> None:
    """Replace curves.csv and curves.png in a folder."""
    partial = out / "curves.csv.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[-1]))
        writer.writeheader()
        writer.writerows(history)
    partial.replace(out / "curves.csv")
    _draw(history).savefig(out / "curves.partial.png", dpi=100)
    (out / "curves.partial.png").replace(out / "curves.png")


def _draw(history: Sequence[Row]) -> Figure:
    names = [name for name in history[-1] if name != "epoch"]
    panels = {
        "Training losses, before their lambdas": [name for name in names if not name.startswith(VALIDATION)],
        "Validation patients: mae in the unit of each map, score in ranges": [
            name for name in names if name.startswith(VALIDATION)
        ],
    }
    figure = Figure(figsize=(12, 5), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        _panel(axes, title, lines, history)
    return figure


def _panel(axes: Axes, title: str, names: Sequence[str], history: Sequence[Row]) -> None:
    for name in names:
        epochs, values = [row["epoch"] for row in history], [row[name] for row in history]
        axes.plot(epochs, values, label=name.removeprefix(VALIDATION), marker=".")
    axes.set(title=title, xlabel="epoch", yscale="log")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
