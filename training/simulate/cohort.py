"""Many virtual patients on disk: one compressed file each, and a manifest with a line for every patient.

A patient's file holds the NCCT in HU and the operational maps on the patient's slices; `prepare` of the training
reads them as it reads a real cohort, masks, slice choice and all.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from training.simulate import atlas, render
from training.simulate.geometry import Grid, even
from training.simulate.params import SPLITS, Mix, Severity, split_of
from training.simulate.patient import Patient, make
from training.simulate.render import SIGNAL, Signal

MANIFEST = "manifest.jsonl"
NCCT, WITHOUT_SIGNS = "NCCT", "NCCT without signs"  # names of arrays in the file of a patient
VERSION = "1"  # of the generator's output; a change of any voxel changes it
MATRICES = (128, 256, 512)
LOWEST, COVERED = -76.0, 160.0  # mm: the first slice lies near the foramen magnum


@dataclass(frozen=True, slots=True)
class Order:
    """What to make. matrix: pixels a side over 230 mm; step: mm between slices and their thickness.

    repeat: 1, 2, ... scans the same patients again, with other noise and other motion, for test against retest.
    """

    mix: Mix = "balanced"
    severity: Severity | None = None
    signal: Signal = "mid"
    matrix: int = 256
    step: float = 4.0
    counterfactual: bool = False
    repeat: int = 0


def head_grid(patient: Patient, matrix: int = 256, step: float = 4.0) -> Grid:
    """The slices of a head CT of a patient: 160 mm from the foramen magnum up, at the patient's gantry tilt."""
    heights = even(round(COVERED / step), step, LOWEST)
    return Grid(heights, matrix, matrix, 230.0 / matrix, step, patient.params.pose.tilt)


def make_cohort(first: int, count: int, order: Order, out: Path, processes: int = 1) -> Path:
    """Write patients first .. first + count - 1; seeds already in the manifest are kept. Returns the manifest."""
    check_seeds(first, count)
    if order.signal not in SIGNAL:
        raise ValueError(f"no signal level is called {order.signal!r}; choose one of: {', '.join(SIGNAL)}")
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / MANIFEST
    present = {line["seed"] for line in read_manifest(out)} if manifest.exists() else set()
    wanted = [seed for seed in range(first, first + count) if seed not in present]
    atlas.load()  # once, before the processes start
    with manifest.open("a", encoding="utf-8") as lines:
        for line in track(_lines(wanted, order, out, processes), "virtual patients", total=len(wanted)):
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    return manifest


def check_seeds(first: int, count: int) -> None:
    """Raise where a range of seeds crosses from one split into another (design.md contract 18)."""
    if count < 1:
        raise ValueError(f"a cohort has at least one patient, not {count}")
    if split_of(first) != split_of(first + count - 1):
        starts = ", ".join(f"{name} from {seeds.start}" for name, seeds in SPLITS.items())
        raise ValueError(f"seeds {first} to {first + count - 1} cross from one split into another ({starts})")


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a cohort's manifest."""
    return [json.loads(line) for line in (folder / MANIFEST).read_text(encoding="utf-8").splitlines()]


def _lines(seeds: list[int], order: Order, out: Path, processes: int) -> Iterable[dict[str, Any]]:
    if processes < 2:
        return (one(seed, order, out) for seed in seeds)
    return _in_processes(seeds, order, out, processes)


def _in_processes(seeds: list[int], order: Order, out: Path, processes: int) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(one, seeds, [order] * len(seeds), [out] * len(seeds))


def one(seed: int, order: Order, out: Path) -> dict[str, Any]:
    """Make one patient, write it, and return its line of the manifest."""
    patient = make(seed, order.mix, order.severity)
    grid = head_grid(patient, order.matrix, order.step)
    arrays = {name: values.astype(np.float16) for name, values in patient.truth(grid).items()}
    signs = {NCCT: SIGNAL[order.signal]}
    if order.counterfactual and patient.params.stroke:
        signs[WITHOUT_SIGNS] = render.COUNTERFACTUAL
    heads = render.nccts(patient, grid, list(signs.values()), scan=order.repeat)
    arrays |= {name: as_hu(hu) for name, hu in zip(signs, heads, strict=True)}
    name = f"{seed:08d}.npz"
    np.savez_compressed(out / name, **arrays)  # type: ignore[arg-type]  # numpy declares **kwds as bool
    return describe(patient, grid, order, name)


def as_hu(hu: np.ndarray) -> np.ndarray:
    """Whole HU, as a scanner stores them."""
    stored: np.ndarray = np.rint(hu).astype(np.int16)
    return stored


def describe(patient: Patient, grid: Grid, order: Order, name: str) -> dict[str, Any]:
    """One line of the manifest; a first scan says nothing of repeats."""
    again = {"repeat": order.repeat} if order.repeat else {}
    return again | {
        "seed": patient.params.seed,
        "file": name,
        "split": split_of(patient.params.seed),
        "severity": patient.params.severity,
        "kind": patient.params.kind,
        "hypoperfused_ml": round(patient.volumes.hypoperfused, 2),
        "core_ml": round(patient.volumes.core, 2),
        "signal": order.signal,
        "grid": {
            "heights": grid.heights,
            "matrix": grid.rows,
            "spacing": grid.spacing,
            "thickness": grid.thickness,
            "tilt": grid.tilt,
        },
        "generator": VERSION,
        "atlas": atlas.digest(),
        "params": json.loads(patient.params.to_json()),
    }
