"""The non-contrast CT of a patient.

HU = tissue by its water and blood, minus what an infarct's water dilutes, plus the blood volume's share, vessels,
clot and calcium. The infarct and the vessels' widening come from the latent patient; no field of the physiology is
read, so the image of a patient without a lesion knows nothing of the flow (tests hold this).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.simulate import head, lesions, scanner
from training.simulate.anatomy import OCCLUSIONS, SEGMENTS, SIGN
from training.simulate.fields import Fields, Owner, Points, smoothstep
from training.simulate.geometry import Grid, head_box
from training.simulate.head import AIR_HU, paint
from training.simulate.kinetics import DENSITY
from training.simulate.params import PatientParams
from training.simulate.patient import Patient
from training.simulate.tissue import Tissue

Signal = Literal["none", "low", "mid", "high"]

GREY_HU, WHITE_HU, FLUID_HU, VENTRICLE_HU = 38.5, 29.5, 8.0, 6.0
DEEP_HU, FALX_HU, HAEMORRHAGE_HU, OEDEMA_HU, OLD_HU, LACUNE_HU = 1.0, 48.0, 66.0, -7.0, 10.0, 12.0
WHITE_LESION_HU = -6.5
AGEING_HU = -1.2 / 60.0  # grey matter, per year from 60
CLEFT_HU = 820.0  # bone between the lobes at the base
UPTAKE_HOURS = 10.0  # time scale of net water uptake
HEAD_MARGIN = 34.0  # mm outside the brain's hull that skull, scalp and face can reach


@dataclass(frozen=True, slots=True)
class Signs:
    """Which signs of the acute stroke the NCCT shows.

    water: net water uptake reached late, as a fraction (0 to switch the density loss and swelling off).
    clot: a dense clot, where the patient has one. blood_volume: the density of widened or collapsed vessels.
    """

    water: float = 0.30
    clot: bool = True
    blood_volume: bool = True


SIGNAL: dict[Signal, Signs] = {"none": Signs(0.0), "low": Signs(0.15), "mid": Signs(0.30), "high": Signs(0.45)}
COUNTERFACTUAL = Signs(0.0, clot=False, blood_volume=False)  # the same patient with nothing to see


def ncct(
    patient: Patient,
    grid: Grid,
    signs: Signs = SIGNAL["mid"],
    kernel: str = "soft",
    scan: int = 0,
    noise: bool = True,
) -> np.ndarray:
    """(slices, rows, columns) float32 HU. scan: 0, 1, ... repeats the scan with other noise; noise=False: the mean."""
    return nccts(patient, grid, (signs,), kernel, scan, noise)[0]


def nccts(
    patient: Patient,
    grid: Grid,
    several: Sequence[Signs],
    kernel: str = "soft",
    scan: int = 0,
    noise: bool = True,
) -> list[np.ndarray]:
    """The same scan, noise and all, once for each of several signs; what does not depend on them is made once."""
    cropped = head_box(patient.deformation, grid, HEAD_MARGIN)
    slabs = [_slab(patient, slab, several) for _, slab in cropped.slabs()]
    heads = [torch.cat(parts) for parts in zip(*slabs, strict=True)]
    return [_scanned(patient, grid, cropped, head_SYX, kernel, scan, noise) for head_SYX in heads]


def _scanned(
    patient: Patient, grid: Grid, cropped: Grid, head_SYX: Tensor, kernel: str, scan: int, noise: bool
) -> np.ndarray:
    """What a scanner makes of a head in its box."""
    acquisition, reconstruction = patient.params.acquisition, scanner.kernel_of(patient.params, kernel)
    hu = grid_whole(cropped, scanner.reconstructed(head_SYX, grid.spacing, reconstruction))
    random = patient.streams.generator("ncct noise", Owner.APPEARANCE, repeat=scan)
    hu += scanner.beam_hardening(hu, acquisition.streaks, random if noise else None) * (hu > -300.0)
    if acquisition.motion:
        motion = patient.streams.generator("ncct motion", Owner.APPEARANCE, repeat=scan)
        hu = scanner.moved(hu, motion, acquisition.motion, grid.spacing)
    if acquisition.head_rest:
        hu = scanner.with_head_rest(hu, grid)
    if noise:
        hu += scanner.noise(random, hu, grid, acquisition.noise, reconstruction)
    clipped: np.ndarray = np.clip(hu, -1024.0, 3071.0)
    return clipped


def grid_whole(grid: Grid, cropped: Tensor) -> np.ndarray:
    """The box of a grid in its full slices, air around it."""
    return grid.whole(cropped, AIR_HU)


def _slab(patient: Patient, grid: Grid, several: Sequence[Signs]) -> list[Tensor]:
    """(slices, rows, columns) of the box before the scanner, for each of several signs."""
    params = patient.params
    shape, look = patient.fields(Owner.ANATOMY), patient.fields(Owner.APPEARANCE)
    points = patient.deformation.points(grid)
    tissue = patient.tissue_at(points)
    focal = patient.focal_at(points, tissue)
    flow = patient.at(("flow",), grid)[0] if params.stroke else None
    outside = head.outside(points, tissue, params.build, shape, look)
    cleft = CLEFT_HU + 300.0 * look.at("bone texture", points)[1].clamp(-1.5, 1.5)
    cupping = params.acquisition.cupping * torch.exp(tissue.table.clamp(max=0.0) / 5.0) * (tissue.table < 0)
    planes = []
    for signs in several:
        hu = paint(outside, tissue.inside, _inside(points, tissue, focal, flow, params, signs, look))
        hu = paint(hu, tissue.cleft, cleft) + cupping * tissue.inside
        planes.append(grid.mean_of_planes(hu))
    return planes


def blood_hu(params: PatientParams) -> float:
    """Flowing blood; it rises with the haematocrit."""
    return 44.0 + 90.0 * (params.blood.haematocrit - 0.40)


def _inside(
    points: Points,
    tissue: Tissue,
    focal: lesions.Focal,
    flow: Tensor | None,
    params: PatientParams,
    signs: Signs,
    look: Fields,
) -> Tensor:
    """HU within the inner table."""
    brain = tissue.brain
    grey = GREY_HU + AGEING_HU * (params.age - 60.0)
    hu = grey * tissue.grey + WHITE_HU * tissue.white + DEEP_HU * tissue.deep
    hu = hu + 0.4 * look.at("brain density", points)[0] * brain + 0.8 * _tracts(points, look) * tissue.white
    fluid = tissue.fluid
    if flow is not None and params.stroke:
        hu, fluid = _stroke(hu, fluid, tissue, flow, params, signs, look, points)
    hu = hu + FLUID_HU * fluid + VENTRICLE_HU * tissue.ventricle + WHITE_LESION_HU * focal.white
    hu = paint(hu, focal.old, OLD_HU)
    hu = paint(hu, 0.75 * focal.lacune, LACUNE_HU)
    hu = paint(hu, tissue.falx, FALX_HU)
    hu = paint(hu, focal.haemorrhage, HAEMORRHAGE_HU) + OEDEMA_HU * focal.oedema * brain
    return _calcified(_vessels(hu, points, tissue, params, signs, look), points, params)


def _tracts(points: Points, look: Fields) -> Tensor:
    """White matter is not one grey: bundles fan out, so the texture is drawn along rays from the middle."""
    x, y, z = points.mm.unbind(-1)
    folded = torch.stack([x, y, z * 0.55 + 0.25 * x.abs()], -1)
    return look.at("white matter tracts", Points(folded, points.coarse))[0]


def _stroke(
    hu: Tensor,
    fluid: Tensor,
    tissue: Tissue,
    flow: Tensor,
    params: PatientParams,
    signs: Signs,
    look: Fields,
    points: Points,
) -> tuple[Tensor, Tensor]:
    """Density loss by water, sulci closed by swelling, and the blood volume; returns HU and fluid."""
    assert params.stroke is not None
    if signs.water:
        reached = signs.water * (1.0 - float(np.exp(-params.stroke.onset / UPTAKE_HOURS)))
        uneven = (1.0 + 0.12 * look.at("water uptake", points)[0]).clamp(0.6, 1.4)
        water = lesions.infarct(flow, params.stroke.onset) * reached * uneven
        swollen = fluid * (3.0 * water).clamp(0.0, 0.7)
        hu, fluid = (hu + GREY_HU * swollen) * (1.0 - water), fluid - swollen
    if signs.blood_volume:
        normal = params.blood.grey_cbv * tissue.grey + params.blood.white_cbv * tissue.white
        change = normal * (lesions.volume_behind(flow) - 1.0)
        hu = hu + change / 100.0 * DENSITY * (blood_hu(params) - 34.0)
    return hu, fluid


def _vessels(hu: Tensor, points: Points, tissue: Tissue, params: PatientParams, signs: Signs, look: Fields) -> Tensor:
    """Arteries, a dense clot, sinuses, and the small vessels over the convexity."""
    blood = blood_hu(params)
    winding, which = look.at("cortical vessels", points)
    near_surface = smoothstep(tissue.table, -5.0, -3.5) * (1.0 - smoothstep(tissue.table, -2.2, -1.0))
    cortical = near_surface * torch.exp(-((winding / 0.10) ** 2)) * smoothstep(which, -0.2, 0.5)
    hu = paint(hu, 0.75 * cortical, blood + 4.0)
    inside = torch.full_like(hu, blood)
    stroke = params.stroke
    if stroke and stroke.clot is not None and signs.clot:
        left = 0 if SIGN[stroke.side] > 0 else len(SEGMENTS)
        for name in OCCLUSIONS[stroke.vessel].clot:
            inside = torch.where(tissue.segment == list(SEGMENTS).index(name) + left, stroke.clot, inside)
    hu = paint(hu, tissue.artery, inside)
    return paint(hu, tissue.vein, blood + 3.0)


def _calcified(hu: Tensor, points: Points, params: PatientParams) -> Tensor:
    for ball in params.focal.calcifications:
        distance = (points.mm - torch.tensor(ball.centre)).norm(dim=-1) - ball.radius
        hu = hu + (1.0 - smoothstep(distance, -1.0, 1.2)) * ball.hu
    return hu


def thin(grid: Grid, millimetres: float) -> Grid:
    """The same range in contiguous slices of another thickness, as a second reconstruction gives."""
    first, last = grid.heights[0] - grid.thickness / 2, grid.heights[-1] + grid.thickness / 2
    count = int((last - first) / millimetres)
    heights = tuple(first + millimetres * (number + 0.5) for number in range(count))
    return replace(grid, heights=heights, thickness=millimetres)
