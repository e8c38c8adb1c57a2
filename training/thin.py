"""Thin slices: a virtual head of 161 slices through the node's own code, and a map for every one of them.

`python -m training thin WEIGHTS OUT` renders one held-out stroke at 1 mm, prepares and predicts it as the node does,
and lays the maps beside the truth and beside what slices 8 mm apart would have shown of that truth. OUT receives
thin.json with all figures, thin.md to read, and pictures/thin.png.
Dimensions: K map kinds, S slices, Y X space; everything lies on the source slices.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from inference import predict, preprocess, quality, regions, weights
from inference.engine import Engine, load_engine
from inference.maps import KINDS
from inference.volume import Volume
from inference.weights import Manifest
from training import reformats, thin_report
from training.metrics import mae
from training.prepare import as_volume, patient_id
from training.simulate import render
from training.simulate.cohort import COVERED, LOWEST, as_hu, head_grid
from training.simulate.geometry import Grid, even
from training.simulate.params import Mix, split_of
from training.simulate.patient import Patient, make
from training.simulate.scanner import REFERENCE_THICKNESS
from training.simulate.solution import CANONICAL

FIGURES, REPORT, PICTURE = "thin.json", "thin.md", "pictures/thin.png"
SEED = 2_000_001  # the first stroke among the balanced test patients: severe, right M1; neither tilted nor moving
MIX: Mix = "balanced"
HELD_OUT = ("test", "external")
THICK = 8.0  # mm between the slices of the CT perfusion that paper 001 sets its maps against (models.md A23)
SHOWN = ("CBF", "Tmax")
WHOLE = 1e-6  # how near to a whole number of slices THICK must come


class ThinError(Exception):
    """The comparison cannot be made as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is looked at. slice_mm: from slice to slice, and their thickness; matrix: pixels a side over 230 mm.

    threads: of the engine, part of the result.
    """

    weights: Path
    out: Path
    seed: int = SEED
    slice_mm: float = 1.0
    matrix: int = 256
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """The maps of one head.

    values: (K, S, Y, X) float32 in the unit of each kind, within its range, 0 outside the brain; brain: (S, Y, X) bool.
    """

    values: np.ndarray
    brain: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One patient, scanned and predicted. kinds: of the maps, in the order of their values.

    true: on every slice; thick: the same sampled every 8 mm and interpolated. lesion: (S, Y, X) bool, true Tmax > 6 s.
    warnings: what the node would print on the maps. seconds: of the processor, by stage.
    """

    kinds: tuple[str, ...]
    patient: Patient
    grid: Grid
    head: Volume
    true: Maps
    thick: Maps
    predicted: Maps
    lesion: np.ndarray
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def compared(self) -> np.ndarray:
        """(S, Y, X) bool: what all three maps call brain."""
        common: np.ndarray = self.predicted.brain & self.true.brain & self.thick.brain
        return common


@dataclass(frozen=True, slots=True)
class Figures:
    """One kind, in its unit, over the voxels that prediction, truth and interpolated truth all call brain.

    flicker, true_flicker: of the prediction and of the truth; ratio: the first over the second, None where that is 0.
    mae, thick_mae: mean absolute error against the truth, of the prediction and of the interpolated truth.
    """

    unit: str
    flicker: float
    true_flicker: float
    ratio: float | None
    mae: float
    thick_mae: float


def thin(request: Request) -> Path:
    """Scan, predict, measure, and write everything into the folder `out`; returns the report.

    Raises ThinError or WeightsError for what cannot be done, Refused where the node would refuse the scan.
    """
    every = _slices_apart(request)
    generator = engine(request)
    return write(request, generator, look(request, generator, every))


def engine(request: Request) -> Engine:
    """The weights, which must make the maps that are drawn."""
    manifest, state = weights.load(request.weights)
    if missing := [kind for kind in SHOWN if kind not in manifest.kinds]:
        raise ThinError(f"the weights {manifest.name} make no {', '.join(missing)}; the picture needs both")
    return load_engine(manifest, state, request.threads)


