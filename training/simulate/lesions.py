"""What is ill: focal lesions anywhere, and the flow that an occlusion leaves.

Focal lesions (old infarcts, haemorrhages, lacunes, white matter lesions) are anatomy: functions of the template point,
evaluated wherever they are looked at. The residual flow of a stroke is physiology, solved once on the canonical grid.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from training.simulate.anatomy import OCCLUSIONS, SIGN, STENOSIS, TERRITORIES
from training.simulate.fields import Fields, Owner, Points, Streams, smoothstep
from training.simulate.geometry import Grid
from training.simulate.params import Ball, PatientParams, Stroke
from training.simulate.tissue import Tissue

NAMES = tuple(TERRITORIES)
LENTICULOSTRIATE, PCA = NAMES.index("lenticulostriate"), NAMES.index("PCA")
OTHER_HALF = 25.0  # mm that a territory is farther away across the midline; 5 for the vertebrobasilar one
CORE_FLOW = 0.30  # of normal, below which RAPID-like consoles call it core
LEAST_FLOW, MOST_FLOW = 0.04, 0.97


@dataclass(frozen=True, slots=True)
class Focal:
    """Fractions 0 to 1 of each kind of focal lesion; oedema surrounds a haemorrhage."""

    old: Tensor
    haemorrhage: Tensor
    oedema: Tensor
    lacune: Tensor
    white: Tensor

    def averaged(self, grid: Grid) -> "Focal":
        """Planes averaged to slices."""
        return Focal(**{f.name: grid.mean_of_planes(getattr(self, f.name)) for f in fields(self)})


def focal(points: Points, tissue: Tissue, params: PatientParams, random: Fields) -> Focal:
    """The focal lesions at points of the template; random: the patient's anatomy."""
    ill = params.focal
    balls = (*ill.old_infarcts, *ill.haemorrhages)
    edge = random.at("focal lesion edge", points)[0] if balls else torch.zeros(())
    zero = torch.zeros(points.shape)
    haemorrhage, oedema = zero, zero
    for ball in ill.haemorrhages:
        distance = _distance(points, ball, (1.15, 0.8, 1.0)) - 3.5 * edge
        haemorrhage = 1.0 - smoothstep(distance, -1.0, 1.0)
        oedema = 1.0 - smoothstep(distance, 1.0, 8.0) - haemorrhage
    return Focal(
        old=_union(
            zero, [1.0 - smoothstep(_distance(points, ball) - 3.0 * edge, -2.0, 2.0) for ball in ill.old_infarcts]
        ),
        haemorrhage=haemorrhage,
        oedema=oedema,
        lacune=_union(zero, [1.0 - smoothstep(_distance(points, ball), -1.0, 1.0) for ball in ill.lacunes]),
        white=_white_matter(points, tissue, params.build.white, random),
    )


