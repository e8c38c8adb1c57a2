"""Trivial predictions that a model has to beat before anything is called better (design.md 6).

All are fitted on training patients only, and are 0 outside the brain. The copy of the NCCT is for SSIM and UQI alone:
its grey levels have no unit.
Dimensions: S slices, L levels, C channels, K map kinds, Y X space, V voxels of a brain.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.ndimage import map_coordinates

from inference.maps import KINDS
from inference.preprocess import WINDOW
from training.data import Arrays, CohortError, Patient, read_arrays

TARGET = 1  # channel of the planes: below, the slice itself, above
HU_BINS = 40  # of 2 HU each over the window
VALUE_BINS = 600  # over the range of a map, for its median
LEVELS, CELLS = 16, 96  # of the mean map: from the lowest to the highest slice of a brain, and across it
REACH = 2.6  # standard deviations of a brain's pixels about their middle that the mean map covers; an ellipse ends at 2
SIMILARITY_ONLY = frozenset({"ncct copy"})


class Baseline(Protocol):
    """Something that makes maps without having learnt to."""

    def predict(self, arrays: Arrays) -> np.ndarray:
        """(S, K, Y, X) float32 in the unit of each kind, 0 outside the brain."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """The same value in every brain voxel. values: (K,), zeros or the medians, which no constant beats in MAE."""

    values: np.ndarray

    def predict(self, arrays: Arrays) -> np.ndarray:
        """See Baseline."""
        return _within(arrays.mask, self.values[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class TissueMean:
    """The mean of training voxels with the same Hounsfield units. means: (K, bins)."""

    means: np.ndarray

    def predict(self, arrays: Arrays) -> np.ndarray:
        """See Baseline."""
        return _within(arrays.mask, self.means[:, hu_bins(arrays)])


@dataclass(frozen=True, slots=True, eq=False)
class MeanMap:
    """The mean of the training maps after each brain was laid over the others. means: (K, L, Y, X)."""

    means: np.ndarray

    def predict(self, arrays: Arrays) -> np.ndarray:
        """See Baseline."""
        places = Pose.of(arrays.mask).to_cells(np.argwhere(arrays.mask).T)
        return _within(
            arrays.mask, np.stack([map_coordinates(mean, places, order=1, mode="nearest") for mean in self.means])
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """The CT itself, black at 0 and white at the ceiling of every map."""

    ceilings: tuple[float, ...]

    def predict(self, arrays: Arrays) -> np.ndarray:
        """See Baseline."""
        grey_V = (arrays.planes[:, TARGET][arrays.mask].astype(np.float32) + 1.0) / 2.0
        return _within(arrays.mask, np.outer(self.ceilings, grey_V))


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """How a brain lies on its slices: its middle, and its axes from the second moments of its pixels.

    first, last: slices with brain; middle: (2,) row and column; axes: (2, 2), columns are the axes nearest to the
    rows' and the columns' direction, each as long as a standard deviation in pixels.
    """

    first: int
    last: int
    middle: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, mask_SYX: np.ndarray) -> "Pose":
        """The pose of a brain mask that is not empty."""
        slices = np.flatnonzero(mask_SYX.any(axis=(1, 2)))
        pixels = np.argwhere(mask_SYX)[:, 1:].astype(np.float64)
        lengths, vectors = np.linalg.eigh(np.cov(pixels.T))
        order = [int(np.abs(vectors[0]).argmax()), int(np.abs(vectors[0]).argmin())]
        axes = vectors[:, order] * np.sqrt(lengths[order])
        return cls(int(slices[0]), int(slices[-1]), pixels.mean(axis=0), axes * np.sign(np.diag(axes)))

    def to_cells(self, voxels: np.ndarray) -> np.ndarray:
        """(3, n) slice, row and column to (3, n) level, row and column of the mean map."""
        height = (voxels[0] - self.first) / max(self.last - self.first, 1)
        across = np.linalg.solve(self.axes, voxels[1:] - self.middle[:, None]) / REACH
        return np.concatenate([height[None] * (LEVELS - 1), (across + 1) / 2 * (CELLS - 1)])

    def to_voxels(self, cells: np.ndarray) -> np.ndarray:
        """(3, n) level, row and column of the mean map to (3, n) slice, row and column."""
        across = self.axes @ ((cells[1:] / (CELLS - 1) * 2 - 1) * REACH) + self.middle[:, None]
        return np.concatenate([cells[:1] / (LEVELS - 1) * (self.last - self.first) + self.first, across])


class Sums:
    """What has been seen of the training patients."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.ceilings = np.array([KINDS[kind].ceiling for kind in kinds])
        self.histogram = np.zeros((len(kinds), VALUE_BINS))
        self.tissue, self.tissue_counts = np.zeros((len(kinds), HU_BINS)), np.zeros(HU_BINS)
        self.cells, self.cell_counts = np.zeros((len(kinds), LEVELS * CELLS**2)), np.zeros(LEVELS * CELLS**2)

    def add(self, arrays: Arrays) -> None:
        """Take in one patient; one without brain adds nothing."""
        if not arrays.mask.any():
            return
        values_KV = np.clip(arrays.maps.swapaxes(0, 1)[:, arrays.mask].astype(np.float32), 0.0, self.ceilings[:, None])
        bins_V = hu_bins(arrays)
        self.tissue_counts += np.bincount(bins_V, minlength=HU_BINS)
        for k, values_V in enumerate(values_KV):
            self.histogram[k] += np.histogram(values_V, VALUE_BINS, (0.0, self.ceilings[k]))[0]
            self.tissue[k] += np.bincount(bins_V, values_V, HU_BINS)
        self._add_cells(arrays)

    def _add_cells(self, arrays: Arrays) -> None:
        places = Pose.of(arrays.mask).to_voxels(np.indices((LEVELS, CELLS, CELLS)).reshape(3, -1))
        self.cell_counts += map_coordinates(arrays.mask.astype(np.float32), places, order=1)
        for k, ceiling in enumerate(self.ceilings):
            values = np.clip(arrays.maps[:, k].astype(np.float32), 0.0, ceiling) * arrays.mask
            self.cells[k] += map_coordinates(values, places, order=1)

    def medians(self) -> np.ndarray:
        """(K,) to within a six hundredth of each range."""
        share = self.histogram.cumsum(axis=1) / self.histogram.sum(axis=1, keepdims=True)
        middle: np.ndarray = ((share >= 0.5).argmax(axis=1) + 0.5) * self.ceilings / VALUE_BINS
        return middle

    def means(self) -> np.ndarray:
        """(K,) over all brain voxels."""
        mean: np.ndarray = self.tissue.sum(axis=1) / self.tissue_counts.sum()
        return mean