def look(request: Request, generator: Engine, every: int) -> Case:
    """Make the patient, scan the head, and put it through the node; every: slices from one thick slice to the next."""
    kinds, seconds = generator.manifest.kinds, dict[str, float]()
    with _stage("patient", seconds):
        patient = make(request.seed, MIX)
        grid = slices_of(patient, request.matrix, request.slice_mm)
    with _stage("NCCT", seconds):
        head = as_volume(as_hu(render.ncct(patient, grid)).astype(np.float32), grid)
    with _stage("true maps", seconds):
        true = truth(patient, grid, kinds)
        lesion = _lesion(true, kinds, grid, patient)
    with _stage("maps of the node", seconds):
        predicted, warnings = as_the_node(head, generator)
    thick = interpolated(true, every)
    return Case(kinds, patient, grid, head, true, thick, predicted, lesion, warnings, seconds)


def slices_of(patient: Patient, matrix: int, step: float) -> Grid:
    """The slices of `head_grid` and one more, so that they begin and end with a thick one: 161 of 1 mm."""
    return replace(head_grid(patient, matrix, step), heights=even(round(COVERED / step) + 1, step, LOWEST))


def truth(patient: Patient, grid: Grid, kinds: Sequence[str]) -> Maps:
    """The operational truth, clipped to the range of each kind, which is all that a generator can show."""
    made = patient.truth(grid)
    values = np.stack([np.clip(made[kind], 0.0, KINDS[kind].ceiling) for kind in kinds])
    return Maps(values, values.max(axis=0) > 0)


def as_the_node(head: Volume, generator: Engine) -> tuple[Maps, tuple[str, ...]]:
    """What dicomnode.pipeline does between reading and writing; the maps, and the warnings printed on them."""
    prepared = preprocess.prepare(head)
    warnings = quality.judge(head, prepared)
    maps = predict.predict(head, prepared, generator)
    return Maps(np.stack([each.values for each in maps]), preprocess.source_mask(prepared, head)), warnings


