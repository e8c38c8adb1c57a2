"""How far a predicted map lies from the true one, in the map's own unit, over the whole image, the box and the brain.

SSIM equals scikit-image 0.26 (7x7 uniform window, sample covariance, data_range = range of the map; design.md contract
14), UQI equals sewar 0.4.10 (8x8 window); the value over the brain is the mean of the local map over the mask. Three
quarters of an image are background that any prediction gets right, so the whole image says little (models.md 0.5) and
neither is ever an acceptance figure alone.
Dimensions: S slices, Y X space; V the values of the voxels of an area.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import rankdata

from inference import regions
from inference.maps import MapKind
from inference.regions import Regions

Area = Literal["whole", "box", "mask"]
AREAS: tuple[Area, ...] = get_args(Area)
SSIM_WINDOW, UQI_WINDOW = 7, 8  # pixels
EVERYWHERE = (slice(None), slice(None))
K1, K2 = 0.01, 0.03  # Wang et al., IEEE Trans Image Process 2004;13:600-612


def ssim_map(true_YX: np.ndarray, predicted_YX: np.ndarray, data_range: float) -> np.ndarray:
    """Equation 9 of paper 001 at every pixel, (Y, X) float64."""
    true, predicted = true_YX.astype(np.float64), predicted_YX.astype(np.float64)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean_t, mean_p = _window(true, SSIM_WINDOW), _window(predicted, SSIM_WINDOW)
    variance_t = sample * (_window(true * true, SSIM_WINDOW) - mean_t**2)
    variance_p = sample * (_window(predicted * predicted, SSIM_WINDOW) - mean_p**2)
    covariance = sample * (_window(true * predicted, SSIM_WINDOW) - mean_t * mean_p)
    likeness: np.ndarray = (2 * mean_t * mean_p + c1) * (2 * covariance + c2)
    likeness /= (mean_t**2 + mean_p**2 + c1) * (variance_t + variance_p + c2)
    return likeness


def uqi_map(true_YX: np.ndarray, predicted_YX: np.ndarray, data_range: float = 1.0) -> np.ndarray:
    """Equation 10 of paper 001 at every pixel, (Y, X) float64; 1 where both are flat and dark. It knows no range.

    Like sewar, it puts window means where the formula has window sums: each variance is larger by (N - 1) / N of the
    squared mean, N = 64. Figures compare with others made by sewar, not with Wang and Bovik's own.
    """
    true, predicted = true_YX.astype(np.float64), predicted_YX.astype(np.float64)
    n = UQI_WINDOW**2
    mean_t, mean_p = _window(true, UQI_WINDOW), _window(predicted, UQI_WINDOW)
    product, squares = mean_t * mean_p, mean_t**2 + mean_p**2
    spread = n * (_window(true * true, UQI_WINDOW) + _window(predicted * predicted, UQI_WINDOW)) - squares
    together = n * _window(true * predicted, UQI_WINDOW) - product
    index = np.ones(true.shape)
    flat = (spread == 0) & (squares != 0)
    index[flat] = 2 * product[flat] / squares[flat]
    usual = spread * squares != 0
    index[usual] = 4 * (together * product)[usual] / (spread * squares)[usual]
    return index


def _window(values_YX: np.ndarray, side: int) -> np.ndarray:
    mean: np.ndarray = uniform_filter(values_YX, side)
    return mean


@dataclass(frozen=True, slots=True)
class Windowed:
    """A metric with a value at every pixel. border: pixels at each edge that the mean of an image leaves out."""

    local: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    border: int

    def within(self, local_YX: np.ndarray, part: tuple[slice, slice]) -> float:
        """The mean over a part of an image whose windows lie inside that part, nan where it is smaller than one.

        It equals the metric of the part cut out by itself.
        """
        inner = local_YX[part][self.border : -self.border, self.border : -self.border]
        return float(inner.mean()) if inner.size else float("nan")


def mae(true_V: np.ndarray, predicted_V: np.ndarray, data_range: float) -> float:
    """Mean absolute error, in the unit of the map."""
    return float(np.abs(predicted_V - true_V).mean())


def psnr(true_V: np.ndarray, predicted_V: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, the peak being the range of the map; infinite for equal maps."""
    squared = float(((predicted_V - true_V) ** 2).mean())
    return float(10 * np.log10(data_range**2 / squared)) if squared else float("inf")


