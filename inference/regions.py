"""Core, hypoperfused tissue and mismatch from the maps of CBF and Tmax (design.md contract 13, models.md D12, D13).

Reports, objects, metrics and evaluation all call `find`, so that a volume means the same wherever it is printed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from inference.volume import Volume

HYPOPERFUSED = 6.0  # s, Tmax of hypoperfused tissue is more
HEALTHY = 4.0  # s, Tmax of tissue that lends its CBF as the reference is less
CORE = 0.30  # of the reference CBF
LEAST = 1.0  # ml, smaller clusters are dropped
BANDS = ((4.0, 6.0), (6.0, 8.0), (8.0, 10.0), (10.0, float("inf")))  # s, above the first and up to the second
SEVERE = 0.5  # core over hypoperfused; more is severe, in the words of paper 001

Severity = Literal["none", "mild", "severe"]
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What two maps say about a brain.

    core, hypoperfused: (slices, rows, columns) bool, the core lies within the hypoperfused tissue.
    reference_cbf: ml/100 g/min, of healthy tissue; nan where there is none, and then there is no core either.
    """

    core: np.ndarray
    hypoperfused: np.ndarray
    reference_cbf: float
    core_ml: float
    hypoperfused_ml: float

    @property
    def mismatch_ml(self) -> float:
        """Hypoperfused without core, ml."""
        return self.hypoperfused_ml - self.core_ml

    @property
    def mismatch_ratio(self) -> float | None:
        """Hypoperfused over core; undefined without a core."""
        return self.hypoperfused_ml / self.core_ml if self.core_ml else None

    @property
    def core_to_penumbra_ratio(self) -> float:
        """Core over hypoperfused, the ratio of paper 001 (models.md A19); 0 where nothing is hypoperfused."""
        return self.core_ml / self.hypoperfused_ml if self.hypoperfused_ml else 0.0

    @property
    def severity(self) -> Severity:
        """none at a ratio of 0, mild up to 0.5, severe above (models.md D13)."""
        ratio = self.core_to_penumbra_ratio
        return "none" if ratio == 0.0 else "mild" if ratio <= SEVERE else "severe"


def find(
    cbf: np.ndarray, tmax: np.ndarray, brain: np.ndarray, left: np.ndarray, voxel_ml: float | np.ndarray
) -> Regions:
    """The regions of one brain.

    cbf, tmax: (slices, rows, columns) in ml/100 g/min and s; brain: bool, the same shape.
    left: bool, the patient's left half, anything that broadcasts to that shape (`left_half` on the model grid).
    voxel_ml: volume of a voxel, or one for each slice where they lie unevenly.
    """
    volumes = np.broadcast_to(np.asarray(voxel_ml, np.float64), len(brain))
    late = brain & (tmax > HYPOPERFUSED)
    reference = _reference(cbf, tmax, brain, late, left, volumes)
    hypoperfused = without_specks(late, volumes)
    core = without_specks(hypoperfused & (cbf < CORE * reference), volumes)
    return Regions(core, hypoperfused, reference, volume(core, volumes), volume(hypoperfused, volumes))


def on_source(head: Volume, cbf: np.ndarray, tmax: np.ndarray, brain: np.ndarray) -> Regions:
    """The regions on the grid of the source slices, however these lie; all (slices, rows, columns) as in `find`."""
    return find(cbf, tmax, brain, _left_of_middle(head, brain), slice_voxel_ml(head))


def slice_voxel_ml(head: Volume) -> np.ndarray:
    """(slices,) ml that a voxel of each slice stands for: half way to its neighbours, however unevenly they lie."""
    between_rows, between_columns = head.pixel_spacing
    each: np.ndarray = np.gradient(head.offsets) * between_rows * between_columns / 1000.0
    return each


def _left_of_middle(head: Volume, brain: np.ndarray) -> np.ndarray:
    """(slices, rows, columns) bool: nearer to the patient's left than the middle of the brain's box."""
    _, rows, columns = brain.shape
    between_rows, between_columns = head.pixel_spacing
    down = np.arange(rows)[:, None] * between_rows * head.column_direction[0]
    along = np.arange(columns) * between_columns * head.row_direction[0]
    x = head.positions[:, 0, None, None] + down + along
    inside = x[brain]
    left: np.ndarray = x > ((inside.min() + inside.max()) / 2 if inside.size else 0.0)
    return left


def bands(tmax: np.ndarray, brain: np.ndarray, voxel_ml: float | np.ndarray) -> list[np.ndarray]:
    """(slices, rows, columns) bool, the tissue of each of BANDS; no voxel is in two.

    Clusters of under 1 ml are dropped from all that is later than 4 s, and from all that is later than 6 s, so that the
    bands beyond 6 s make up the hypoperfused tissue of `find`.
    """
    volumes = np.broadcast_to(np.asarray(voxel_ml, np.float64), len(brain))
    later = [without_specks(brain & (tmax > low), volumes) for low in (BANDS[0][0], HYPOPERFUSED)]
    return [later[low >= HYPOPERFUSED] & (tmax > low) & (tmax <= high) for low, high in BANDS]


def volume(region: np.ndarray, voxel_ml: float | np.ndarray) -> float:
    """ml of a region, (slices, rows, columns) bool."""
    return float((region.sum(axis=(1, 2)) * voxel_ml).sum())


def without_specks(region: np.ndarray, voxel_ml: float | np.ndarray) -> np.ndarray:
    """The region without its clusters of less than 1 ml; voxels that share a face belong together."""
    image = sitk.GetImageFromArray(region.astype(np.uint8))
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image))
    weights = np.broadcast_to(np.reshape(voxel_ml, (-1, 1, 1)), labels.shape)
    sizes = np.bincount(labels.ravel(), weights.ravel())
    sizes[0] = 0.0  # the background
    kept: np.ndarray = (sizes >= LEAST)[labels]
    return kept


def left_half(brain: np.ndarray) -> np.ndarray:
    """(1, 1, columns) bool, the patient's left on the model grid: the columns beyond the middle of the brain's box."""
    columns = np.flatnonzero(brain.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2 if columns.size else (brain.shape[2] - 1) / 2
    left: np.ndarray = (np.arange(brain.shape[2]) > middle)[None, None]
    return left


def side(region: np.ndarray, left: np.ndarray, voxel_ml: float | np.ndarray = 1.0) -> Side | None:
    """Where more of a region lies; None where it is empty or even."""
    difference = volume(region & left, voxel_ml) - volume(region & ~left, voxel_ml)
    return None if difference == 0 else "left" if difference > 0 else "right"


def _reference(
    cbf: np.ndarray, tmax: np.ndarray, brain: np.ndarray, late: np.ndarray, left: np.ndarray, voxel_ml: np.ndarray
) -> float:
    """Median CBF of brain with Tmax under 4 s in the half with less Tmax over 6 s, the left one where they are even."""
    half = ~left if side(late, left, voxel_ml) == "left" else left
    healthy = cbf[brain & half & (tmax < HEALTHY)]
    return float(np.median(healthy)) if healthy.size else float("nan")
