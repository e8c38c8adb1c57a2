"""Lesion volumes of the canonical maps, and the class they make, by the rules of design.md contract 13."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.simulate import lesions
from training.simulate.params import Severity
from training.simulate.solution import BRAIN, Latent

SMALLEST_CLUSTER = 1.0  # ml


@dataclass(frozen=True, slots=True)
class Volumes:
    """ml of Tmax > 6 s, of core and of Tmax > 10 s, by the rules of design.md contract 13."""

    hypoperfused: float
    core: float
    deep: float

    @property
    def severity(self) -> Severity:
        """The paper's classes (models.md D13): core over hypoperfused is 0, at most a half, or more."""
        if self.core == 0.0:
            return "none"
        return "mild" if self.core / self.hypoperfused <= 0.5 else "severe"


def measure(latent: Latent) -> Volumes:
    """design.md contract 13 on the canonical maps."""
    brain = (latent.brain > BRAIN).numpy()
    tmax, cbf = latent.tmax.numpy(), latent.console_cbf.numpy()
    late = brain & (tmax > 6.0)
    x = latent.grid.lps(*latent.grid.pixels(), np.array(latent.grid.heights))[..., 0].numpy()
    sound = (x > 0) == (np.count_nonzero(late & (x > 0)) < np.count_nonzero(late & (x <= 0)))
    reference = float(np.median(cbf[brain & sound & (tmax < 4.0)]))
    late = _without_specks(late, latent.grid.voxel_ml)
    core = _without_specks(late & (cbf < lesions.CORE_FLOW * reference), latent.grid.voxel_ml)
    deep = late & (tmax > 10.0)
    late_ml, core_ml, deep_ml = (float(np.count_nonzero(mask)) * latent.grid.voxel_ml for mask in (late, core, deep))
    return Volumes(late_ml, core_ml, deep_ml)


def _without_specks(mask: np.ndarray, voxel_ml: float) -> np.ndarray:
    """The mask without clusters under 1 ml."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml
    sizes[0] = 0.0
    kept: np.ndarray = (sizes >= SMALLEST_CLUSTER)[labels]
    return kept
