"""Source slices to what the generator was trained on, and back (design.md contract 11, models.md D4, D5, D7, D8).

Everything happens in the orthonormal frame of the slices, its axes being the signed row, column and normal directions
nearest to the patient's left, back and head. Slices are parallel, so in this frame a gantry tilt only displaces each
slice within its plane, and taking every slice at its own displacement undoes the shear without touching the normal.

The model grid is 256 x 256 pixels of 0.9375 mm, centred on the brain, the same for every slice; one plane per source
slice. Each plane comes with the head 4 mm below and 4 mm above it: slices are stripped one by one, then interpolated
along the normal, so neither bone nor scalp of a neighbouring slice enters. Outside the mask of the target slice all
three channels are -1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference import brain
from inference.maps import MapKind, PerfusionMap
from inference.volume import AIR, Volume

VERSION = "1"  # part of the job key and of every manifest; a change of any voxel that leaves `prepare` changes it
SIDE, SPACING = 256, 0.9375  # pixels, mm
NEIGHBOURS = (-4.0, 0.0, 4.0)  # mm along the normal, towards the head positive
WINDOW = (0.0, 80.0)  # HU; centre 40, width 80
SOFT_TISSUE = (0.0, 100.0)  # HU; enough of it to find the head before the brain is known


@dataclass(frozen=True, slots=True, eq=False)
class ModelGrid:
    """Where the model planes lie in the patient (LPS, mm).

    axes: (3, 3), rows are the unit vectors of increasing column index, row index and height; towards the patient's
        left, back and head as nearly as the slices allow.
    origin: (2,) mm along axes[0] and axes[1], centre of the pixel in row 0, column 0 of every plane.
    heights: (slices,) mm along axes[2], in the order of the volume.
    """

    axes: np.ndarray
    origin: np.ndarray
    heights: np.ndarray

    def point(self, plane: float, row: float, column: float) -> np.ndarray:
        """The patient coordinates of a place on the grid; all three indices may be fractional."""
        height = np.interp(plane, np.arange(len(self.heights)), self.heights)
        place: np.ndarray = np.array([*(self.origin + SPACING * np.array([column, row])), height]) @ self.axes
        return place


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A head as the generator sees it.

    planes: (slices, 3, 256, 256) float32 in [-1, 1]: 4 mm below, the slice, 4 mm above; -1 outside the mask.
    mask: (slices, 256, 256) bool, the brain.
    """

    planes: np.ndarray
    mask: np.ndarray
    grid: ModelGrid


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """The pixel centres of one plane as two lines of coordinates along axes[0] (x) and axes[1] (y), in mm.

    Either line may descend. swapped: columns run along y and rows along x, as when the patient lies on one side.
    """

    x: np.ndarray
    y: np.ndarray
    swapped: bool


def prepare(volume: Volume) -> Prepared:
    """Resample, find the brain, centre on it, window. A series without a brain gives an empty mask."""
    first = grid_about_head(volume)
    hu = on_grid(volume, first)
    heights = first.heights
    upwards = slice(None, None, 1 if heights[-1] > heights[0] else -1)
    mask = brain.extract(hu[upwards], heights[upwards], SPACING)[upwards]
    rows, columns = _off_centre(mask)
    # Whole pixels, so that nothing is interpolated twice; what rolls in from the far side lies outside the mask.
    hu, mask = (np.roll(stack, (-rows, -columns), axis=(1, 2)) for stack in (hu, mask))
    planes = _with_neighbours(hu[upwards], mask[upwards], heights[upwards])[upwards]
    return Prepared(planes, mask, replace(first, origin=first.origin + SPACING * np.array([columns, rows])))


def grid_about_head(volume: Volume) -> ModelGrid:
    """The model grid before the brain is known, centred on the soft tissue of the head."""
    axes = _axes(volume)
    origin = _head_centre(volume, axes) - (SIDE - 1) / 2 * SPACING
    return ModelGrid(axes, origin, volume.positions @ axes[2])


