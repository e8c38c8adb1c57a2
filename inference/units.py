"""From what a generator learnt to maps in their units."""

import numpy as np

from inference import smoothing
from inference.weights import Manifest


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
