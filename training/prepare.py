"""Virtual patients as they were made, to samples as the generator sees them: product masks, grid and slices.

Reads a folder of `simulate cohort`, writes a cohort of `training.data`. The head goes through inference.volume's
geometry and inference.preprocess exactly as a scanned one does; the maps follow onto the same model grid.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from inference import preprocess
from inference.maps import KINDS
from inference.preprocess import Prepared
from inference.volume import Volume
from training import data
from training.data import CohortError
from training.simulate.cohort import NCCT, read_manifest
from training.simulate.geometry import Grid

ENOUGH = 0.3  # of the largest slice of brain; flatter slices at the ends teach little


@dataclass(frozen=True, slots=True)
class Choice:
    """Which slices of a patient are kept: `slices` of them, evenly over those with enough brain; 0 is all with any."""

    slices: int = 10
    ncct: str = NCCT


def prepare(source: Path, out: Path, choice: Choice, processes: int = 1) -> Path:
    """Prepare every patient of a virtual cohort; those already in the manifest are kept. Returns the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / data.MANIFEST
    present = {patient.patient_id for patient in data.read_cohort(out)} if manifest.exists() else set()
    # A patient without a stroke has no signs to take away, and so no second head.
    wanted = [line for line in read_manifest(source) if choice.ncct == NCCT or line["params"]["stroke"]]
    wanted = [line for line in wanted if patient_id(line) not in present]
    with manifest.open("a", encoding="utf-8") as lines, ProcessPoolExecutor(processes) as pool:
        made = pool.map(one, wanted, [source] * len(wanted), [out] * len(wanted), [choice] * len(wanted))
        for line in track(made, "prepared", total=len(wanted)):
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    return manifest


def one(line: Mapping[str, Any], source: Path, out: Path, choice: Choice) -> dict[str, Any]:
    """Prepare one patient, write it, and return its line of the manifest."""
    grid = scanned_on(line["grid"])
    with np.load(source / line["file"], allow_pickle=False) as stored:
        if choice.ncct not in stored:
            raise CohortError(f"{line['file']} has no {choice.ncct}; simulate the cohort with --counterfactual")
        head = as_volume(stored[choice.ncct].astype(np.float32), grid)
        truth = {name: stored[name].astype(np.float32) for name in KINDS}
    prepared = preprocess.prepare(head)
    kept = chosen(prepared.mask, choice.slices)
    maps = np.stack([on_model_grid(values, head, prepared)[kept] for values in truth.values()], axis=1)
    np.savez_compressed(
        out / line["file"],
        planes=prepared.planes[kept].astype(np.float16),
        maps=maps.astype(np.float16),
        mask=prepared.mask[kept],
        kinds=np.array(list(truth)),
    )
    return {**facts(line), "slice_mm": float(np.diff(prepared.grid.heights).mean())}


def scanned_on(said: Mapping[str, Any]) -> Grid:
    """The slices of a patient, as the manifest of the simulation states them."""
    return Grid(
        heights=tuple(said["heights"]),
        rows=said["matrix"],
        columns=said["matrix"],
        spacing=said["spacing"],
        thickness=said["thickness"],
        tilt=said["tilt"],
    )


def as_volume(hu: np.ndarray, grid: Grid) -> Volume:
    """The slices of a virtual scan as the node reads them; hu: (slices, rows, columns), heights ascending."""
    return Volume(
        hu=hu,
        positions=np.stack([grid.first_voxel(height) for height in grid.heights]),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=grid.column_direction,
        pixel_spacing=(grid.spacing, grid.spacing),
        slice_thickness=grid.thickness,
        order=tuple(range(len(grid.heights))),
    )


def on_model_grid(values: np.ndarray, head: Volume, prepared: Prepared) -> np.ndarray:
    """A map on the source slices to (slices, 256, 256) on the model grid; 0 outside the mask and the field of view."""
    resampled = preprocess.on_grid(replace(head, hu=values), prepared.grid)
    clean: np.ndarray = np.where(prepared.mask & (resampled > 0), resampled, 0.0)
    return clean


def chosen(mask: np.ndarray, slices: int) -> np.ndarray:
    """Indices of `slices` slices, evenly over those with enough brain; all with any brain for 0."""
    area = mask.sum(axis=(1, 2))
    if slices == 0:
        return np.flatnonzero(area)
    full = np.flatnonzero(area >= ENOUGH * area.max())
    places: np.ndarray = np.rint(np.linspace(0, len(full) - 1, min(slices, len(full)))).astype(int)
    picked: np.ndarray = full[places]
    return picked


def patient_id(line: Mapping[str, Any]) -> str:
    """How a virtual patient is called."""
    return f"VSIM-{line['seed']}"


def facts(line: Mapping[str, Any]) -> dict[str, Any]:
    """What training and evaluation want to know of a virtual patient."""
    stroke, focal = line["params"]["stroke"] or {}, line["params"]["focal"]
    return {
        "patient_id": patient_id(line),
        "seed": line["seed"],
        "split": line["split"],
        "class": line["severity"],
        "file": line["file"],
        "kind": line["kind"],
        "vessel": stroke.get("vessel"),
        "side": stroke.get("side"),
        "onset_h": stroke.get("onset"),
        "hypoperfused_ml": line["hypoperfused_ml"],
        "core_ml": line["core_ml"],
        **{name: len(focal[name]) for name in ("lacunes", "old_infarcts", "haemorrhages")},
        "generator": line["generator"],
    }
