"""What every virtual patient starts from: tissue and distances on the ICBM152 2009a symmetric template.

The grey matter, white matter and T1 templates ship inside nilearn (licence notice in NOTICE); nothing is downloaded and
none of their files is kept here. What is derived from them takes half a minute once and is cached, keyed by the
digest of the three files and of the code that made it.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import nilearn
import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from training.simulate import anatomy
from training.simulate.anatomy import Point
from training.simulate.fields import BOX_LOW

TEMPLATE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
FINE = ("grey", "white", "fluid", "brain", "artery", "vein")  # 1 mm
COARSE = ("hull", "ventricle", "deep", "outwards_x", "outwards_y", "outwards_z")  # 2 mm
FAR = 9.0  # mm: distances to vessels are not needed beyond
HULL_CLOSING = 18.0  # mm, wide enough to bridge sulci and the Sylvian fissure
MIDLINE = -int(BOX_LOW[0])


@dataclass(frozen=True, slots=True)
class Atlas:
    """Static channels over the template, as lattices (channels, z, y, x) for `fields.sample`.

    fine: grey, white and fluid fractions; signed distances in mm, negative inside: brain, artery and vein walls.
    coarse: signed distances to the closed hull and to the ventricles, deep grey matter, and the gradient of the
        ventricle distance (x, y, z).
    segment: index into anatomy.SEGMENTS of the nearest artery; the left side follows the right one.
    """

    fine: Tensor
    coarse: Tensor
    segment: Tensor


@cache
def load() -> Atlas:
    """The atlas from the cache folder, built first where it is missing."""
    path = cache_folder() / f"atlas-{_digest()}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{os.getpid()}.npz")
        np.savez(partial, allow_pickle=False, **_build())
        partial.replace(path)  # another process may have been as quick; both wrote the same
    with np.load(path) as kept:
        fine, coarse, segment = (
            torch.from_numpy(kept[name].astype(np.float32)) for name in ("fine", "coarse", "segment")
        )
    return Atlas(fine, coarse, segment)


def cache_folder() -> Path:
    """PERFUSION_CACHE, else the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if chosen := os.environ.get("PERFUSION_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfusion-node"


@cache
def _digest() -> str:
    sources = [Path(__file__), Path(anatomy.__file__), *(_template(name) for name in ("t1", "gm", "wm"))]
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()[:16]


def digest() -> str:
    """What identifies the templates and the code that read them; part of every manifest."""
    return _digest()


def _template(name: str) -> Path:
    return Path(nilearn.__file__).parent / "datasets" / "data" / TEMPLATE.format(name)


def _read(name: str) -> np.ndarray:
    image = nibabel.load(_template(name))
    return np.asarray(image.dataobj, np.float32) / 255.0  # type: ignore[attr-defined]


def _build() -> dict[str, np.ndarray]:
    """Channels as float16, axes z, y, x; distances in mm fit with 0.01 mm near the surface."""
    grey, white, t1 = _read("gm"), _read("wm"), _read("t1")
    brain = ndimage.binary_fill_holes(t1 > 0.02)
    total = np.maximum(grey + white, 1.0)
    grey, white = grey / total * brain, white / total * brain
    fluid = np.clip(brain - grey - white, 0.0, 1.0)
    x, y, z = (line.astype(np.float32) for line in _lines(brain.shape))
    ventricles = _ventricles(fluid, t1, brain, x, y, z)
    hull = ndimage.gaussian_filter(_signed_distance(_hull(brain)), 1.5)
    ventricle = ndimage.gaussian_filter(_signed_distance(ventricles), 1.2)
    artery, segment = _distance_to_tubes(brain.shape, *_arteries())
    vein, _ = _distance_to_tubes(brain.shape, *_veins(hull))
    fine = (grey, white, fluid, ndimage.gaussian_filter(_signed_distance(brain), 0.7), artery, vein)
    outwards = np.gradient(ndimage.gaussian_filter(ventricle, 2.0))
    coarse = (hull, ventricle, _deep_grey(grey, x, y, z), *outwards)
    return {
        "fine": np.stack([channel.transpose(2, 1, 0) for channel in fine]).astype(np.float16),
        "coarse": np.stack([channel[::2, ::2, ::2].transpose(2, 1, 0) for channel in coarse]).astype(np.float16),
        "segment": segment.transpose(2, 1, 0)[None].astype(np.int8),
    }


def _lines(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The MNI coordinates of the voxels along each axis, ready to broadcast."""
    return list(np.ix_(*(np.arange(n) + low for n, low in zip(shape, BOX_LOW, strict=True))))


def _signed_distance(body: np.ndarray) -> np.ndarray:
    """mm to the surface, negative inside."""
    outside: np.ndarray = ndimage.distance_transform_edt(~body)
    outside -= ndimage.distance_transform_edt(body)
    return outside.astype(np.float32)


def _ventricles(
    fluid: np.ndarray, t1: np.ndarray, brain: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Fluid-like voxels deep in the middle of the brain, without the Sylvian fissures, in pieces above 250 mm3."""
    depth = ndimage.distance_transform_edt(brain)
    dark = (fluid > 0.5) | ((t1 < 0.42) & (depth > 12) & brain)
    central = (np.abs(x) < 42) & (y > -62) & (y < 42) & (z > -16) & (z < 36) & (depth > 9)
    sylvian = (np.abs(z + 4) < 14) & (y > -2) & (np.abs(x) > 24)
    labels, count = ndimage.label(dark & central & ~sylvian)
    sizes = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    kept: np.ndarray = np.isin(labels, 1 + np.flatnonzero(sizes > 250))
    return kept


def _hull(brain: np.ndarray) -> np.ndarray:
    """The brain closed over its sulci: the inner table of the skull."""
    pad, radius = 12, HULL_CLOSING / 2  # at 2 mm
    coarse = np.pad(brain[::2, ::2, ::2], pad)
    swollen = ndimage.distance_transform_edt(~coarse) <= radius
    closed: np.ndarray = (ndimage.distance_transform_edt(swollen) > radius)[pad:-pad, pad:-pad, pad:-pad]
    scale = np.array(brain.shape) / np.array(closed.shape)
    filled: np.ndarray = (ndimage.zoom(closed.astype(np.float32), scale, order=1) > 0.5) | brain
    return filled


def _deep_grey(grey: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """1 in the basal ganglia and thalami, 0 elsewhere, smoothly."""
    central = (np.abs(x) < 34) & (np.abs(x) > 3) & (y > -34) & (y < 24) & (z > -10) & (z < 22)
    central &= np.hypot((np.abs(x) - 18) / 17, (y + 4) / 30) < 1
    nuclei = ndimage.binary_opening((grey > 0.35) & central, iterations=2)
    smooth: np.ndarray = ndimage.gaussian_filter(nuclei.astype(np.float32), 1)
    return smooth


def _course(points: Sequence[Point], step: float = 0.4) -> np.ndarray:
    """(n, 3) points every `step` mm along a smoothed line through the given ones."""
    corners = np.array(points, float)
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, at[-1], max(2, int(at[-1] / step)))
    line = np.stack([np.interp(wanted, at, corners[:, axis]) for axis in range(3)], axis=1)
    smooth: np.ndarray = ndimage.gaussian_filter1d(line, 6, axis=0, mode="nearest")
    return smooth


def _arteries() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, radii and segment indices of both sides."""
    lines, radii, indices = [], [], []
    for side in (1.0, -1.0):
        for number, segment in enumerate(anatomy.SEGMENTS.values()):
            line = _course([(side * x, y, z) for x, y, z in segment.course])
            lines.append(line)
            radii.append(np.full(len(line), segment.radius))
            indices.append(np.full(len(line), number + (0 if side > 0 else len(anatomy.SEGMENTS))))
    return np.concatenate(lines), np.concatenate(radii), np.concatenate(indices)


def _veins(hull: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The dural sinuses and internal cerebral veins; the sagittal sinus follows the hull in the midline."""
    sagittal = _sagittal_sinus(hull[MIDLINE])
    torcular = (0.0, float(sagittal[-1, 1]), float(sagittal[-1, 2]))
    lines: list[tuple[np.ndarray, float | np.ndarray]] = [(sagittal, np.linspace(1.2, 3.7, len(sagittal)))]
    for side in (1.0, -1.0):
        transverse: list[Point] = [torcular, (side * 18, torcular[1] + 4, torcular[2] - 4), (side * 42, -78, -24)]
        transverse += [(side * 58, -52, -30), (side * 56, -44, -42)]
        internal: list[Point] = [(side * 2, 8, 10), (side * 2, -10, 14), (side * 3, -28, 12), (0, -38, 9)]
        lines += [(_course(transverse), 3.2), (_course(internal), 0.8)]
    lines.append((_course([(0, -38, 9), (0, -55, 5), torcular]), 1.7))
    points = np.concatenate([line for line, _ in lines])
    radii = np.concatenate([np.broadcast_to(radius, len(line)) for line, radius in lines])
    return points, radii, np.zeros(len(points))


def _sagittal_sinus(hull_yz: np.ndarray) -> np.ndarray:
    """(n, 3) from the forehead over the vertex to the torcular, where rays from the middle meet the hull."""
    points = []
    for angle in np.linspace(-0.15 * np.pi, 1.12 * np.pi, 160):
        for radius in np.arange(40.0, 130.0, 0.5):
            y, z = -18 + radius * np.cos(angle), 12 + radius * np.sin(angle)
            row, column = int(y - BOX_LOW[1]), int(z - BOX_LOW[2])
            inside = 0 <= row < hull_yz.shape[0] and 0 <= column < hull_yz.shape[1]
            if not inside or hull_yz[row, column] > 0.5:
                break
        points.append((0.0, y, z))
    return np.array(points)


def _distance_to_tubes(
    shape: tuple[int, ...], points: np.ndarray, radii: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """mm to the nearest tube's wall, negative inside, at most FAR; and the index of that tube, -1 where far."""
    voxel = np.clip(np.rint(points - np.array(BOX_LOW)).astype(int), 0, np.array(shape) - 1)
    centre = np.ones(shape, bool)
    centre[tuple(voxel.T)] = False
    near = ndimage.distance_transform_edt(centre) < FAR
    distance, owner = cKDTree(points).query(np.argwhere(near) + np.array(BOX_LOW))
    wall, nearest = np.full(shape, FAR, np.float32), np.full(shape, -1, np.int8)
    wall[near] = distance - radii[owner]
    nearest[near] = indices[owner]
    return wall, nearest