def on_grid(volume: Volume, grid: ModelGrid) -> np.ndarray:
    """(slices, 256, 256) float32 HU on the model grid: scalp, skull and all; air outside the field of view."""
    model = _model_plane(grid.origin)
    sources = (_source_plane(volume, grid.axes, position) for position in volume.positions)
    return np.stack([_resample(hu, source, model, AIR) for hu, source in zip(volume.hu, sources, strict=True)])


def to_source(values_KSYX: np.ndarray, prepared: Prepared, volume: Volume) -> np.ndarray:
    """Values on the model grid, (K, slices, 256, 256), to the source grid, (K, slices, rows, columns) float32.

    Linear; a pixel at the rim of the brain is interpolated among brain pixels alone; everything outside is exactly 0.
    """
    out = np.zeros((len(values_KSYX), *volume.hu.shape), np.float32)
    model = _model_plane(prepared.grid.origin)
    for s in np.flatnonzero(prepared.mask.any(axis=(1, 2))):
        source = _source_plane(volume, prepared.grid.axes, volume.positions[s])
        mask = prepared.mask[s].astype(np.float32)
        share, *sums = _resample(np.stack([mask, *(values_KSYX[:, s] * mask)]), model, source, 0.0)
        inside = share >= 0.5
        for k, total in enumerate(sums):
            out[k, s][inside] = total[inside] / share[inside]
    return out


def maps_on_source(
    values_KSYX: np.ndarray, prepared: Prepared, volume: Volume, kinds: Sequence[MapKind]
) -> tuple[PerfusionMap, ...]:
    """Maps in their units on the model grid as maps on the source grid, one for each kind."""
    on_source = to_source(values_KSYX, prepared, volume)
    return tuple(PerfusionMap(kind, values) for kind, values in zip(kinds, on_source, strict=True))


def source_mask(prepared: Prepared, volume: Volume) -> np.ndarray:
    """The brain on the source grid, (slices, rows, columns) bool: where `to_source` puts values."""
    mask: np.ndarray = to_source(np.ones((1, *prepared.mask.shape), np.float32), prepared, volume)[0] > 0
    return mask


def window(hu: np.ndarray) -> np.ndarray:
    """0 HU and less to -1, 80 HU and more to 1, whatever window the header suggests."""
    low, high = WINDOW
    planes: np.ndarray = (np.clip(hu, low, high) - low) * (2.0 / (high - low)) - 1.0
    return planes


def _axes(volume: Volume) -> np.ndarray:
    """The signed in-plane directions nearest to left and back, and the normal towards the head; (3, 3) rows."""
    row, column = volume.row_direction, volume.column_direction
    if abs(row[0]) + abs(column[1]) >= abs(row[1]) + abs(column[0]):
        left, back = row, column
    else:
        left, back = column, row
    left = left * np.copysign(1.0, left[0])
    back = back * np.copysign(1.0, back[1])
    return np.stack([left, back, np.cross(left, back)])


def _source_plane(volume: Volume, axes: np.ndarray, position: np.ndarray) -> Plane:
    rows, columns = volume.hu.shape[1:]
    between_rows, between_columns = volume.pixel_spacing
    # Each is (2,): how far one step along the columns, or along the rows, goes in x and in y; one of the two is 0.
    along_columns = np.rint(axes[:2] @ volume.row_direction) * between_columns
    along_rows = np.rint(axes[:2] @ volume.column_direction) * between_rows
    x, y = axes[:2] @ position
    if along_columns[0] == 0:
        return Plane(x + np.arange(rows) * along_rows[0], y + np.arange(columns) * along_columns[1], swapped=True)
    return Plane(x + np.arange(columns) * along_columns[0], y + np.arange(rows) * along_rows[1], swapped=False)


def _model_plane(origin: np.ndarray) -> Plane:
    steps = np.arange(SIDE) * SPACING
    return Plane(origin[0] + steps, origin[1] + steps, swapped=False)


