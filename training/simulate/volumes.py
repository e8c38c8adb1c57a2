"""Lesion volumes of the canonical maps, and the class they make: by inference.regions, as everywhere else."""

from dataclasses import dataclass

import numpy as np

from inference import regions
from inference.regions import Severity
from training.simulate.solution import BRAIN, Latent

DEEP = 10.0  # s


@dataclass(frozen=True, slots=True)
class Volumes:
    """ml of Tmax > 6 s, of core and of Tmax > 10 s, and the class of paper 001 that they make."""

    hypoperfused: float
    core: float
    deep: float
    severity: Severity


def measure(latent: Latent) -> Volumes:
    """design.md contract 13 on the canonical maps."""
    brain = (latent.brain > BRAIN).numpy()
    tmax, cbf, voxel_ml = latent.tmax.numpy(), latent.console_cbf.numpy(), latent.grid.voxel_ml
    left = latent.grid.lps(*latent.grid.pixels(), np.array(latent.grid.heights))[..., 0].numpy() > 0
    found = regions.find(cbf, tmax, brain, left, voxel_ml)
    deep = regions.volume(found.hypoperfused & (tmax > DEEP), voxel_ml)
    return Volumes(found.hypoperfused_ml, found.core_ml, deep, found.severity)
