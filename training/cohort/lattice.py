"""A console's map in space: planes of values, stacked, and looked up at any point of the patient.

A map is an inference.volume.Volume whose `hu` holds values in the unit of its kind, nan where there is no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom import Dataset
from scipy.ndimage import map_coordinates

from inference import volume
from inference.maps import MapKind
from inference.volume import Volume
from training.cohort import Rejected
from training.cohort.series import Series

FEWEST_SLICES = 2  # of a map; a slab of CT perfusion may be thin
KNOWN = 0.5  # of the weights of an interpolation; with less there is no data


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A map in space. warnings: sentences for the report. borrowed: of which series its geometry is, if of another."""

    kind: MapKind
    values: Volume
    frame_of_reference: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One plane: values (rows, columns), position (3,), cosines (6,), spacing between rows and columns, thickness."""

    values: np.ndarray
    position: np.ndarray
    cosines: np.ndarray
    spacing: tuple[float, float]
    thickness: float


def whole(series: Series) -> list[Dataset]:
    """Its instances with their pixels."""
    return [pydicom.dcmread(path) for path, _ in series.files]


def stack(frames: Sequence[Frame], series: Series) -> Volume:
    """Planes in any order to a volume, ascending along the normal."""
    first = frames[0]
    if any(np.abs(one.cosines - first.cosines).max() > 1e-3 or one.spacing != first.spacing for one in frames):
        raise Rejected(f"{series} has planes of different orientation or pixel spacing")
    row, column = first.cosines[:3], first.cosines[3:]
    order = np.argsort([one.position @ np.cross(row, column) for one in frames], kind="stable")
    positions = np.stack([frames[i].position for i in order])
    steps = np.diff(positions @ np.cross(row, column))
    if len(frames) < FEWEST_SLICES or steps.min() < volume.SAME_POSITION:
        raise Rejected(f"{series} has {len(frames)} planes, of which some lie at the same place or are too few")
    return Volume(
        hu=np.stack([frames[i].values for i in order]).astype(np.float32),
        positions=positions,
        row_direction=row,
        column_direction=column,
        pixel_spacing=first.spacing,
        slice_thickness=first.thickness or float(np.median(steps)),
        order=tuple(int(i) for i in order),
    )


def sample(values: Volume, points: np.ndarray) -> np.ndarray:
    """A volume at points (..., 3) in LPS mm, linearly; nan outside and where most of the neighbours are nan.

    Each slice keeps its own place, so a gantry tilt is undone on the way. End slices reach half their thickness out.
    """
    offsets = values.offsets
    along = points @ values.normal
    plane = np.interp(along, offsets, np.arange(len(offsets)))
    first = np.stack([np.interp(along, offsets, axis) for axis in values.positions.T], axis=-1)
    between_rows, between_columns = values.pixel_spacing
    row = (points - first) @ values.column_direction / between_rows
    column = (points - first) @ values.row_direction / between_columns
    places = np.stack([plane, row, column])
    known = np.isfinite(values.hu)
    weight = map_coordinates(known.astype(np.float32), places, order=1, cval=0.0)
    total = map_coordinates(np.where(known, values.hu, np.float32(0.0)), places, order=1, cval=0.0)
    reach = values.slice_thickness / 2
    inside = (along >= offsets[0] - reach) & (along <= offsets[-1] + reach) & (weight >= KNOWN)
    sampled: np.ndarray = np.where(inside, total / np.maximum(weight, KNOWN), np.nan).astype(np.float32)
    return sampled
