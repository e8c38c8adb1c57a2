"""Simple bodies in the template, mirrored about the midline: the distance to them, and soft masks."""

import torch
from torch import Tensor

from training.simulate.anatomy import Ellipsoid, Point
from training.simulate.fields import smoothstep

SOFT_EDGE = 0.6  # mm, half the width of a painted edge


def mirrored(mm: Tensor) -> Tensor:
    """MNI mm (..., 3) with the left side folded onto the right one."""
    return torch.cat([mm[..., :1].abs(), mm[..., 1:]], -1)


def within(distance: Tensor) -> Tensor:
    """1 inside a surface, 0 outside; distance in mm, negative inside."""
    return 1.0 - smoothstep(distance, -SOFT_EDGE, SOFT_EDGE)


def ellipsoid(folded: Tensor, body: Ellipsoid, shrink: Tensor | float = 1.0) -> Tensor:
    """About mm outside an ellipsoid, negative inside; shrink above 1 makes it smaller."""
    scaled = (folded - torch.tensor(body.centre, dtype=torch.float32)) * (1.0 / torch.tensor(body.half))
    distance: Tensor = (scaled.norm(dim=-1) * shrink - 1.0) * min(body.half)
    return distance


def bar(folded: Tensor, start: Point, end: Point, radius: Tensor | float) -> Tensor:
    """mm outside a rounded bar, negative inside."""
    a = torch.tensor(start, dtype=torch.float32)
    along = torch.tensor(end, dtype=torch.float32) - a
    from_start = folded - a
    share = (from_start @ (along / along.square().sum())).clamp(0.0, 1.0)
    distance: Tensor = (from_start - share[..., None] * along).norm(dim=-1) - radius
    return distance
