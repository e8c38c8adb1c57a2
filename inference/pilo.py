"""The physician in the loop: the maps of one head at another perfusion information ratio (paper 001, section 3.3).

The last layer of the generator is y = tanh(a_p w_p P + a_x (w_1 X_0 + w_2 X_1 + w_3 X_2) + b) with a_p = 2 r and
a_x = 2 (1 - r) of the ratio r: 1 is perfusion only, 0 anatomy only, 0.5 as trained. With P, the three slices and five
numbers for each map kept, it can be repeated without the generator, and without torch.

What is quantitative is made at 0.5 by `inference.predict`, in float32. What is kept here has half precision, and
repeats those values to within 1/255 of the range of each map (a test).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from inference import preprocess, weights
from inference.maps import PerfusionMap
from inference.preprocess import ModelGrid, Prepared
from inference.units import in_units
from inference.volume import Volume
from inference.weights import Manifest

TRAINED = 0.5  # the ratio of every quantitative object


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """One head before its last layer. n voxels lie in the brain, in the order of numpy's index by the mask.

    perfusion: (K, n) float16 in [-1, 1], P of each kind of the manifest.
    planes: (3, n) float16 in [-1, 1], the CT 4 mm below, in the slice, and 4 mm above.
    mix: (K, 5) float32, weights of P and of the three planes, bias.
    mask: (slices, 256, 256) bool, the brain on the model grid.
    """

    perfusion: np.ndarray
    planes: np.ndarray
    mix: np.ndarray
    mask: np.ndarray
    grid: ModelGrid
    manifest: Manifest

    def learnt(self, ratio: float) -> np.ndarray:
        """(K, n) float32 in [-1, 1]: the last layer at a ratio."""
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"the perfusion information ratio lies in 0..1, got {ratio}")
        flow, anatomy = np.float32(2 * ratio), np.float32(2 * (1 - ratio))
        own, common, bias = self.mix[:, :1], self.mix[:, 1:4], self.mix[:, 4:]
        perfusion, planes = (kept.astype(np.float32) for kept in (self.perfusion, self.planes))
        mixed: np.ndarray = np.tanh(flow * own * perfusion + anatomy * (common @ planes) + bias)
        return mixed

    def values(self, ratio: float) -> np.ndarray:
        """(K, slices, 256, 256) float32 in the unit of each kind, smoothed as the weights say; 0 outside the brain."""
        learnt_KSYX = np.full((len(self.mix), *self.mask.shape), -1.0, np.float32)
        learnt_KSYX[:, self.mask] = self.learnt(ratio)
        return in_units(learnt_KSYX, self.mask, self.grid.heights, self.manifest)

    def maps(self, ratio: float, volume: Volume) -> tuple[PerfusionMap, ...]:
        """The maps on the grid of the source slices, `volume`. At any ratio but 0.5 their numbers have no unit."""
        planes = np.full((len(self.mask), 3, *self.mask.shape[1:]), -1.0, np.float32)
        planes.swapaxes(0, 1)[:, self.mask] = self.planes
        prepared = Prepared(planes, self.mask, self.grid)
        return preprocess.maps_on_source(self.values(ratio), prepared, volume, self.manifest.map_kinds)


def loop(prepared: Prepared, perfusion: np.ndarray, mix: np.ndarray, manifest: Manifest) -> Loop:
    """What is to be kept of a head; perfusion: as `predict.generate` gives it; mix: of the engine."""
    planes = prepared.planes.swapaxes(0, 1)[:, prepared.mask].astype(np.float16)
    return Loop(perfusion, planes, mix, prepared.mask, prepared.grid, manifest)


def save(file: BinaryIO, kept: Loop, more: Mapping[str, Any]) -> None:
    """Write a loop as .npz, with further arrays under names of their own; equal loops have equal bytes."""
    grid = kept.grid
    place = {"axes": grid.axes, "origin": grid.origin, "heights": grid.heights, "shape": np.array(kept.mask.shape)}
    voxels = {"perfusion": kept.perfusion, "planes": kept.planes, "mix": kept.mix, "mask": np.packbits(kept.mask)}
    np.savez(file, allow_pickle=False, **place, **voxels, manifest=np.array(weights.text_of(kept.manifest)), **more)


def load(path: Path) -> Loop:
    """What `save` wrote; raises FileNotFoundError, and WeightsError where the manifest is not of this software."""
    with np.load(path, allow_pickle=False) as found:
        shape = tuple(found["shape"])
        mask = np.unpackbits(found["mask"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        grid = ModelGrid(found["axes"], found["origin"], found["heights"])
        manifest = weights.of_text(path, str(found["manifest"]))
        return Loop(found["perfusion"], found["planes"], found["mix"], mask, grid, manifest)
