"""Everything outside the brain: skull, scalp, muscles, and a face with orbits and sinuses, in Hounsfield units.

Painted from the outside inwards, each body over what lies under it; masks are soft, so partial volume comes free.
"""

import torch
from torch import Tensor

from training.simulate import anatomy
from training.simulate.anatomy import Ellipsoid
from training.simulate.bodies import bar, ellipsoid, mirrored, within
from training.simulate.fields import Fields, Points, smoothstep
from training.simulate.params import Build
from training.simulate.tissue import Tissue

AIR_HU = -1000.0
TABLE_HU, DIPLOE_HU, DENSE_HU, THIN_HU = 1700.0, 620.0, 1400.0, 750.0
FACE_TOP = -20.0  # mm z: the face begins below the brow
NOSE = Ellipsoid((0, 84, -56), (11, 17, 20), 0.0)
SEPTUM = 0.22  # of a texture field's range: half the thickness of the walls between air cells


def paint(hu: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """Where the mask is 1 the value, where it is 0 what was there."""
    return torch.lerp(hu, torch.as_tensor(value, dtype=hu.dtype), mask)


def outside(points: Points, tissue: Tissue, build: Build, shape: Fields, look: Fields) -> Tensor:
    """HU outside the inner table, air beyond the skin; shape reads anatomy, look reads appearance."""
    y, z = points.mm[..., 1], points.mm[..., 2]
    thickness_field, scalp_field = shape.at("skull thickness", points)
    skull = build.skull * (1.0 + 0.14 * thickness_field) * _base_thickness(y, z)
    scalp = (build.scalp * (1.0 + 0.12 * scalp_field)).clamp(min=2.5) + _muscle_bulk(points)
    outer = tissue.table - skull
    low = bool((z < FACE_TOP + 12.0).any())
    skin = torch.minimum(outer - scalp, _face(points)) if low else outer - scalp
    hu = _soft_tissue(points, outer, skin, look)
    hu = paint(hu, within(outer) * (1.0 - tissue.inside), _skull(points, tissue.table, skull, look))
    if low:
        hu = _base_of_skull(hu, points, tissue, skin, look)
    return hu


def _base_thickness(y: Tensor, z: Tensor) -> Tensor:
    """The skull is thicker behind and below, and thin over the orbits."""
    occiput = 1.0 + 0.35 * smoothstep(-y, 55.0, 95.0) + 0.15 * smoothstep(y, 50.0, 70.0)
    return occiput * (1.0 - 0.55 * smoothstep(-z, 14.0, 24.0) * smoothstep(y, 12.0, 30.0))


def _muscle_bulk(points: Points) -> Tensor:
    """mm added under the skin by the temporal muscles and those of the neck."""
    x, y, z = points.mm.unbind(-1)
    temporal = (
        7.0 * smoothstep(-z, -22.0, 14.0) * torch.exp(-(((y - 14.0) / 26.0) ** 2)) * smoothstep(x.abs(), 25.0, 45.0)
    )
    nuchal = 20.0 * smoothstep(-z, 34.0, 62.0) * smoothstep(-y, 20.0, 60.0)
    return temporal + nuchal


def _face(points: Points) -> Tensor:
    """mm outside the skin of the face; large above the brow."""
    x, y, z = points.mm.unbind(-1)
    side = torch.sqrt((x / 66.0) ** 2 + ((y - 18.0) / 68.0) ** 2)
    cheeks = (side - 1.0) * 66.0
    nose = ellipsoid(mirrored(points.mm), NOSE)
    return torch.minimum(cheeks, nose) + 60.0 * smoothstep(z, FACE_TOP - 8.0, FACE_TOP + 8.0)


def _soft_tissue(points: Points, outer: Tensor, skin: Tensor, look: Fields) -> Tensor:
    """Skin, the fat below it, and muscle with planes of fat where the layer is thick."""
    texture, planes = look.at("soft tissue texture", points)
    thickness = (outer - skin).clamp(min=0.0)
    fat = anatomy.FAT_HU + 14.0 * texture
    strands = paint(fat, smoothstep(planes + 0.02 * thickness, 0.7, 1.3), 5.0)
    hu = paint(torch.full_like(outer, AIR_HU), within(skin), strands)
    sheets = smoothstep(planes.abs(), 0.03, 0.22)  # fat lies in sheets between the muscles
    muscle = smoothstep(-skin, 3.2, 4.6) * smoothstep(thickness, 6.5, 8.5) * (0.65 + 0.35 * sheets)
    hu = paint(hu, muscle * within(skin), anatomy.MUSCLE_HU + 6.0 * texture)
    dermis = smoothstep(skin, -2.4, -1.4) * within(skin)
    return paint(hu, dermis, anatomy.SKIN_HU + 8.0 * texture)


def _skull(points: Points, table: Tensor, thickness: Tensor, look: Fields) -> Tensor:
    """Two tables of compact bone with marrow between them."""
    compact, marrow = look.at("bone texture", points)
    through = table / thickness
    diploe = (
        smoothstep(through, 0.22, 0.40) * (1.0 - smoothstep(through, 0.60, 0.80)) * (0.75 + 0.25 * marrow).clamp(0.0)
    )
    return paint(TABLE_HU + 110.0 * compact, diploe, DIPLOE_HU + 90.0 * marrow)


def _base_of_skull(hu: Tensor, points: Points, tissue: Tissue, skin: Tensor, look: Fields) -> Tensor:
    """Bars of dense bone, orbits, and air; only where no brain is and never beyond the skin."""
    compact, cells = look.at("bone texture", points)
    folded = mirrored(points.mm)
    free = (1.0 - tissue.inside + tissue.cleft).clamp(0.0, 1.0) * within(skin + 1.5)
    for start, end, radius in anatomy.BONES:
        dense = within(bar(folded, start, end, radius + 0.8 * compact))
        hu = paint(hu, dense * free, DENSE_HU + 150.0 * cells)
    orbit = ellipsoid(folded, anatomy.ORBIT)
    hu = paint(hu, within(orbit - 1.8) * free, THIN_HU)
    hu = paint(hu, within(orbit) * free, anatomy.ORBIT.hu)
    for start, end, radius in anatomy.ORBITAL_MUSCLES:
        hu = paint(hu, within(bar(folded, start, end, radius)) * free, anatomy.MUSCLE_HU)
    globe = ellipsoid(folded, anatomy.GLOBE)
    hu = paint(hu, within(globe) * free, anatomy.SKIN_HU + 5.0)
    hu = paint(hu, within(globe + 1.3) * free, anatomy.GLOBE.hu)
    walls = smoothstep(SEPTUM - cells.abs(), 0.0, 0.12)
    for cavity in anatomy.CAVITIES:
        distance = ellipsoid(folded, cavity, 1.0 + 0.06 * compact)
        hu = paint(hu, within(distance - 1.2) * free, THIN_HU)
        hu = paint(hu, within(distance) * free * (1.0 - 0.7 * walls), cavity.hu)
    mastoid = within(ellipsoid(folded, anatomy.MASTOID))
    hu = paint(hu, within(ellipsoid(folded, anatomy.MASTOID, 0.85)) * free, DENSE_HU)
    return paint(hu, mastoid * free * (1.0 - smoothstep(0.45 - cells.abs(), 0.0, 0.2)), anatomy.MASTOID.hu)
