"""Perfusion maps of a prepared head, on the grid of its source slices."""

from dataclasses import dataclass

import numpy as np

from inference import preprocess
from inference.engine import Engine
from inference.maps import PerfusionMap
from inference.preprocess import Prepared
from inference.units import in_units
from inference.volume import Volume
from inference.weights import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """What the generator made of a head.

    learnt: (K, slices, 256, 256) in [-1, 1]; -1, which stands for 0 in every unit, in slices without brain.
    perfusion: (K, n) float16 in [-1, 1], the brain's voxels before the PILO layer mixed them with the CT (the order is
        that of numpy's boolean index by the mask).
    """

    learnt: np.ndarray
    perfusion: np.ndarray


def predict(volume: Volume, prepared: Prepared, engine: Engine, batch: int = 8) -> tuple[PerfusionMap, ...]:
    """One map for each kind of the engine, in its order; 0 outside the brain.

    batch: slices at a time; the values depend on it by no more than rounding. Slices without brain are not computed.
    """
    return on_source(generate(prepared, engine, batch).learnt, volume, prepared, engine.manifest)


def on_source(
    learnt_KSYX: np.ndarray, volume: Volume, prepared: Prepared, manifest: Manifest
) -> tuple[PerfusionMap, ...]:
    """The maps in their units and on the source grid of what the generator made of the prepared head."""
    values_KSYX = in_units(learnt_KSYX, prepared.mask, prepared.grid.heights, manifest)
    return preprocess.maps_on_source(values_KSYX, prepared, volume, manifest.map_kinds)


def generate(prepared: Prepared, engine: Engine, batch: int = 8) -> Generated:
    """Run the generator over all slices with brain."""
    slices, _, rows, columns = prepared.planes.shape
    kinds = len(engine.manifest.kinds)
    learnt_KSYX = np.full((kinds, slices, rows, columns), -1.0, np.float32)
    parts = [np.empty((kinds, 0), np.float16)]
    with_brain = np.flatnonzero(prepared.mask.any(axis=(1, 2)))
    for start in range(0, len(with_brain), batch):
        chosen = with_brain[start : start + batch]
        planes = prepared.planes[chosen]
        perfusion_BKYX = engine.perfusion(planes)
        learnt_KSYX[:, chosen] = engine.blend(perfusion_BKYX, planes).swapaxes(0, 1)
        parts.append(perfusion_BKYX.swapaxes(0, 1)[:, prepared.mask[chosen]].astype(np.float16))
    return Generated(learnt_KSYX, np.concatenate(parts, axis=1))