def _head_centre(volume: Volume, axes: np.ndarray) -> np.ndarray:
    """(2,) mean place of soft tissue in x and y; the middle of the field of view where there is none."""
    low, high = SOFT_TISSUE
    total, weight = np.zeros(2), 0
    for hu, position in zip(volume.hu, volume.positions, strict=True):
        source = _source_plane(volume, axes, position)
        soft = (hu > low) & (hu < high)
        soft = soft.T if source.swapped else soft
        total += [soft.sum(axis=0) @ source.x, soft.sum(axis=1) @ source.y]
        weight += int(soft.sum())
    if weight == 0:
        middle = _source_plane(volume, axes, volume.positions.mean(axis=0))
        return np.array([middle.x.mean(), middle.y.mean()])
    return total / weight


def _off_centre(mask: np.ndarray) -> tuple[int, int]:
    """Rows and columns from the middle of the grid to the middle of the box around the brain."""
    if not mask.any():
        return 0, 0
    boxes = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    rows, columns = (int(np.rint((box[0] + box[-1] - (SIDE - 1)) / 2)) for box in boxes)
    return rows, columns


def _with_neighbours(hu: np.ndarray, mask: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """(slices, 3, 256, 256): each slice with the head below and above it; heights ascend, the ends are repeated."""
    stripped = np.where(mask, hu, np.float32(WINDOW[0]))
    index = np.interp(np.add.outer(heights, NEIGHBOURS), heights, np.arange(len(heights)))
    low = np.minimum(index.astype(int), len(heights) - 2)
    upper = (index - low).astype(np.float32)[..., None, None]
    planes = np.empty((len(hu), len(NEIGHBOURS), SIDE, SIDE), np.float32)
    for s in range(len(hu)):
        planes[s] = window(stripped[low[s]] * (1 - upper[s]) + stripped[low[s] + 1] * upper[s])
        planes[s, :, ~mask[s]] = -1.0
    return planes


def _resample(values: np.ndarray, source: Plane, target: Plane, fill: float) -> np.ndarray:
    """(..., rows, columns) values of one plane at the pixels of another, linearly; `fill` outside the source."""
    values = np.swapaxes(values, -1, -2) if source.swapped else values
    values = _along(values, source.y, target.y, -2, fill)
    values = _along(values, source.x, target.x, -1, fill)
    return np.swapaxes(values, -1, -2) if target.swapped else values


def _along(values: np.ndarray, lines: np.ndarray, wanted: np.ndarray, axis: int, fill: float) -> np.ndarray:
    """Linear interpolation along one axis from evenly spaced coordinates `lines` to coordinates `wanted`.

    Where the target is coarser, the mean of three places (weights 1, 2, 1) around each one keeps noise from folding
    and, being symmetric, displaces nothing.
    """
    step, target_step = lines[1] - lines[0], wanted[1] - wanted[0]
    reach = np.sqrt(max(target_step**2 - step**2, 0.0)) / 2
    if reach == 0.0:
        return _at(values, (wanted - lines[0]) / step, axis, fill)
    below, here, above = (_at(values, (wanted + shift - lines[0]) / step, axis, fill) for shift in (-reach, 0, reach))
    mean: np.ndarray = (below + 2 * here + above) / 4
    return mean


def _at(values: np.ndarray, index: np.ndarray, axis: int, fill: float) -> np.ndarray:
    """Values at fractional indices of one of the last two axes; the outer half of an end pixel takes its value."""
    count = values.shape[axis]
    low = np.clip(np.floor(index).astype(int), 0, count - 2)
    upper = np.clip(index - low, 0.0, 1.0).astype(np.float32)
    outside = (index < -0.5) | (index > count - 0.5)
    shape = (-1, 1) if axis == -2 else (1, -1)
    result: np.ndarray = np.take(values, low, axis) * (1 - upper.reshape(shape))
    result += np.take(values, low + 1, axis) * upper.reshape(shape)
    result[..., outside.reshape(shape) & np.ones(result.shape[-2:], bool)] = fill
    return result