def fit(patients: Iterable[Patient], kinds: Sequence[str]) -> Mapping[str, Baseline]:
    """All baselines by name; raises CohortError for a patient that is not of the split "train"."""
    sums = Sums(kinds)
    for patient in patients:
        if patient.split != "train":
            raise CohortError(
                f"patient {patient.patient_id} is in {patient.split}; baselines are fitted on train alone"
            )
        sums.add(read_arrays(patient, kinds))
    if not sums.tissue_counts.any():
        raise CohortError("there is no brain to fit baselines on; name a cohort with patients of the split train")
    overall = sums.means()[:, None]
    return {
        "zero": Constant(np.zeros(len(kinds))),
        "constant": Constant(sums.medians()),
        "tissue mean": TissueMean(_ratio(sums.tissue, sums.tissue_counts, overall)),
        "mean map": MeanMap(_ratio(sums.cells, sums.cell_counts, overall).reshape(len(kinds), LEVELS, CELLS, CELLS)),
        "ncct copy": Copy(tuple(sums.ceilings)),
    }


def hu_bins(arrays: Arrays) -> np.ndarray:
    """(V,) the bin of every brain voxel, from its own slice."""
    low, high = WINDOW
    hu_V = (arrays.planes[:, TARGET][arrays.mask].astype(np.float32) + 1.0) * ((high - low) / 2) + low
    bins: np.ndarray = np.clip((hu_V - low) * HU_BINS / (high - low), 0, HU_BINS - 1).astype(int)
    return bins


def _ratio(sums: np.ndarray, counts: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Means, and the mean of the whole brain where nothing was seen."""
    mean: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1e-9), otherwise)
    return mean


def _within(mask_SYX: np.ndarray, values_KV: np.ndarray) -> np.ndarray:
    """(S, K, Y, X) float32 with values in the brain, (K, V) or (K, 1), and 0 outside."""
    maps_KSYX = np.zeros((len(values_KV), *mask_SYX.shape), np.float32)
    maps_KSYX[:, mask_SYX] = values_KV
    return maps_KSYX.swapaxes(0, 1)
