"""CT perfusion: the non-contrast head at 80 kVp, and the bolus passing through tissue, arteries and veins."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.simulate import kinetics, scanner
from training.simulate.anatomy import OCCLUSIONS, SEGMENTS, SIGN
from training.simulate.fields import Owner
from training.simulate.geometry import Grid, head_box
from training.simulate.params import Stroke
from training.simulate.patient import Patient
from training.simulate.render import HEAD_MARGIN, ncct
from training.simulate.solution import BRAIN, transit_time

NATIVE = ("brain", "cbf", "cbv", "delay", "dispersion")  # of the latent patient, that curves are made from
CLOTTED, LATE = 0.15, 0.45  # of normal enhancement in an occluded artery and beyond it
EARLY = 0.8  # s: arteries enhance before the tissue they feed
VENOUS_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a perfusion scan is made: frames every `interval` s, noise in HU per voxel of 5 mm, head motion in mm."""

    frames: int = 45
    interval: float = 1.5
    noise: float = 6.0
    motion: float = 0.0

    @property
    def times(self) -> np.ndarray:
        """(frames,) s from the first frame."""
        return np.arange(self.frames) * self.interval


REFERENCE = Protocol()


@dataclass(frozen=True, slots=True)
class Enhancing:
    """The voxels that enhance, as flat lists, and where they lie.

    where: (slices, rows, columns) bool of the box. amplitude: HU per unit of the bank. mtt, dispersion: indices into
    the bank, the former fractional. delay in s. artery, vein: fractions times their share of full enhancement.
    """

    where: Tensor
    amplitude: Tensor
    mtt: Tensor
    dispersion: Tensor
    delay: Tensor
    artery: Tensor
    vein: Tensor


def ctp(patient: Patient, grid: Grid, protocol: Protocol = REFERENCE, scan: int = 0) -> np.ndarray:
    """(frames, slices, rows, columns) int16 HU."""
    return np.stack(list(frames(patient, grid, protocol, scan)))


def frames(patient: Patient, grid: Grid, protocol: Protocol, scan: int = 0) -> Iterator[np.ndarray]:
    """One (slices, rows, columns) int16 after the other."""
    cropped = head_box(patient.deformation, grid, HEAD_MARGIN)
    baseline = ncct(patient, grid, noise=False)
    voxels = _enhancing(patient, cropped)
    bank = kinetics.bank(patient.params.bolus, patient.params.blood.residue)
    kernel = scanner.kernel_of(patient.params, "soft")
    noise = patient.streams.generator("ctp noise", Owner.APPEARANCE, repeat=scan)
    shifts = _motion(patient.streams.generator("ctp motion", Owner.APPEARANCE, repeat=scan), protocol)
    for time, (rows, columns) in zip(protocol.times, shifts / grid.spacing, strict=True):
        enhancement = torch.zeros(voxels.where.shape)
        enhancement[voxels.where] = _at(float(time), voxels, bank)
        hu = baseline + grid.whole(enhancement, 0.0)
        if protocol.motion:
            hu = scanner.shifted(hu, rows, columns)
        hu = hu + scanner.noise(noise, hu, grid, protocol.noise, kernel)
        yield np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _motion(random: np.random.Generator, protocol: Protocol) -> np.ndarray:
    """(frames, 2) mm: a slow drift and one jump, at most about `motion`."""
    drift = np.cumsum(random.normal(0, 1, (protocol.frames, 2)), axis=0) / np.sqrt(protocol.frames)
    jump = (np.arange(protocol.frames) > random.integers(protocol.frames))[:, None] * random.normal(0, 1, 2)
    shifts: np.ndarray = protocol.motion * 0.5 * (drift + jump)
    return shifts


def _enhancing(patient: Patient, grid: Grid) -> Enhancing:
    brain, cbf, cbv, delay, dispersion = patient.at(NATIVE, grid, planes=False)
    vessels = [_vessels(patient, slab) for _, slab in grid.slabs()]
    artery, vein = (torch.cat(parts) for parts in zip(*vessels, strict=True))
    where = (brain > BRAIN) | (artery > 0.02) | (vein > 0.02)
    bank_places = kinetics.places(transit_time(cbf, cbv)[where].numpy(), dispersion[where].numpy())
    mtt, spread = (torch.from_numpy(place.astype(np.float32)) for place in bank_places)
    artery, vein = artery[where].clamp(0, 1), vein[where].clamp(0, 1)
    tissue = (1.0 - artery - vein).clamp(min=0.0) * (brain[where] > BRAIN)
    amplitude = kinetics.DENSITY / kinetics.HAEMATOCRIT_FACTOR * cbf[where] / 6000.0 * tissue
    return Enhancing(where, amplitude, mtt, spread.round().long(), delay[where], artery, vein)


def _vessels(patient: Patient, grid: Grid) -> tuple[Tensor, Tensor]:
    """Fractions of arterial and venous blood of each voxel, arteries times what an occlusion lets through."""
    tissue = patient.tissue_at(patient.deformation.points(grid))
    artery = tissue.artery * _through(tissue.segment, patient.params.stroke)
    return grid.mean_of_planes(artery), grid.mean_of_planes(tissue.vein * tissue.inside)


def _through(segment: Tensor, stroke: Stroke | None) -> Tensor:
    passing = torch.ones_like(segment)
    if stroke is None or stroke.ratio == 0.0:
        return passing
    occlusion = OCCLUSIONS[stroke.vessel]
    names, left = list(SEGMENTS), 0 if SIGN[stroke.side] > 0 else len(SEGMENTS)
    for share, segments in ((LATE, occlusion.beyond), (CLOTTED, occlusion.clot)):
        for name in segments:
            passing = torch.where(segment == names.index(name) + left, share, passing)
    return passing


def _at(time: float, voxels: Enhancing, bank: kinetics.Bank) -> Tensor:
    """(voxels,) HU of enhancement at a time in s."""
    curves = torch.from_numpy(bank.curves.astype(np.float32))
    knots, spreads, steps = curves.shape
    place = ((time - voxels.delay) / kinetics.STEP).clamp(0, steps - 2)
    low = voxels.mtt.long().clamp(max=knots - 2)
    first = (low * spreads + voxels.dispersion) * steps + place.long()
    over_mtt, over_time, flat = voxels.mtt - low, place - place.long(), curves.reshape(-1)

    def between(index: Tensor) -> Tensor:
        return torch.lerp(flat[index], flat[index + 1], over_time)

    tissue = voxels.amplitude * torch.lerp(between(first), between(first + spreads * steps), over_mtt)
    arterial = torch.from_numpy(bank.aif.astype(np.float32))
    early = ((time - (voxels.delay - EARLY).clamp(0, 12)) / kinetics.STEP).clamp(0, steps - 1).long()
    venous = float(np.interp(time, kinetics.times(), bank.venous)) * VENOUS_SHARE
    return tissue + voxels.artery * arterial[early] + voxels.vein * venous
