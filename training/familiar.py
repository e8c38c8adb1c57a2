"""What training heads look like to the encoder of some weights, measured on virtual patients made for the purpose."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track

from inference import familiar, preprocess, weights
from inference.engine import Engine, load_engine
from inference.familiar import Familiar
from training.prepare import as_volume
from training.simulate import render
from training.simulate.cohort import Order, as_hu, head_grid
from training.simulate.params import SPLITS
from training.simulate.patient import make

ORDER = Order()  # as the training cohorts were simulated


def add(folder: Path, trained: int, held_out: int) -> Familiar:
    """Fit on so many patients of the seeds of training and so many of validation; write it beside the weights."""
    engine = load_engine(*weights.load(folder), threads=1)
    seeds = {split: range(SPLITS[split].start, SPLITS[split].start + n) for split, n in _counts(trained, held_out)}
    found = {split: np.stack(list(_features(engine, each, split))) for split, each in seeds.items()}
    return keep(folder, familiar.fit(found["train"], found["validation"]))


def keep(folder: Path, found: Familiar) -> Familiar:
    """Write it, and name it in the manifest; the tensors stay as they are."""
    weights.write_manifest(folder, replace(weights.read(folder), familiar=familiar.save(folder, found)))
    return found


def describe(seed: int, engine: Engine) -> np.ndarray:
    """(features,) of a virtual patient; its CT is rounded to whole HU, as a scanner stores it."""
    patient = make(seed, ORDER.mix, ORDER.severity)
    grid = head_grid(patient, ORDER.matrix, ORDER.step)
    (hu,) = render.nccts(patient, grid, [render.SIGNAL[ORDER.signal]], scan=0)
    return familiar.describe(preprocess.prepare(as_volume(as_hu(hu).astype(np.float32), grid)), engine)


def _counts(trained: int, held_out: int) -> tuple[tuple[str, int], ...]:
    return ("train", trained), ("validation", held_out)


def _features(engine: Engine, seeds: range, split: str) -> Iterator[np.ndarray]:
    return (describe(seed, engine) for seed in track(seeds, f"heads of {split}"))
