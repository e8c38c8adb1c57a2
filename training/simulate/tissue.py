"""What fills the inside of the skull at each point: grey and white matter, fluid, vessels, dura.

The template is an average of 152 brains, so its cortex is a blur. Each patient gets gyri of their own: sulci are the
zero surfaces of a random field that is constant along rays from the middle of the brain, so they run inwards from
the surface as thin sheets lined with cortex; a softmax then turns probabilities into tissue.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from training.simulate.anatomy import BONES
from training.simulate.atlas import Atlas
from training.simulate.bodies import bar, mirrored, within
from training.simulate.fields import Fields, Points, sample, smoothstep, spread, to_unit
from training.simulate.geometry import CENTRE, Grid
from training.simulate.params import Build

SHARPNESS = 2.2  # of the softmax over log probabilities
RADIUS = 66.0  # mm: rays are followed to this distance from the middle, about the depth of the cortex
SULCUS_DEPTH = (10.0, 22.0)  # mm below the inner table where sulci begin to end, and end
ARTERY_WARP = 1.6  # mm
PETROUS = BONES[0]


@dataclass(frozen=True, slots=True)
class Tissue:
    """Fractions of a voxel (0 to 1) and distances in mm, each (planes or slices, rows, columns).

    fluid: in sulci and cisterns; ventricle: in the ventricles. inside: within the inner table. cleft: bone between
    the lobes at the base of the skull. table: mm outside the inner table. segment: nearest artery, see
    Atlas.segment; ventricle_distance: mm from the ventricles' walls. cortex: how much a voxel lies in the ribbon.
    """

    grey: Tensor
    white: Tensor
    fluid: Tensor
    ventricle: Tensor
    inside: Tensor
    cleft: Tensor
    artery: Tensor
    vein: Tensor
    falx: Tensor
    deep: Tensor
    cortex: Tensor
    table: Tensor
    ventricle_distance: Tensor
    segment: Tensor

    @property
    def brain(self) -> Tensor:
        """Grey and white matter together."""
        return self.grey + self.white

    def averaged(self, grid: Grid) -> "Tissue":
        """Planes averaged to slices; the segment is that of the slice's first plane."""
        slices = {f.name: grid.mean_of_planes(getattr(self, f.name)) for f in fields(self)}
        return Tissue(**{**slices, "segment": self.segment[:: grid.planes_per_slice]})


def at(points: Points, atlas: Atlas, build: Build, random: Fields) -> Tissue:
    """The tissue at points of the template; random: the patient's anatomy."""
    grey, white, fluid, brain_distance, _, vein_wall = sample(atlas.fine, points.unit)
    hull, ventricle_distance, deep = spread(sample(atlas.coarse[:3], points.coarse_unit), points.shape)
    ventricle_distance = sample(atlas.coarse[1:2], points.unit)[0]
    artery_wall, segment = _arteries(points, atlas, random)
    x, y, z = points.mm.unbind(-1)
    table = hull - (0.8 + 1.7 * build.atrophy)
    inside = 1.0 - smoothstep(table, -0.5, 0.5)
    brain = smoothstep(-brain_distance, -0.8, 0.8)
    cortex = smoothstep(-brain_distance, -1.0, 3.0) * smoothstep(table, -SULCUS_DEPTH[1], -SULCUS_DEPTH[0])
    cortex = cortex * smoothstep(ventricle_distance, 4.0, 9.0) * smoothstep(z - 0.25 * y, -16.0, -6.0)
    logits = _individual(torch.stack([grey, white, fluid]), cortex, points, build, random)
    grey, white, fluid = torch.softmax(SHARPNESS * logits, 0) * brain
    ventricle = smoothstep(-ventricle_distance, -0.8, 0.8)
    solid = 1.0 - ventricle
    cleft = inside * _bone_between(points, brain_distance, grey + white)
    around = (inside - brain).clamp(min=0.0) * solid
    return Tissue(
        grey=grey * solid,
        white=white * solid,
        fluid=fluid * solid + around * (1.0 - cleft),
        ventricle=ventricle * brain,
        inside=inside,
        cleft=cleft,
        artery=smoothstep(0.35 - artery_wall, -0.5, 0.8) * (inside > 0.3),
        vein=smoothstep(0.3 - vein_wall, -0.6, 0.6) * (table < 2.5),
        falx=_falx(x, z, hull, inside, brain),
        deep=deep * grey * solid,
        cortex=cortex,
        table=table,
        ventricle_distance=ventricle_distance,
        segment=segment,
    )


def _arteries(points: Points, atlas: Atlas, random: Fields) -> tuple[Tensor, Tensor]:
    """mm to the wall of the nearest artery, and which one; each patient's arteries take their own course."""
    moved = points.mm + ARTERY_WARP * random.at("artery course", points).movedim(0, -1)
    unit = to_unit(moved)
    return sample(atlas.fine[4:5], unit)[0], sample(atlas.segment, unit, nearest=True)[0]


def _individual(average: Tensor, cortex: Tensor, points: Points, build: Build, random: Fields) -> Tensor:
    """(grey, white, fluid) log probabilities with this patient's gyri; atrophy widens sulci and thins cortex."""
    from_middle = points.mm - torch.tensor(CENTRE)
    ray = torch.tensor(CENTRE) + from_middle * (RADIUS / from_middle.norm(dim=-1, keepdim=True).clamp(min=5.0))
    along, across = random.at_unit("sulci", to_unit(ray))
    fine = random.at("fine sulci", points)[0]
    sheet = along + 0.20 * fine
    width = 0.20 + 0.36 * build.atrophy
    sulcus = torch.exp(-((sheet / width).square().square()))
    ribbon = torch.exp(-((sheet / 0.62) ** 2))
    open_by = 1.0 + 3.0 * build.atrophy
    return torch.log(average + 0.02) + cortex * torch.stack(
        [
            0.9 * ribbon - 0.3,
            0.8 * (1.0 - ribbon) + 0.35 * across,
            (2.0 + open_by) * sulcus - 1.2 + 0.5 * build.atrophy + 0.35 * fine,
        ]
    )


def _bone_between(points: Points, brain_distance: Tensor, brain: Tensor) -> Tensor:
    """The base of the skull inside the hull: wide clefts, and the petrous ridges under the temporal lobes."""
    y, z = points.mm[..., 1], points.mm[..., 2]
    wide = smoothstep(brain_distance, 4.5, 6.0) * (z < -22.0) * (z + 0.25 * y < -10.0)
    if not bool((z < -28.0).any()):
        return wide
    start, end, radius = PETROUS
    ridge = within(bar(mirrored(points.mm), start, end, radius))
    return torch.maximum(wide, ridge * (1.0 - smoothstep(brain, 0.55, 0.95)))


def _falx(x: Tensor, z: Tensor, hull: Tensor, inside: Tensor, brain: Tensor) -> Tensor:
    """The dura between the hemispheres, thinner than a voxel, from the skull to 22 mm inwards."""
    thin = 1.0 - smoothstep(x.abs(), 0.4, 1.2)
    return thin * (inside > 0.5) * smoothstep(hull + 22.0, -1.0, 1.0) * (z > -5.0) * (0.8 - 0.68 * brain)