def interpolated(true: Maps, every: int) -> Maps:
    """What thick slices show: each `every`-th slice as it is, those between linearly among brain voxels alone.

    A voxel is brain where at least half of the weight is brain. Beyond the last thick slice it is repeated.
    """
    kept = np.arange(0, len(true.brain), every)
    values, brain = np.zeros_like(true.values), np.zeros_like(true.brain)
    for s in range(len(true.brain)):
        below = min(s // every, len(kept) - 1)
        above = min(below + 1, len(kept) - 1)
        upper = np.float32((s - kept[below]) / every)
        pair = ((kept[below], 1 - upper), (kept[above], upper))
        share = sum(weight * true.brain[index] for index, weight in pair)
        total = sum(weight * true.values[:, index] for index, weight in pair)
        brain[s] = share >= 0.5
        values[:, s] = np.where(brain[s], total / np.maximum(share, 0.5), 0.0)
    return Maps(values, brain)


def flicker(values_SYX: np.ndarray, brain_SYX: np.ndarray) -> float:
    """How far a slice stands out from its neighbours, in the unit of the map; nan without three slices of brain.

    The mean of |m[s-1] - 2 m[s] + m[s+1]| / 2 along the slices, which is the distance of m[s] from the mean of the
    slices below and above, over the voxels that are brain in all three. A map that stays or changes evenly has 0.
    """
    inside = brain_SYX[:-2] & brain_SYX[1:-1] & brain_SYX[2:]
    below, here, above = (values_SYX[part][inside].astype(np.float64) for part in (np.s_[:-2], np.s_[1:-1], np.s_[2:]))
    return float(np.abs(below - 2 * here + above).mean() / 2) if inside.any() else float("nan")


def measure(case: Case, kind: str) -> Figures:
    """Flicker and error of one kind."""
    k, brain, row = case.kinds.index(kind), case.compared, KINDS[kind]
    predicted, true, thick = (maps.values[k] for maps in (case.predicted, case.true, case.thick))
    ours, theirs = flicker(predicted, brain), flicker(true, brain)
    return Figures(
        unit=row.unit,
        flicker=ours,
        true_flicker=theirs,
        ratio=ours / theirs if theirs else None,
        mae=mae(true[brain], predicted[brain], row.ceiling),
        thick_mae=mae(true[brain], thick[brain], row.ceiling),
    )


def write(request: Request, generator: Engine, case: Case) -> Path:
    """Measure every kind, and write figures, picture and report."""
    about = _about(request, generator.manifest, case)
    figures = {"about": about, "maps": {kind: asdict(measure(case, kind)) for kind in case.kinds}}
    _draw(request, case, about)
    (request.out / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (request.out / REPORT).write_text(thin_report.write(figures, PICTURE), encoding="utf-8")
    return request.out / REPORT


def _slices_apart(request: Request) -> int:
    """Slices from one thick slice to the next; raises ThinError for what cannot be compared."""
    if (split := split_of(request.seed)) not in HELD_OUT:
        raise ThinError(f"seed {request.seed} is a {split} patient; choose one that is never trained on, from 2000000")
    every = THICK / request.slice_mm if request.slice_mm > 0 else 0.0
    if every < 2 or abs(every - round(every)) > WHOLE:
        raise ThinError(f"{THICK:g} mm are not two or more slices of {request.slice_mm:g} mm; choose 1, 2 or 4")
    return round(every)


def _lesion(true: Maps, kinds: Sequence[str], grid: Grid, patient: Patient) -> np.ndarray:
    """True Tmax > 6 s, design.md contract 13."""
    cbf, tmax = (true.values[list(kinds).index(kind)] for kind in SHOWN)
    found = regions.find(cbf, tmax, true.brain, regions.left_half(true.brain), grid.voxel_ml).hypoperfused
    if patient.params.stroke is None or not found.any():
        raise ThinError(f"patient {patient.params.seed} has no stroke to look at; choose one who has, such as {SEED}")
    return found


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Show what is being done, and note the processor time it took."""
    started = time.process_time()
    with Console(stderr=True).status(name):
        yield
    seconds[name] = round(time.process_time() - started, 1)


def _about(request: Request, manifest: Manifest, case: Case) -> dict[str, Any]:
    noise = case.patient.params.acquisition.noise
    return {
        "weights": {
            name: getattr(manifest, name) for name in ("name", "version", "width", "training_domain", "sha256")
        },
        "patient": _patient(case),
        "slices_in": len(case.head.hu),
        "slices_out": {kind: len(maps) for kind, maps in zip(case.kinds, case.predicted.values, strict=True)},
        "slices_with_brain": int(case.predicted.brain.any(axis=(1, 2)).sum()),
        "slice_mm": request.slice_mm,
        "thick_mm": THICK,
        "truth_solved_every_mm": CANONICAL.thickness,
        "matrix": request.matrix,
        "noise_hu": round(noise * (REFERENCE_THICKNESS / request.slice_mm) ** 0.5, 1),
        "compared_ml": round(regions.volume(case.compared, case.grid.voxel_ml)),
        "true_brain_ml": round(regions.volume(case.true.brain, case.grid.voxel_ml)),
        "warnings": list(case.warnings),
        "threads": request.threads,
        "cpu_s": dict(case.seconds),
    }


def _patient(case: Case) -> dict[str, Any]:
    params, stroke = case.patient.params, case.patient.params.stroke
    assert stroke is not None  # the lesion comes from it
    return {
        "patient_id": patient_id({"seed": params.seed}),
        "mix": MIX,
        "severity": params.severity,
        "vessel": stroke.vessel,
        "side": stroke.side,
        "onset_h": round(stroke.onset, 1),
        "tilt_degrees": round(params.pose.tilt, 1),
        "hypoperfused_ml": round(case.patient.volumes.hypoperfused, 1),
        "core_ml": round(case.patient.volumes.core, 1),
    }


def _draw(request: Request, case: Case, about: Mapping[str, Any]) -> None:
    columns = {
        "predicted": case.predicted,
        f"truth, {request.slice_mm:g} mm": case.true,
        f"truth, {THICK:g} mm interpolated": case.thick,
    }
    shown = {name: _within_brain(maps, case.kinds) for name, maps in columns.items()}
    title = f"VIRTUAL PATIENT, SIMULATED. {thin_report.patient(about)}\n{thin_report.weights(about)}"
    path = request.out / PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    reformats.sheet(case.head, shown, SHOWN, case.lesion, title).savefig(path, dpi=100)


def _within_brain(maps: Maps, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    return {kind: np.where(maps.brain, maps.values[list(kinds).index(kind)], np.float32("nan")) for kind in SHOWN}
