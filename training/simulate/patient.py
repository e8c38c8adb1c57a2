"""The latent patient: solved once on a canonical grid, and looked at from there by every render.

START HERE: `make` draws and solves a patient, `truth` gives its maps on any slices, `render.ncct` its NCCT. The
canonical grid (1.8 x 1.8 x 4 mm, no tilt) is near to what a perfusion console resolves; nothing is solved twice, so
NCCT, CTP and maps of one patient show one lesion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inference.maps import KINDS
from training.simulate import atlas, lesions, tissue
from training.simulate.fields import Fields, Owner, Points, Streams
from training.simulate.geometry import Deformation, Grid, interpolate
from training.simulate.params import Mix, PatientParams, Severity, draw
from training.simulate.solution import BRAIN, Latent, solve
from training.simulate.volumes import Volumes, measure

MOST_ATTEMPTS = 12


@dataclass(frozen=True)
class Patient:
    """One virtual patient. Random fields and the solution are computed when first asked for, then kept."""

    params: PatientParams
    streams: Streams
    _lattices: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def fields(self, owner: Owner) -> Fields:
        """The random fields that one owner may read."""
        return Fields(self.streams, owner, self._lattices)

    @cached_property
    def deformation(self) -> Deformation:
        """From the scanner to the template."""
        return Deformation(self.params, atlas.load(), self.fields(Owner.ANATOMY))

    def tissue_at(self, points: Points) -> tissue.Tissue:
        """What lies at points of the template."""
        return tissue.at(points, atlas.load(), self.params.build, self.fields(Owner.ANATOMY))

    def focal_at(self, points: Points, inside: tissue.Tissue) -> lesions.Focal:
        """Focal lesions at points of the template."""
        return lesions.focal(points, inside, self.params, self.fields(Owner.ANATOMY))

    @cached_property
    def latent(self) -> Latent:
        """The solution on the canonical grid."""
        return solve(self.deformation, self.streams, self.fields(Owner.ANATOMY), self.fields(Owner.PHYSIOLOGY))

    @cached_property
    def volumes(self) -> Volumes:
        """Lesion volumes of the operational maps."""
        return measure(self.latent)

    def at(self, names: tuple[str, ...], grid: Grid, planes: bool = True) -> Tensor:
        """(names, planes or slices, rows, columns): fields of the solution, interpolated."""
        values = torch.stack([getattr(self.latent, name) for name in names])
        return interpolate(values, self.latent.grid, grid, planes)

    def truth(self, grid: Grid, operational: bool = True) -> Mapping[str, np.ndarray]:
        """CBF, CBV, MTT, TTP and Tmax on a grid, (slices, rows, columns) float32 in their units, 0 outside the brain.

        operational: what a noise-free console would print; else what the tissue does (Tmax is then the delay).
        """
        names = ("brain", "console_cbf" if operational else "cbf", "cbv", "ttp", "tmax" if operational else "delay")
        weighted = torch.stack([getattr(self.latent, name) for name in names])
        weighted[3:] *= weighted[0]
        brain, cbf, cbv, ttp, tmax = interpolate(weighted, self.latent.grid, grid, planes=False)
        inside = brain > BRAIN
        share = brain.clamp(min=BRAIN)
        values = (cbf, cbv, 60.0 * cbv / cbf.clamp(min=0.3), ttp / share, tmax / share)
        return {name: grid.whole(value * inside, 0.0) for name, value in zip(KINDS, values, strict=True)}


def make(seed: int, mix: Mix = "test", severity: Severity | None = None) -> Patient:
    """Draw and solve; a patient whose finished maps fall into another class than drawn is drawn again."""
    for attempt in range(MOST_ATTEMPTS):
        params = draw(seed, mix, severity, attempt)
        patient = Patient(params, Streams(seed, attempt))
        if patient.volumes.severity == params.severity:
            return patient
    raise RuntimeError(f"seed {seed} gave no patient of class {params.severity} in {MOST_ATTEMPTS} attempts")