def nrmse(true_V: np.ndarray, predicted_V: np.ndarray, data_range: float) -> float:
    """Root mean squared error over the root mean square of a physical truth (models.md B2); nan where that is 0."""
    norm = float(np.linalg.norm(true_V))
    return float(np.linalg.norm(predicted_V - true_V)) / norm if norm else float("nan")


WINDOWED: Mapping[str, Windowed] = {
    "ssim": Windowed(ssim_map, (SSIM_WINDOW - 1) // 2),
    "uqi": Windowed(uqi_map, UQI_WINDOW // 2),
}
POINTWISE: Mapping[str, Callable[[np.ndarray, np.ndarray, float], float]] = {"mae": mae, "psnr": psnr, "nrmse": nrmse}


def compare(true_SYX: np.ndarray, predicted_SYX: np.ndarray, mask_SYX: np.ndarray, kind: MapKind) -> dict[str, float]:
    """Every metric over every area of one patient: "ssim_mask", "mae_box" and so on, without slices without brain.

    Both maps in the unit of the kind; clipped to its range, which is all that an 8-bit picture or a generator can show.
    """
    held = mask_SYX.any(axis=(1, 2))
    true, predicted = (np.clip(maps[held], 0.0, kind.ceiling).astype(np.float64) for maps in (true_SYX, predicted_SYX))
    mask = mask_SYX[held]
    return dict(_windowed(true, predicted, mask, kind.ceiling)) | dict(_pointwise(true, predicted, mask, kind.ceiling))


def _windowed(true: np.ndarray, predicted: np.ndarray, mask: np.ndarray, top: float) -> Iterator[tuple[str, float]]:
    """Whole image and box: the mean over slices; mask: the mean over its voxels."""
    boxes = [box(slice_mask) for slice_mask in mask]
    for name, metric in WINDOWED.items():
        local = np.stack([metric.local(t, p, top) for t, p in zip(true, predicted, strict=True)])
        yield f"{name}_whole", float(np.mean([metric.within(one, EVERYWHERE) for one in local]))
        boxed = [metric.within(one, part) for one, part in zip(local, boxes, strict=True)]
        yield f"{name}_box", float(np.nanmean(boxed)) if np.isfinite(boxed).any() else float("nan")
        yield f"{name}_mask", float(local[mask].mean())


def _pointwise(true: np.ndarray, predicted: np.ndarray, mask: np.ndarray, top: float) -> Iterator[tuple[str, float]]:
    for area, where in areas(mask).items():
        for name, metric in POINTWISE.items():
            yield f"{name}_{area}", metric(true[where], predicted[where], top)


def areas(mask_SYX: np.ndarray) -> dict[Area, np.ndarray]:
    """(S, Y, X) bool of each area; the box is that of each slice's own brain."""
    boxes = np.zeros_like(mask_SYX)
    for filled, slice_mask in zip(boxes, mask_SYX, strict=True):
        filled[box(slice_mask)] = True
    return {"whole": np.ones_like(mask_SYX), "box": boxes, "mask": mask_SYX}


def box(mask_YX: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold a mask; the mask must not be empty."""
    rows, columns = (np.flatnonzero(mask_YX.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def lesions(true: Regions, predicted: Regions, left: np.ndarray, voxel_ml: float | np.ndarray) -> dict[str, float]:
    """How well the regions of one patient were found; `left` and `voxel_ml` as in regions.find.

    dice_core, dice_hypoperfused: nan where neither map has the region.
    bias_core_ml, bias_hypoperfused_ml: predicted volume less the true one.
    false_hypoperfused_ml: predicted outside the true one.
    side_right: whether the hypoperfused tissue lies on the true side, 1 or 0; nan where the truth has none.
    """
    side, found = (regions.side(each.hypoperfused, left, voxel_ml) for each in (true, predicted))
    return {
        "dice_core": dice(true.core, predicted.core),
        "dice_hypoperfused": dice(true.hypoperfused, predicted.hypoperfused),
        "bias_core_ml": predicted.core_ml - true.core_ml,
        "bias_hypoperfused_ml": predicted.hypoperfused_ml - true.hypoperfused_ml,
        "false_hypoperfused_ml": regions.volume(predicted.hypoperfused & ~true.hypoperfused, voxel_ml),
        "side_right": float("nan") if side is None else float(found == side),
    }


def dice(true: np.ndarray, predicted: np.ndarray) -> float:
    """Twice the common volume over the sum of both regions; nan where both are empty."""
    together = int(true.sum()) + int(predicted.sum())
    return 2.0 * int((true & predicted).sum()) / together if together else float("nan")


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half; nan without both."""
    labels = labels.astype(bool)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))
