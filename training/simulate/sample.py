"""The demo's patient: one severe left M1 stroke, hours old, on a small tilted head CT, as `dicomnode` carries it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.simulate import lesions
from training.simulate.dicom_out import compress, ncct
from training.simulate.geometry import Grid, even
from training.simulate.params import split_of
from training.simulate.patient import Patient, make
from training.simulate.vendors import VENDORS

SEED = 4_004_834  # outside every split: a severe left M1 stroke 15 h old with a dense clot, on a tilted scan
SLICES, STEP, MATRIX, SPACING = 29, 5.0, 256, 0.9
LOWEST = -72.0  # mm, near the foramen magnum


def write(out: Path, seed: int = SEED) -> Path:
    """Remake `out`/ncct/001.dcm.. (JPEG-LS) and `out`/truth.json; the README beside them is written by people."""
    if (split := split_of(seed)) != "demo":
        raise ValueError(f"seed {seed} belongs to the {split} patients; choose one from 4000000")
    patient = make(seed, severity="severe")
    folder = out / "ncct"
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(even(SLICES, STEP, LOWEST), MATRIX, MATRIX, SPACING, STEP, patient.params.pose.tilt)
    for number, ds in enumerate(ncct(patient, grid, VENDORS["plain"]), start=1):
        compress(ds).save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    (out / "truth.json").write_text(json.dumps(truth(patient), indent=2) + "\n", encoding="utf-8")
    return out


def truth(patient: Patient) -> dict[str, Any]:
    """What the simulator put in; centroid in LPS mm, volumes in ml."""
    stroke, grid = patient.params.stroke, patient.latent.grid
    assert stroke is not None
    infarct = (lesions.infarct(patient.latent.flow, stroke.onset) * patient.latent.brain).numpy()
    places = grid.lps(*grid.pixels(), np.array(grid.heights)).numpy()
    centroid = (places * infarct[..., None]).sum(axis=(0, 1, 2)) / infarct.sum()
    return {
        "seed": patient.params.seed,
        "side": stroke.side,
        "vessel": stroke.vessel,
        "onset_h": round(stroke.onset, 1),
        "lesion_centroid_lps_mm": [round(float(v), 1) for v in centroid],
        "infarct_ml": round(float(infarct.sum()) * grid.voxel_ml, 1),
        "tmax_over_6_s_ml": round(patient.volumes.hypoperfused, 1),
        "core_ml": round(patient.volumes.core, 1),
    }
