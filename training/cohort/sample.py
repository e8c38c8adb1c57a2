"""One pair to samples: the head through the node's own preprocessing, the maps onto its slices.

The head stays on its own slices, as the node will see it, and the maps move: whatever is interpolated is the target,
never the input. Where the maps have no data the sample has no brain: mask false, planes -1, maps 0.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset

from inference import preprocess, quality, regions, volume
from inference.preprocess import SIDE, SPACING, ModelGrid, Prepared
from inference.volume import Volume
from training.cohort import Rejected, lattice, maps
from training.cohort.captures import Styles
from training.cohort.lattice import FEWEST_SLICES, Placed
from training.cohort.pairing import Pair
from training.cohort.registration import Registration, register
from training.cohort.series import Series
from training.prepare import chosen

EARLIEST = 2  # frames of a CT perfusion whose mean is its baseline; no contrast has come yet
LEAST_SHARE = 0.5  # of the brain that must have perfusion where there are maps; else the two do not fit
SQUARE = 16  # pixels of the checkerboard


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What is written for a patient: the arrays of training.data, facts for the manifest, warnings for the report.

    facts: with "class", None where the kinds do not tell. board: (256, n * 256) uint8, head CT and perfusion (baseline,
    else the first map) in alternate squares.
    """

    planes: np.ndarray
    maps: np.ndarray
    mask: np.ndarray
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    board: np.ndarray


def make(pair: Pair, slices: int, styles: Styles) -> Samples:
    """Raises Rejected or inference.refusal.Refused where the pair cannot be used."""
    head = volume.from_slices([pydicom.dcmread(path) for path, _ in pair.ncct.files])
    prepared = preprocess.prepare(head)
    warnings = list(quality.judge(head, prepared))
    placed = [maps.read(series, _lenders(pair), styles) for series in pair.maps.values()]
    baseline = _baseline(pair, placed)
    found = register(baseline, head) if baseline else None
    if found is None:
        warnings.append("not registered: there is no CT perfusion, and the maps' frame of reference was believed")
    to_maps = np.linalg.inv(found.matrix) if found else np.eye(4)
    values_KSYX = np.stack([_within(one.values, prepared.grid, prepared.mask, to_maps) for one in placed])
    known = prepared.mask & np.isfinite(values_KSYX).all(axis=0)
    _check_overlap(values_KSYX, known, prepared.mask)
    values_KSYX = np.where(known, np.maximum(values_KSYX, 0.0), 0.0)
    kept = _kept(known, placed[0].values, prepared.grid, to_maps, slices)
    return Samples(
        planes=np.where(known[kept, None], prepared.planes[kept], -1.0).astype(np.float16),
        maps=values_KSYX[:, kept].swapaxes(0, 1).astype(np.float16),
        mask=known[kept],
        facts=_severity(list(pair.maps), values_KSYX, known, prepared.grid)
        | _facts(pair, prepared.grid, kept, to_maps, found),
        warnings=(*warnings, *(warning for one in placed for warning in one.warnings)),
        board=_board(prepared, kept, to_maps, baseline or placed[0].values),
    )


def _lenders(pair: Pair) -> list[Series]:
    return [one for one in (pair.ctp, pair.ncct) if one]


def _baseline(pair: Pair, placed: Sequence[Placed]) -> Volume | None:
    """The perfusion scan before contrast, in the frame of the maps; None where the head CT is in that frame anyway."""
    frames = {one.frame_of_reference for one in placed}
    if len(frames) > 1:
        raise Rejected(f"the maps lie in {len(frames)} frames of reference; one is needed")
    if pair.ctp and pair.ctp.frame_of_reference in frames:
        return baseline(pair.ctp)
    if pair.ncct.frame_of_reference in frames - {""}:
        return None
    raise Rejected("neither CT perfusion nor head CT lies in the frame of reference of the maps: nothing to register")


def baseline(ctp: Series) -> Volume:
    """The mean of the first frames of a CT perfusion."""
    positions: dict[tuple[float, ...], list[tuple[tuple[Any, ...], Any]]] = defaultdict(list)
    for path, ds in ctp.files:
        positions[tuple(round(float(v), 1) for v in ds.ImagePositionPatient)].append((_order(ds), path))
    frames = []
    for frame in range(EARLIEST):
        paths = [
            sorted(times, key=lambda pair: pair[0])[frame][1] for times in positions.values() if len(times) > frame
        ]
        frames.append(volume.from_slices([pydicom.dcmread(path) for path in paths], FEWEST_SLICES))
    if len({len(one.hu) for one in frames}) > 1:
        raise Rejected("the first frames of the CT perfusion have different numbers of slices")
    return replace(frames[0], hu=np.stack([one.hu for one in frames]).mean(axis=0))


def _order(ds: Dataset) -> tuple[str, float, int, int]:
    """Of the frames at one position: by time, and where the scanner says none, by its numbers."""
    numbers = (int(ds.get(name) or 0) for name in ("TemporalPositionIdentifier", "InstanceNumber"))
    return str(ds.get("AcquisitionDate") or ""), float(ds.get("AcquisitionTime") or 0.0), *numbers  # type: ignore[return-value]  # two