def _distance(points: Points, ball: Ball, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """mm to the surface of a ball, negative inside."""
    distance: Tensor = ((points.mm - torch.tensor(ball.centre)) * torch.tensor(stretch)).norm(dim=-1) - ball.radius
    return distance


def _union(zero: Tensor, masks: list[Tensor]) -> Tensor:
    return torch.stack([zero, *masks]).amax(0) if masks else zero


def _white_matter(points: Points, tissue: Tissue, load: float, random: Fields) -> Tensor:
    """Patchy about the ventricles, reaching farther out with load."""
    reach = 1.6 * load - tissue.ventricle_distance.clamp(min=0.0) / 7.0
    patchy = smoothstep(reach + 0.35 * random.at("white matter lesions", points)[0], 0.0, 0.6)
    share = tissue.white / (tissue.brain + 0.05)
    return patchy * share * (tissue.ventricle_distance > 0) * min(1.0, 1.5 * load)


def territories(points: Points, streams: Streams) -> Tensor:
    """(12, planes, rows, columns) mm to each territory, right side first; the smallest feeds a voxel.

    Seeds are jittered by 3 mm and each territory reaches 2 mm (sd) more or less far, differently in each patient.
    """
    random = streams.generator("territories", Owner.PHYSIOLOGY)
    # Distances are smooth, so the coarse points are enough.
    flat = points.coarse.reshape(-1, 3)
    distances = []
    for side in (1.0, -1.0):
        for name, territory in TERRITORIES.items():
            seeds = np.array(territory.seeds, float)
            seeds = (seeds + random.normal(0, 3.0, seeds.shape)) * [side, 1, 1]
            nearest = _soft_minimum(flat, seeds) - territory.reach - float(random.normal(0, 2.0))
            across = (flat[:, 0] * side < -1.0) * (5.0 if name == "vertebrobasilar" else OTHER_HALF)
            distances.append((nearest + across).reshape(points.coarse.shape[:3]))
    return torch.nn.functional.interpolate(
        torch.stack(distances)[None], size=points.shape, mode="trilinear", align_corners=True
    )[0]


def _soft_minimum(flat: Tensor, seeds: np.ndarray, width: float = 4.0) -> Tensor:
    """A smooth minimum of the distances to the seeds, in mm."""
    seed_points = torch.from_numpy(seeds.astype(np.float32))
    closest = torch.stack([-(flat - seed).norm(dim=1) / width for seed in seed_points])
    return -width * torch.logsumexp(closest, 0)


def sided(names: tuple[str, ...], side: str) -> list[int]:
    """Indices of territories of one side."""
    return [NAMES.index(name) + (0 if SIGN[side] > 0 else len(NAMES)) for name in names]


def depth_within(distances: Tensor, inside: list[int]) -> Tensor:
    """mm from the border of a group of territories, positive within it."""
    outside = [index for index in range(len(distances)) if index not in inside]
    return distances[outside].amin(0) - distances[inside].amin(0)


def watershed(distances: Tensor) -> Tensor:
    """1 where two territories are equally near, falling to 0 over a few mm."""
    two = distances.topk(2, dim=0, largest=False).values
    return torch.exp((two[0] - two[1]) / 6.0)


def behind_stenosis(distances: Tensor, side: str | None) -> Tensor:
    """How much a voxel is fed through a narrow carotid, 0 to 1."""
    if side is None:
        return torch.zeros(distances.shape[1:])
    return smoothstep(depth_within(distances, sided(STENOSIS, side)), -3.0, 3.0)


@dataclass(frozen=True, slots=True)
class Collaterals:
    """How much flow would reach each voxel behind an occlusion, for any collateral level.

    affected: 0 outside the lost territory to 1 inside; profile: flow at collateral level 0, as a fraction of normal.
    """

    affected: Tensor
    profile: Tensor

    def flow(self, level: float) -> Tensor:
        """Residual flow as a fraction of normal; 1 outside."""
        behind = (self.profile + level).clamp(LEAST_FLOW, MOST_FLOW)
        return 1.0 - self.affected * (1.0 - behind)


def collaterals(stroke: Stroke, distances: Tensor, points: Points, random: Fields) -> Collaterals:
    """Flow comes over the border of the territory and fails with depth; the deep perforators have no collaterals.

    The law is invented (simulation.md section 10) and decides how every Tmax map looks. random: physiology.
    """
    occlusion = OCCLUSIONS[stroke.vessel]
    own = sided(occlusion.territories, stroke.side)
    depth = depth_within(distances, own)
    islands, fine = random.at("collateral islands", points)
    border = random.at("territory border", points)[0]
    affected = smoothstep(depth + 3.5 * islands + 2.0 * border, -5.0, 8.0)
    rim = 0.55 * torch.exp(-depth.clamp(min=0.0) / 10.0) - 0.008 * depth.clamp(0.0, 25.0)
    patchy = 0.9 * random.at("collateral flow", points)[0] + 0.6 * islands + 0.35 * fine
    deep = LENTICULOSTRIATE + (0 if SIGN[stroke.side] > 0 else len(NAMES))
    without = (distances.argmin(0) == deep) if deep in own else torch.zeros_like(depth)
    return Collaterals(affected, rim - 0.20 * without + 0.12 * patchy)


def delay_behind(flow: Tensor) -> Tensor:
    """s that blood comes late where flow is residual.

    The exponent is flatter than first drawn (15 s, 1.9), which made lesions uniformly deep: Tmax > 10 s filled
    .4 to .9 of Tmax > 6 s, against a median of .4 in DEFUSE 2.
    """
    return 10.0 * (1.0 - flow).clamp(min=0.0) ** 1.5


def volume_behind(flow: Tensor) -> Tensor:
    """Blood volume as a fraction of normal: vessels widen down to half the flow, then collapse."""
    wide = 1.0 + 0.45 * (1.0 - flow)
    collapsed = 1.225 * (flow / 0.5).clamp(min=0.0) ** 0.95
    return torch.where(flow > 0.5, wide, collapsed)


def infarct(flow: Tensor, onset: float) -> Tensor:
    """Tissue already dead, 0 to 1: the flow that kills rises with the hours since onset (after Jones 1981)."""
    threshold = 0.12 + 0.20 * (1.0 - float(np.exp(-onset / 4.0)))
    return smoothstep(threshold - flow, -0.04, 0.05)
