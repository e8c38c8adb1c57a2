"""The solution of a patient on the canonical grid: tissue, territories, flow, and what the console makes of them.

The canonical grid (1.8 x 1.8 x 4 mm, no tilt) is near to what a perfusion console resolves.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.simulate import kinetics, lesions, tissue
from training.simulate.fields import Fields, Points, Streams
from training.simulate.geometry import Deformation, Grid, even, head_box
from training.simulate.params import PatientParams

CANONICAL = Grid(even(46, 4.0, -92.0), rows=128, columns=128, spacing=1.8, thickness=4.0)
BRAIN = 0.4  # fraction of grey and white matter from which a voxel has perfusion values
BISECTIONS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """A solved patient on the canonical grid; every tensor is (slices, rows, columns) of its box.

    brain: fraction of grey and white matter. flow: residual flow behind the occlusion, 1 elsewhere. cbf, cbv, delay,
    dispersion: tissue truth in ml/100 g/min, ml/100 g, s, s. console_cbf, tmax, ttp: operational truth.
    """

    grid: Grid
    brain: Tensor
    flow: Tensor
    cbf: Tensor
    cbv: Tensor
    delay: Tensor
    dispersion: Tensor
    console_cbf: Tensor
    tmax: Tensor
    ttp: Tensor

    @property
    def mtt(self) -> Tensor:
        """Tissue MTT in s."""
        return transit_time(self.cbf, self.cbv)


def transit_time(cbf: Tensor, cbv: Tensor) -> Tensor:
    """MTT = 60 CBV / CBF in s, limited to what the tables hold."""
    return (60.0 * cbv / cbf.clamp(min=0.3)).clamp(0.0, kinetics.LONGEST_MTT)


def solve(deformation: Deformation, streams: Streams, anatomy: Fields, physiology: Fields) -> Latent:
    """Tissue, territories, flow, and what the console makes of them."""
    params = deformation.params
    grid = head_box(deformation, CANONICAL, margin=4.0)
    fine = deformation.points(grid)
    inside = tissue.at(fine, deformation.atlas, params.build, anatomy)
    focal = lesions.focal(fine, inside, params, anatomy)
    inside, focal = inside.averaged(grid), focal.averaged(grid)
    points = deformation.points(replace(grid, thickness=0.1))  # one plane in the middle of each slice
    distances = lesions.territories(points, streams)
    healthy = _healthy(params, inside, focal, points, distances, physiology)
    flow = torch.ones(points.shape)
    if params.stroke:
        behind = lesions.collaterals(params.stroke, distances, points, physiology)
        flow = behind.flow(_collateral_level(params, healthy, behind))
    response = 1.0 + 0.05 * physiology.at("vascular response", points)[0] * (1.0 - flow)
    late = 1.0 + (0.08 * physiology.at("delay", points)[0]).clamp(-0.2, 0.2)
    return _finish(params, healthy, flow, response, late, grid)


@dataclass(frozen=True, slots=True, eq=False)
class Healthy:
    """Flow, volume and delay before the acute occlusion, on the canonical grid."""

    brain: Tensor
    cbf: Tensor
    cbv: Tensor
    delay: Tensor


def _healthy(
    params: PatientParams,
    inside: tissue.Tissue,
    focal: lesions.Focal,
    points: Points,
    distances: Tensor,
    random: Fields,
) -> Healthy:
    """Grey and white matter with regional variation, watersheds, old lesions and a stenosis."""
    blood, brain = params.blood, inside.brain
    regional_flow, regional_volume = random.at("regional flow", points)
    local_flow, local_volume = random.at("local flow", points)
    deep = 0.12 * inside.deep
    cbf = (blood.grey_cbf * (inside.grey + deep) + blood.white_cbf * inside.white) * (
        1.0 + 0.10 * regional_flow + 0.05 * local_flow
    )
    cbv = (blood.grey_cbv * (inside.grey + deep) + blood.white_cbv * inside.white) * (
        1.0 + 0.07 * regional_volume + 0.05 * local_volume
    )
    delay = 0.1 + 0.4 * lesions.watershed(distances) + 0.4 * inside.white / (brain + 0.05)
    delay = (
        delay + 0.2 * random.at("delay", points)[0] + 0.5 * (distances.argmin(0) % len(lesions.NAMES) == lesions.PCA)
    )
    narrow = lesions.behind_stenosis(distances, params.focal.stenosis)
    cbf, cbv, delay = cbf * (1 - 0.12 * narrow), cbv * (1 + 0.06 * narrow), delay + 1.1 * narrow
    for mask, flow_left, volume_left in (
        (focal.old, 0.12, 0.25),
        (focal.haemorrhage, 0.10, 0.10),
        (focal.lacune, 0.25, 0.35),
        (focal.oedema, 0.55, 0.75),
        (focal.white, 0.65, 0.78),
    ):
        cbf, cbv = cbf * (1 - mask * (1 - flow_left)), cbv * (1 - mask * (1 - volume_left))
    return Healthy(brain, cbf, cbv, (delay + 1.2 * focal.oedema + 0.6 * focal.white).clamp(min=0.0))


def _finish(
    params: PatientParams, healthy: Healthy, flow: Tensor, response: Tensor, late: Tensor, grid: Grid
) -> Latent:
    cbf = healthy.cbf * flow
    cbv = healthy.cbv * lesions.volume_behind(flow) * response
    delay = healthy.delay + lesions.delay_behind(flow) * late
    dispersion = (0.3 + 0.08 * delay).clamp(0.3, 2.4)
    console = kinetics.console(params.bolus, params.blood.residue)
    found, extra, peak = console.read(transit_time(cbf, cbv).numpy(), dispersion.numpy())
    return Latent(
        grid=grid,
        brain=healthy.brain,
        flow=flow,
        cbf=cbf,
        cbv=cbv,
        delay=delay,
        dispersion=dispersion,
        console_cbf=cbf * torch.from_numpy(found),
        tmax=delay + torch.from_numpy(extra),
        ttp=delay + torch.from_numpy(peak),
    )


def _collateral_level(params: PatientParams, healthy: Healthy, behind: lesions.Collaterals) -> float:
    """The level at which operational core over Tmax > 6 s is the ratio asked for; the highest flow for a ratio of 0."""
    assert params.stroke is not None
    touched = (behind.affected > 0.02) & (healthy.brain > BRAIN)
    local = Healthy(*(getattr(healthy, name)[touched] for name in Healthy.__slots__))
    part = lesions.Collaterals(behind.affected[touched], behind.profile[touched])
    one = torch.ones_like(local.cbf)
    whole = _finish(params, healthy, torch.ones_like(healthy.cbf), torch.ones(()), torch.ones(()), CANONICAL)
    normal = (healthy.brain > BRAIN) & (whole.tmax < 4.0)
    reference = float(np.median(whole.console_cbf[normal].numpy()))

    def ratio(level: float) -> float:
        solved = _finish(params, local, part.flow(level), one, one, CANONICAL)
        late = solved.tmax > 6.0
        core = late & (solved.console_cbf < lesions.CORE_FLOW * reference)
        return int(core.sum()) / max(1, int(late.sum()))

    low, high = -0.3, 0.9
    target = max(params.stroke.ratio, 0.001)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) > target else (low, middle)
    return high
