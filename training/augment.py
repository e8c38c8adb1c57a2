"""Augmentation of training slices: one motion of the head for the CT, the maps and the mask alike (models.md D9).

Reflection left to right, rotation of -10 to 10 degrees, shift of -30 to 30 pixels along both axes, linear. The order of
the maps is never touched (the public code flips the montage and so swaps CT and maps; models.md 4.1 number 8).
Dimensions: C channels, Y X space.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

DEGREES = 10.0
PIXELS = 30.0
STREAM = 2  # keeps these random numbers apart from those of the order of the slices
BACKGROUND = -1.0  # of planes and maps outside the brain


@dataclass(frozen=True, slots=True)
class Motion:
    """What happens to a slice, in this order.

    mirrored: reflected left to right; degrees: turned, clockwise on the screen; rows, columns: moved, in pixels.
    """

    mirrored: bool
    degrees: float
    rows: float
    columns: float


def draw(seed: int, epoch: int, index: int) -> Motion:
    """The motion of one slice in one epoch, the same wherever and whenever it is asked for."""
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch, STREAM, index]))
    degrees, rows, columns = random.uniform(-1.0, 1.0, 3) * (DEGREES, PIXELS, PIXELS)
    return Motion(bool(random.random() < 0.5), float(degrees), float(rows), float(columns))


def move(images_CYX: Tensor, mask_YX: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    """Images with background -1 and their mask, moved together; Y and X are alike in length.

    A pixel is inside when at least half of it comes from inside, and is interpolated among inside pixels alone, as
    preprocess.to_source does; outside, every image is -1.
    """
    share_YX = mask_YX.to(images_CYX.dtype)
    stack_CYX = torch.cat([(images_CYX - BACKGROUND) * share_YX, share_YX[None]])
    grid = affine_grid(_matrix(motion, mask_YX.shape[0])[None], [1, *stack_CYX.shape], align_corners=False)
    *moved, share_YX = grid_sample(stack_CYX[None], grid, padding_mode="zeros", align_corners=False)[0]
    inside_YX = share_YX >= 0.5
    values_CYX = torch.stack(moved) / share_YX.clamp(min=0.5) + BACKGROUND
    return torch.where(inside_YX, values_CYX, BACKGROUND), inside_YX


def _matrix(motion: Motion, side: int) -> Tensor:
    """(2, 3): from a place in the result to the place in the source, columns first, both axes from -1 to 1."""
    angle = np.deg2rad(motion.degrees)
    mirror = np.diag([-1.0 if motion.mirrored else 1.0, 1.0])
    turn_back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = np.array([motion.columns, motion.rows]) * 2.0 / side
    back = mirror @ turn_back
    return torch.tensor(np.column_stack([back, -back @ shift]), dtype=torch.float32)
