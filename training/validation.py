"""How good a generator is on the validation patients: figures for the curves, and the score that chooses the weights.

Patients count alike, whatever their number of slices. The score is the error as a fraction of each map's ceiling, half
of it over the lesion (true Tmax > 6 s) and half over the rest of the brain, as in the acceptance of the weights.
Dimensions: S slices, K map kinds, Y X space.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from inference.maps import KINDS
from inference.regions import HYPOPERFUSED
from training.curves import Row
from training.data import Slices


def validate(generator: nn.Module, slices: Slices, device: torch.device, batch: int = 8) -> Row:
    """score and mae_<kind> in the kind's unit over the brain: the mean over patients. Dropout is off meanwhile."""
    generator.eval()
    rows = [_of_patient(generator, slices, which, device, batch) for which in range(len(slices.patients))]
    generator.train()
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _of_patient(generator: nn.Module, slices: Slices, which: int, device: torch.device, batch: int) -> Row:
    samples = [slices[index] for index in range(slices.first(which), slices.ends[which])]
    planes = torch.stack([sample.planes for sample in samples])
    with torch.inference_mode():
        made_SKYX = torch.cat([generator(part.to(device)).cpu() for part in torch.split(planes, batch)]).numpy()
    true_SKYX = torch.stack([sample.maps for sample in samples]).numpy()
    mask_SYX = torch.cat([sample.mask for sample in samples]).numpy()
    error_KV = (np.abs(made_SKYX - true_SKYX) / 2).swapaxes(0, 1)[:, mask_SYX]  # of the ceiling
    maes = {
        f"mae_{kind}": float(error_V.mean()) * KINDS[kind].ceiling
        for kind, error_V in zip(slices.kinds, error_KV, strict=True)
    }
    return {"score": _score(error_KV, _lesion(true_SKYX, slices.kinds)[mask_SYX]), **maes}


def _lesion(true_SKYX: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """(S, Y, X) bool; nowhere without a map of Tmax."""
    if "Tmax" not in kinds:
        return np.zeros(true_SKYX[:, 0].shape, bool)
    tmax: np.ndarray = KINDS["Tmax"].denormalise(true_SKYX[:, kinds.index("Tmax")]) > HYPOPERFUSED
    return tmax


def _score(error_KV: np.ndarray, lesion_V: np.ndarray) -> float:
    parts = [error_KV[:, where].mean() for where in (lesion_V, ~lesion_V) if where.any()]
    return float(np.mean(parts))