def _within(values: Volume, grid: ModelGrid, brain: np.ndarray, to_maps: np.ndarray) -> np.ndarray:
    """(slices, 256, 256) float32: a volume in the frame of the maps at the brain on the model grid; nan elsewhere."""
    found = np.full(brain.shape, np.nan, np.float32)
    for s, (mask, height) in enumerate(zip(brain, grid.heights, strict=True)):
        rows, columns = np.nonzero(mask)
        across = grid.origin + SPACING * np.stack([columns, rows], axis=-1)
        points = np.column_stack([across, np.full(len(rows), height)]) @ grid.axes
        found[s][mask] = lattice.sample(values, points @ to_maps[:3, :3].T + to_maps[:3, 3])
    return found


def _check_overlap(values_KSYX: np.ndarray, known: np.ndarray, brain: np.ndarray) -> None:
    covered = np.isfinite(values_KSYX).all(axis=0).any(axis=(1, 2)) & brain.any(axis=(1, 2))
    if not covered.any():
        raise Rejected("the maps lie on no slice of the brain of the head CT")
    perfused = known & (np.nan_to_num(values_KSYX) > 0).any(axis=0)
    share = perfused[covered].sum() / brain[covered].sum()
    if share < LEAST_SHARE:
        raise Rejected(f"only {share:.0%} of the brain has values in the maps: the two do not lie over each other")


def _kept(known: np.ndarray, first: Volume, grid: ModelGrid, to_maps: np.ndarray, slices: int) -> np.ndarray:
    """Slices as training.prepare chooses them, but of those nearest to planes of the maps; 0 is all with any data."""
    if slices == 0:
        return chosen(known, 0)
    middle = grid.origin + SPACING * (SIDE - 1) / 2
    centres = np.stack([np.array([*middle, height]) @ grid.axes for height in grid.heights])
    along = (centres @ to_maps[:3, :3].T + to_maps[:3, 3]) @ first.normal
    nearest = np.unique(np.abs(along[None] - first.offsets[:, None]).argmin(axis=1))
    candidates = nearest[known[nearest].any(axis=(1, 2))]
    kept: np.ndarray = candidates[chosen(known[candidates], slices)]
    return kept


def _severity(kinds: list[str], values_KSYX: np.ndarray, known: np.ndarray, grid: ModelGrid) -> dict[str, Any]:
    """Class and volumes by inference.regions, where the maps tell them."""
    if not {"CBF", "Tmax"} <= set(kinds):
        return {"class": None}
    voxel_ml = np.abs(np.gradient(grid.heights)) * SPACING**2 / 1000.0
    cbf, tmax = (values_KSYX[kinds.index(kind)] for kind in ("CBF", "Tmax"))
    found = regions.find(cbf, tmax, known, regions.left_half(known), voxel_ml)
    return {
        "class": found.severity,
        "hypoperfused_ml": round(found.hypoperfused_ml, 2),
        "core_ml": round(found.core_ml, 2),
    }


def _facts(
    pair: Pair, grid: ModelGrid, kept: np.ndarray, to_maps: np.ndarray, found: Registration | None
) -> dict[str, Any]:
    """What is known of a patient and names nobody: where the samples lie, and how far to trust that."""
    simulated = pair.ncct.header.get("SyntheticData") == "YES"
    first = next(iter(pair.maps.values()))
    return {
        "slice_mm": float(np.abs(np.diff(grid.heights)).mean()),
        "kind": "virtual" if simulated else "clinical",
        "maps_from": str(first.header.SOPClassUID.name),
        "grid": {
            "axes": grid.axes.round(9).tolist(),
            "origin": grid.origin.round(6).tolist(),
            "heights": grid.heights[kept].round(6).tolist(),
        },
        "ncct_to_maps": to_maps.round(9).tolist(),
        "registration": {"shift_mm": round(found.shift, 2), "gain": round(found.gain, 3)} if found else None,
    }


def _board(prepared: Prepared, kept: np.ndarray, to_maps: np.ndarray, other: Volume) -> np.ndarray:
    """(256, n * 256) uint8: up to three slices, head CT and the other in alternate squares, each from its own black."""
    shown = kept[np.unique(np.linspace(0, len(kept) - 1, 5).astype(int)[1:4])]
    grid = ModelGrid(prepared.grid.axes, prepared.grid.origin, prepared.grid.heights[shown])
    brain = prepared.mask[shown]
    values = np.nan_to_num(_within(other, grid, brain, to_maps))
    low, high = np.percentile(values[brain], (1, 99))
    grey = np.where(brain, np.clip((values - low) / max(high - low, 1e-6), 0, 1), 0)
    head = (prepared.planes[shown, 1] + 1) / 2
    rows, columns = np.indices((SIDE, SIDE)) // SQUARE
    board = np.where((rows + columns) % 2 == 0, head, grey)
    picture: np.ndarray = (np.concatenate(list(board), axis=1) * 255).astype(np.uint8)
    return picture
