"""Where slices lie in the patient, and where the patient's points lie in the template.

Patient coordinates are DICOM's LPS in mm (x to the left, y to the back, z to the head), template coordinates MNI (x to
the right, y forwards, z upwards): the sign of x and y changes once, here, and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from training.simulate.atlas import Atlas
from training.simulate.fields import Fields, Points, sample, smoothstep, spread, to_unit
from training.simulate.params import PatientParams

COARSE_STEP = 4.0  # mm between the points at which the deformation is computed
THICKEST_SUB = 2.5  # mm: slices are averages of thinner planes, so that partial volume is right
CENTRE = (0.0, -18.0, 8.0)  # MNI mm that lies at the patient's origin before the shift
MIRROR = (-1.0, -1.0, 1.0)  # LPS to MNI
DEFORMATIONS = (("pose deformation", 2.2), ("brain deformation", 1.9), ("gyral deformation", 1.2))  # sd in mm
DECAY = 11.0  # mm: how far the widening of the ventricles is felt


@dataclass(frozen=True)
class Grid:
    """Slices as a scanner makes them: the gantry may be tilted, the table steps along z.

    heights: table z in mm of each slice centre. thickness in mm. tilt in degrees about the patient's left-right axis;
    positive tilts the top of the gantry towards the feet (Column direction 0, cos, -sin), as in the real GE series.
    crop: (first row, rows, first column, columns) that are computed; all by default.
    """

    heights: tuple[float, ...]
    rows: int = 256
    columns: int = 256
    spacing: float = 230.0 / 256
    thickness: float = 4.0
    tilt: float = 0.0
    crop: tuple[int, int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return len(self.heights), self.rows, self.columns

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of contiguous slices."""
        step = float(np.diff(self.heights).mean()) if len(self.heights) > 1 else self.thickness
        return self.spacing**2 * step * float(np.cos(np.radians(self.tilt))) / 1000.0

    @property
    def column_direction(self) -> np.ndarray:
        """(3,) LPS: where the row index grows."""
        tilt = np.radians(self.tilt)
        return np.array([0.0, np.cos(tilt), -np.sin(tilt)])

    @property
    def planes_per_slice(self) -> int:
        """How many thin planes one slice averages."""
        return max(1, int(np.ceil(self.thickness / THICKEST_SUB)))

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """The crop, or everything."""
        return self.crop or (0, self.rows, 0, self.columns)

    def first_voxel(self, height: float) -> np.ndarray:
        """(3,) LPS mm of row 0, column 0 of the slice at a height."""
        down = self.column_direction * (-(self.rows - 1) / 2 * self.spacing)
        return np.array([-(self.columns - 1) / 2 * self.spacing, 0.0, height]) + down

    def lps(self, rows: np.ndarray, columns: np.ndarray, heights: np.ndarray) -> Tensor:
        """(heights, rows, columns, 3) mm of pixel indices, which may be fractional."""
        down = (rows - (self.rows - 1) / 2) * self.spacing
        x = np.broadcast_to((columns - (self.columns - 1) / 2) * self.spacing, (len(heights), len(rows), len(columns)))
        y = np.broadcast_to((down * self.column_direction[1])[None, :, None], x.shape)
        z = heights[:, None, None] + np.broadcast_to((down * self.column_direction[2])[None, :, None], x.shape)
        return torch.from_numpy(np.stack([x, y, z], axis=-1).astype(np.float32))

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column indices of the box."""
        row, rows, column, columns = self.box
        return np.arange(row, row + rows, dtype=float), np.arange(column, column + columns, dtype=float)

    def planes(self, heights: tuple[float, ...]) -> np.ndarray:
        """The heights of the thin planes of the slices at `heights`, in order."""
        normal_z = float(np.cos(np.radians(self.tilt)))
        inner = (np.arange(self.planes_per_slice) + 0.5) / self.planes_per_slice - 0.5
        return (np.array(heights)[:, None] + inner * self.thickness / normal_z).ravel()

    def slabs(self, slices: int = 5) -> Iterator[tuple[slice, "Grid"]]:
        """The grid in pieces that fit a processor's cache, with the slices each one holds."""
        for first in range(0, len(self.heights), slices):
            which = slice(first, min(first + slices, len(self.heights)))
            yield which, replace(self, heights=self.heights[which])

    def mean_of_planes(self, values: Tensor) -> Tensor:
        """(..., planes, rows, columns) to (..., slices, rows, columns)."""
        *channels, planes, rows, columns = values.shape
        return values.reshape(*channels, planes // self.planes_per_slice, self.planes_per_slice, rows, columns).mean(-3)

    def whole(self, cropped: Tensor, fill: float) -> np.ndarray:
        """(slices, box rows, box columns) to full slices, float32."""
        row, rows, column, columns = self.box
        full = np.full((len(cropped), self.rows, self.columns), fill, np.float32)
        full[:, row : row + rows, column : column + columns] = cropped.numpy()
        return full


def even(slices: int, step: float, first: float) -> tuple[float, ...]:
    """Evenly spaced heights in mm."""
    return tuple(first + step * number for number in range(slices))


@dataclass(frozen=True)
class Deformation:
    """From the patient to the template: pose, three random fields, and the width of the ventricles."""

    params: PatientParams
    atlas: Atlas
    fields: Fields

    def points(self, grid: Grid) -> Points:
        """The template points of all thin planes of a grid."""
        rows, columns = grid.pixels()
        heights = grid.planes(grid.heights)
        coarse = self.to_template(grid.lps(_fewer(rows, grid.spacing), _fewer(columns, grid.spacing), heights))
        shape = (len(heights), len(rows), len(columns))
        return Points(spread(coarse.movedim(-1, 0), shape).movedim(0, -1).contiguous(), coarse)

    def to_template(self, lps: Tensor) -> Tensor:
        """(planes, rows, columns, 3) LPS mm to MNI mm."""
        mm = self._posed(lps)
        depth = -sample(self.atlas.coarse[:1], to_unit(mm))[0]
        inside = smoothstep(depth, 0.0, 12.0)[..., None]
        for name, sd in DEFORMATIONS:
            moved = sd * self.fields.at_unit(name, to_unit(mm)).movedim(0, -1)
            # Fine deformation of the skull gives lumpy heads, so only the brain has it.
            mm = mm + (moved if name == "pose deformation" else moved * inside)
        return mm - self._widening(mm)

    def _posed(self, lps: Tensor) -> Tensor:
        pose = self.params.pose
        centred = lps * torch.tensor(MIRROR) - torch.tensor(pose.shift)
        turn = torch.from_numpy((_rotation(pose.rotation).T / np.array(pose.scale)).astype(np.float32))
        return centred @ turn + torch.tensor(CENTRE)

    def _widening(self, mm: Tensor) -> Tensor:
        """mm by which the tissue about the ventricles has moved outwards."""
        build = self.params.build
        _, distance, _, *outwards = sample(self.atlas.coarse, to_unit(mm))
        sided = 1.0 + build.asymmetry * torch.tanh(mm[..., 0] / 4.0)
        size = build.ventricle * sided * torch.exp(-distance.clamp(min=0.0) / DECAY) * (distance > -6.0)
        widening: Tensor = size[..., None] * torch.stack(outwards, -1)
        return widening


def interpolate(values: Tensor, source: Grid, target: Grid, planes: bool) -> Tensor:
    """(channels, ...) on the box of an untilted grid at another's planes or slices, linearly; rims repeat."""
    rows, columns = target.pixels()
    heights = target.planes(target.heights) if planes else np.array(target.heights)
    mm = target.lps(rows, columns, heights)
    row, count_rows, column, count_columns = source.box
    first = source.first_voxel(source.heights[0]) + np.array([column, row, 0.0]) * source.spacing
    step = np.array([source.spacing, source.spacing, source.heights[1] - source.heights[0]])
    last = np.array([count_columns, count_rows, len(source.heights)]) - 1.0
    scale = torch.from_numpy((2.0 / (step * last)).astype(np.float32))
    unit = (mm - torch.from_numpy(first.astype(np.float32))) * scale - 1.0
    return sample(values, unit)


def head_box(deformation: Deformation, grid: Grid, margin: float) -> Grid:
    """The grid cropped to where the head, or anything up to `margin` mm outside the brain's hull, can be."""
    rows, columns = np.arange(0, grid.rows, 4.0), np.arange(0, grid.columns, 4.0)
    coarse = deformation.to_template(
        grid.lps(rows, columns, np.array(grid.heights[:: max(1, len(grid.heights) // 12)]))
    )
    points = Points(coarse, coarse)
    hull = deformation.atlas.coarse[:1]
    near = (sample(hull, points.unit)[0] < margin).any(0).numpy()
    row, column = np.flatnonzero(near.any(1)) * 4, np.flatnonzero(near.any(0)) * 4
    if not row.size:
        raise ValueError(f"no part of the head lies on slices from {grid.heights[0]} to {grid.heights[-1]} mm")
    top, left = max(0, int(row[0]) - 4), max(0, int(column[0]) - 4)
    bottom, right = min(grid.rows, int(row[-1]) + 8), min(grid.columns, int(column[-1]) + 8)
    return replace(grid, crop=(top, bottom - top, left, right - left))


def _fewer(indices: np.ndarray, spacing: float) -> np.ndarray:
    """Fractional indices with the same ends, about COARSE_STEP apart."""
    count = max(2, int(np.ceil((indices[-1] - indices[0]) * spacing / COARSE_STEP)) + 1)
    return np.linspace(indices[0], indices[-1], count)


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(3, 3): about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    rotation: np.ndarray = about_z @ about_y @ about_x
    return rotation
