"""Perfusion maps of a prepared head, on the grid of its source slices."""

import numpy as np

from inference import preprocess, smoothing
from inference.engine import Engine
from inference.maps import PerfusionMap
from inference.preprocess import Prepared
from inference.volume import Volume
from inference.weights import Manifest


def predict(volume: Volume, prepared: Prepared, engine: Engine, batch: int = 8) -> tuple[PerfusionMap, ...]:
    """One map for each kind of the engine, in its order; 0 outside the brain.

    batch: slices at a time; the values depend on it by no more than rounding. Slices without brain are not computed.
    """
    learnt_KSYX = _generate(prepared, engine, batch)
    values_KSYX = in_units(learnt_KSYX, prepared.mask, prepared.grid.heights, engine.manifest)
    on_source = preprocess.to_source(values_KSYX, prepared, volume)
    kinds = engine.manifest.map_kinds
    return tuple(PerfusionMap(kind, values) for kind, values in zip(kinds, on_source, strict=True))


def in_units(learnt_KSYX: np.ndarray, mask_SYX: np.ndarray, heights_S: np.ndarray, manifest: Manifest) -> np.ndarray:
    """What the generator made of all slices of a head, (K, S, Y, X) in [-1, 1], as float32 maps in their units.

    Smoothed across slices as far as the weights say; 0 outside the brain. heights_S: mm along the normal.
    """
    values_KSYX = np.empty_like(learnt_KSYX)
    for k, kind in enumerate(manifest.map_kinds):
        values_KSYX[k] = np.where(mask_SYX, kind.denormalise(learnt_KSYX[k]), 0.0)
        if how := manifest.smoothing.get(kind.name):
            values_KSYX[k] = smoothing.across_slices(values_KSYX[k], mask_SYX, heights_S, how)
    return values_KSYX


def _generate(prepared: Prepared, engine: Engine, batch: int) -> np.ndarray:
    """(K, slices, 256, 256) in [-1, 1]; -1, which stands for 0 in every unit, in slices without brain."""
    slices, _, rows, columns = prepared.planes.shape
    learnt_KSYX = np.full((len(engine.manifest.kinds), slices, rows, columns), -1.0, np.float32)
    with_brain = np.flatnonzero(prepared.mask.any(axis=(1, 2)))
    for start in range(0, len(with_brain), batch):
        chosen = with_brain[start : start + batch]
        learnt_KSYX[:, chosen] = engine.run(prepared.planes[chosen]).swapaxes(0, 1)
    return learnt_KSYX
