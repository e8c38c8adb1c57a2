"""What is measured of one patient: each figure has a name, and is nan where the patient cannot have it.

Figures named "KIND ..." are of one map, in the unit of the kind unless they are shares or dB. All others are of the
patient. Both maps are clipped to the range of their kind first, which is all that a generator can show; the regions of
the truth are found before that.
Dimensions: S slices, K map kinds, Y X space, V voxels of the brain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference import regions
from inference.maps import KINDS, central_volume
from inference.preprocess import SPACING
from inference.regions import HYPOPERFUSED, Regions
from training.data import Arrays, CohortError, Patient, read_arrays
from training.metrics import WINDOWED, box, compare, dice, lesions, mae

Figures = dict[str, float]
LEVELLED = ("MTT", "TTP")  # their offset comes from injection and heart, and is not in the image
NEEDED = ("CBF", "Tmax")  # without which there are no regions
MARGIN = 8  # pixels about the brain, wider than any window of a metric
LARGE, COMPLETE = 50.0, 0.6  # ml that the manifest states, and the share of it that all slices hold at the least
NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The truth about one patient on the model grid.

    true: (S, K, Y, X) float32, clipped to the range of each kind; left: the patient's left half; voxel_ml: of a voxel.
    regions: of the truth, design.md contract 13.
    """

    kinds: tuple[str, ...]
    arrays: Arrays
    true: np.ndarray
    left: np.ndarray
    voxel_ml: float
    regions: Regions

    @property
    def mask(self) -> np.ndarray:
        """(S, Y, X) bool, the brain."""
        return self.arrays.mask

    def of(self, kind: str, maps_SKYX: np.ndarray) -> np.ndarray:
        """(S, Y, X) the map of one kind."""
        values: np.ndarray = maps_SKYX[:, self.kinds.index(kind)]
        return values

    def find(self, maps_SKYX: np.ndarray, threshold: float = HYPOPERFUSED) -> Regions:
        """The regions of some maps of this brain; Tmax above `threshold` s counts as hypoperfused.

        `regions.find` knows 6 s alone, so the map is scaled to it.
        """
        tmax = self.of("Tmax", maps_SKYX) * np.float32(HYPOPERFUSED / threshold)
        return regions.find(self.of("CBF", maps_SKYX), tmax, self.mask, self.left, self.voxel_ml)


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Everything measured of one patient.

    model: figures of the weights; baselines: name -> figures of a trivial prediction.
    """

    patient: Patient
    model: Figures
    baselines: dict[str, Figures]


def open_case(patient: Patient, kinds: Sequence[str]) -> Case:
    """Read a patient and find the regions of the truth."""
    arrays = read_arrays(patient, kinds)
    if not arrays.mask.any():
        raise CohortError(f"patient {patient.patient_id} has no brain in {patient.path}; prepare the patient again")
    true = arrays.maps.astype(np.float32)
    ceilings = np.array([KINDS[kind].ceiling for kind in kinds], np.float32)
    left, voxel_ml = regions.left_half(arrays.mask), SPACING**2 * patient.slice_mm / 1000
    cbf, tmax = (true[:, list(kinds).index(kind)] for kind in NEEDED)
    found = regions.find(cbf, tmax, arrays.mask, left, voxel_ml)
    _check_volume(patient, found.hypoperfused_ml)
    return Case(tuple(kinds), arrays, np.clip(true, 0.0, ceilings[:, None, None]), left, voxel_ml, found)


def _check_volume(patient: Patient, measured_ml: float) -> None:
    """Raise where slices were left out: volumes would be too small and clusters cut."""
    stated_ml = patient.facts.get("hypoperfused_ml") or 0.0
    if stated_ml > LARGE and measured_ml < COMPLETE * stated_ml:
        raise CohortError(
            f"patient {patient.patient_id} has {measured_ml:.0f} ml of Tmax > 6 s on its slices, and the manifest says "
            f"{stated_ml:.0f} ml; prepare the cohort with --slices 0, which keeps them all"
        )


def everything(case: Case, predicted_SKYX: np.ndarray, threshold: float) -> Figures:
    """All figures of a prediction."""
    by_area = {
        f"{kind} {name}": value
        for kind in case.kinds
        for name, value in compare(
            case.of(kind, case.true), case.of(kind, predicted_SKYX), case.mask, KINDS[kind]
        ).items()
    }
    residual = physiology(case, predicted_SKYX)
    return by_area | errors(case, predicted_SKYX) | findings(case, predicted_SKYX, threshold) | residual


def of_baseline(case: Case, predicted_SKYX: np.ndarray, threshold: float, *, unitless: bool) -> Figures:
    """What a trivial prediction is compared in; one without a unit in likeness alone."""
    likeness = dict(similarity(case, predicted_SKYX))
    if unitless:
        return likeness
    return likeness | errors(case, predicted_SKYX) | findings(case, predicted_SKYX, threshold)


def similarity(case: Case, predicted_SKYX: np.ndarray) -> Iterator[tuple[str, float]]:
    """SSIM and UQI over the brain, equal to those of `metrics.compare`, from the box around all of it alone."""
    rows, columns = (slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in box(np.any(case.mask, axis=0)))
    mask = case.mask[:, rows, columns]
    for kind in case.kinds:
        true, predicted = (
            case.of(kind, maps)[:, rows, columns].astype(np.float64) for maps in (case.true, predicted_SKYX)
        )
        for name, metric in WINDOWED.items():
            pairs = zip(true, predicted, strict=True)
            local = np.stack([metric.local(t, p, KINDS[kind].ceiling) for t, p in pairs])
            yield f"{kind} {name}_mask", float(local[mask].mean())


def errors(case: Case, predicted_SKYX: np.ndarray) -> Figures:
    """Mean absolute errors over the brain, its lesion (true Tmax > 6 s) and the rest of it.

    "levelled": after the median of the patient's brain was taken from the true and from the predicted map.
    """
    lesion_V = case.regions.hypoperfused[case.mask]
    found: Figures = {}
    for kind in case.kinds:
        true_V, predicted_V = (case.of(kind, maps)[case.mask] for maps in (case.true, predicted_SKYX))
        found |= {f"{kind} mae_mask": mae(true_V, predicted_V, KINDS[kind].ceiling)}
        found |= _halves(kind, np.abs(predicted_V - true_V), lesion_V)
        if kind in LEVELLED:
            levelled_V = (predicted_V - np.median(predicted_V)) - (true_V - np.median(true_V))
            found |= _halves(f"{kind} levelled", np.abs(levelled_V), lesion_V)
    return found


def _halves(name: str, error_V: np.ndarray, lesion_V: np.ndarray) -> Figures:
    parts = {"mae_lesion": error_V[lesion_V], "mae_rest": error_V[~lesion_V]}
    return {f"{name} {part}": float(error.mean()) if error.size else NAN for part, error in parts.items()}


def findings(case: Case, predicted_SKYX: np.ndarray, threshold: float) -> Figures:
    """What the regions of a prediction are worth, in the words of `metrics.lesions`, and

    side_right_of_found: as side_right, nan where no side was found.
    dice_mirrored: Dice of the hypoperfused tissue after the prediction was mirrored, the floor for what knows no side.
    true_ and predicted_: volumes in ml, and sides as 1 for left and -1 for right.
    """
    true, found = case.regions, case.find(predicted_SKYX, threshold)
    figures = lesions(true, found, case.left, case.voxel_ml)
    sides = {"true_side": _side(case, true), "predicted_side": _side(case, found)}
    return {
        **figures,
        "side_right_of_found": NAN if np.isnan(sides["predicted_side"]) else figures["side_right"],
        "dice_mirrored": dice(true.hypoperfused, mirrored(found.hypoperfused, case.mask)),
        "true_core_ml": true.core_ml,
        "true_hypoperfused_ml": true.hypoperfused_ml,
        "predicted_core_ml": found.core_ml,
        "predicted_hypoperfused_ml": found.hypoperfused_ml,
        **sides,
    }


def _side(case: Case, found: Regions) -> float:
    numbers: dict[str | None, float] = {"left": 1.0, "right": -1.0, None: NAN}
    return numbers[regions.side(found.hypoperfused, case.left, case.voxel_ml)]


def mirrored(region: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A region in the other half, about the middle of the box around the brain; (S, Y, X)."""
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    shift = int(columns[0] + columns[-1]) - (mask.shape[2] - 1)
    swapped: np.ndarray = np.roll(region[:, :, ::-1], shift, axis=2)
    return swapped


def physiology(case: Case, predicted_SKYX: np.ndarray) -> Figures:
    """Mean |CBF * MTT / 60 - CBV| over the brain, ml/100 g, of the prediction and of the truth as far as ranges go."""
    if not {"CBF", "CBV", "MTT"} <= set(case.kinds):
        return {}
    return {"residual": _residual(case, predicted_SKYX), "residual_true": _residual(case, case.true)}


def _residual(case: Case, maps_SKYX: np.ndarray) -> float:
    cbf, cbv, mtt = (case.of(kind, maps_SKYX)[case.mask] for kind in ("CBF", "CBV", "MTT"))
    return float(np.abs(central_volume(cbf, mtt) - cbv).mean())


def as_line(score: Score) -> dict[str, Any]:
    """A patient for JSON, with the facts that strata are made of."""
    patient = score.patient
    known = {"patient_id": patient.patient_id, "seed": patient.seed, "class": patient.severity, **patient.facts}
    return {**known, "model": score.model, "baselines": score.baselines}
