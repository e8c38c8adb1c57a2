"""Pictures of an evaluation: a good, a median and a bad case, true maps above predicted ones; scatters of volumes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference.maps import KINDS
from training import scores
from training.baselines import TARGET
from training.data import Arrays
from training.metrics import box
from training.scores import Case, Score
from training.simulate.colours import rainbow
from training.strata import with_infarct

Predict = Callable[[Arrays], np.ndarray]
CASES = {"good": 0.9, "median": 0.5, "bad": 0.1}  # where a case stands among the strokes, ordered by Dice
COLOURS = {"none": "tab:green", "mild": "tab:orange", "severe": "tab:red"}
VOLUMES = {"hypoperfused": "Tmax > 6 s", "core": "Core"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A file in the folder of pictures, and what it shows."""

    name: str
    caption: str


def draw(
    folder: Path, found: Sequence[Score], kinds: Sequence[str], predict: Predict, *, virtual: bool
) -> list[Picture]:
    """Write all pictures; without a stroke there are no cases."""
    mark = "SIMULATED, NOT PATIENTS" if virtual else "CLINICAL"
    _scatter(found, mark).savefig(folder / "volumes.png", dpi=100)
    shown = [Picture("volumes.png", "Predicted against true volumes in ml; on the dashed line both are equal.")]
    ordered = by_dice(found)
    for name, place in places(len(ordered)).items():
        case = scores.open_case(ordered[place].patient, kinds)
        words = _caption(name, ordered[place], f"{place + 1} of {len(ordered)}")
        _case(case, predict(case.arrays), f"{mark}. {words}").savefig(folder / f"{name}.png", dpi=100)
        shown.append(Picture(f"{name}.png", words))
    return shown


def by_dice(found: Sequence[Score]) -> list[Score]:
    """The strokes with a true lesion, the one that was found worst first."""
    strokes = [score for score in found if with_infarct(score.patient) and score.model["true_hypoperfused_ml"] > 0]
    return sorted(strokes, key=lambda score: score.model["dice_hypoperfused"])


def places(strokes: int) -> dict[str, int]:
    """Where each case stands in that order; none without strokes."""
    return {name: round(share * (strokes - 1)) for name, share in CASES.items()} if strokes else {}


def _caption(name: str, score: Score, place: str) -> str:
    figures = score.model
    return (
        f"{name.capitalize()} case, {score.patient.patient_id} ({score.patient.severity}): "
        f"Dice of Tmax > 6 s {figures['dice_hypoperfused']:.2f}, stroke {place} from the worst; "
        f"{figures['predicted_hypoperfused_ml']:.0f} ml predicted, {figures['true_hypoperfused_ml']:.0f} ml true."
    )


def _case(case: Case, predicted_SKYX: np.ndarray, title: str) -> Figure:
    """NCCT and maps of the slice with most true lesion, outlined on Tmax; the patient's right is on the left."""
    s = int(case.regions.hypoperfused.sum(axis=(1, 2)).argmax())
    cut = box(case.mask[s])
    figure = Figure(figsize=(2.0 * (len(case.kinds) + 1), 5.2), layout="constrained")
    panels = figure.subplots(2, len(case.kinds) + 1)
    grey = (case.arrays.planes[s, TARGET].astype(np.float32) + 1) / 2
    panels[0, 0].imshow(grey[cut], cmap="gray", vmin=0, vmax=1)
    panels[0, 0].set_title("NCCT, 0 to 80 HU", fontsize="small")
    for k, kind in enumerate(case.kinds):
        ceiling = KINDS[kind].ceiling
        for axes, maps in zip(panels[:, k + 1], (case.true, predicted_SKYX), strict=True):
            colours = rainbow(np.clip(maps[s, k] / ceiling, 0, 1)) / 255 * case.mask[s][..., None]
            axes.imshow(colours[cut])
        panels[0, k + 1].set_title(f"{kind}, 0 to {ceiling:g}\n{KINDS[kind].unit}", fontsize="small")
    for axes in panels[:, 1 + case.kinds.index("Tmax")]:
        axes.contour(case.regions.hypoperfused[s][cut], levels=[0.5], colors="white", linewidths=0.8)
    for axes, words in zip(panels[:, 1], ("true", "predicted"), strict=True):
        axes.set_ylabel(words)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    figure.suptitle(title, fontsize="small")
    return figure


def _scatter(found: Sequence[Score], mark: str) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for axes, (region, title) in zip(figure.subplots(1, 2), VOLUMES.items(), strict=True):
        _volumes(axes, found, region)
        axes.set(title=title, xlabel="true, ml", ylabel="predicted, ml")
    figure.suptitle(mark, fontsize="small")
    return figure


def _volumes(axes: Axes, found: Sequence[Score], region: str) -> None:
    top = 1.0
    for severity, colour in COLOURS.items():
        members = [score.model for score in found if score.patient.severity == severity]
        true, predicted = ([one[f"{side}_{region}_ml"] for one in members] for side in ("true", "predicted"))
        axes.scatter(true, predicted, s=12, color=colour, label=f"{severity} (n = {len(members)})")
        top = max([top, *true, *predicted])
    axes.plot([0, top], [0, top], color="grey", linestyle="--", linewidth=1)
    axes.legend(fontsize="small")
