"""Tiny cohorts on disk, as training.data describes them: a striped brain, and a lesion where the class has one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.maps import KINDS, central_volume

SIDE = 256
CLASSES = ("none", "mild", "severe")


def write(folder: Path, seeds: Sequence[int], slices: int = 2, split: str = "train", kinds=tuple(KINDS)) -> Path:
    """A cohort with a patient for each seed; classes take turns, the lesion lies on the patient's left."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        for seed in seeds:
            severity = CLASSES[seed % 3]
            np.savez_compressed(folder / f"{seed}.npz", **arrays(seed, slices, severity, kinds))
            manifest.write(json.dumps(line(seed, split, severity)) + "\n")
    return folder


def line(seed: int, split: str = "train", severity: str = "none") -> dict:
    return {
        "patient_id": f"VSIM-{seed}",
        "seed": seed,
        "split": split,
        "class": severity,
        "file": f"{seed}.npz",
        "slice_mm": 8.0,
        "vessel": "M1",
    }


def arrays(seed: int, slices: int, severity: str, kinds=tuple(KINDS)) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    brain = ((rows - 128) / 90.0) ** 2 + ((columns - 128) / 70.0) ** 2 < 1
    lesion = brain & (columns > 150) & (severity != "none")
    stripes = 1.0 + 0.3 * np.sin(rows / 9.0 + seed)
    values = {
        "CBF": np.where(lesion, 8.0, 40.0) * stripes,
        "MTT": np.where(lesion, 9.0, 4.0) * np.ones_like(stripes),
        "TTP": np.where(lesion, 18.0, 10.0) * np.ones_like(stripes),
        "Tmax": np.where(lesion, 9.0, 2.0) * np.ones_like(stripes),
    }
    values["CBV"] = central_volume(values["CBF"], values["MTT"])
    planes = np.where(brain, 0.2 * stripes - 0.3 * lesion, -1.0)
    noisy = np.where(brain, planes + random.normal(0, 0.05, (slices, 3, SIDE, SIDE)), -1.0)
    maps = np.stack([np.where(brain, values[kind], 0.0) for kind in kinds])
    return {
        "planes": noisy.clip(-1, 1).astype(np.float16),
        "maps": np.repeat(maps[None], slices, axis=0).astype(np.float16),
        "mask": np.repeat(brain[None], slices, axis=0),
        "kinds": np.array(kinds),
    }
