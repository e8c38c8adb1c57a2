"""The generator, loaded and ready: the torch reference on the CPU, float32."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference import preprocess
from inference.models.magic import Branch, Magic, Norm
from inference.weights import Manifest, WeightsError

ARCHITECTURES = ("magic",)
NORMS: dict[str, Norm] = {"instance": "instance", "batch": "batch"}


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Weights on a device. The same planes give the same bytes, whatever ran before, for one number of threads."""

    manifest: Manifest
    generator: Magic
    threads: int

    def run(self, planes: np.ndarray, ratio: float = 0.5) -> np.ndarray:
        """(B, 3, 256, 256) float32 in [-1, 1] to maps, (B, K, 256, 256) float32 in [-1, 1], K as manifest.kinds.

        ratio: the perfusion information ratio; quantitative objects use 0.5, the weights as trained.
        """
        with torch.inference_mode():
            return self._numbers(self.generator(self._planes(planes), ratio))

    def perfusion(self, planes: np.ndarray) -> np.ndarray:
        """The perfusion images before the PILO layer mixes them with the CT, (B, K, 256, 256) float32 in [-1, 1]."""
        with torch.inference_mode():
            return self._numbers(self.generator.perfusion(self._planes(planes)))

    def blend(self, perfusion: np.ndarray, planes: np.ndarray, ratio: float = 0.5) -> np.ndarray:
        """The PILO layer over perfusion images, (B, K, 256, 256) float32; `run` is `perfusion`, then this."""
        with torch.inference_mode():
            return self._numbers(self.generator.blend(torch.from_numpy(perfusion), self._planes(planes), ratio))

    @property
    def mix(self) -> np.ndarray:
        """What the PILO layer of each map has learnt, (K, 5) float32: weights of P and of the three slices, bias."""
        branches = cast(Iterable[Branch], self.generator.branches)
        parameters = (torch.cat([p.detach().flatten() for p in branch.pilo.parameters()]) for branch in branches)
        return self._numbers(torch.stack(list(parameters)))

    def features(self, planes: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """What the shared encoders see of each slice, (B, 30 w): mean and spread of each channel within the mask.

        mask: (B, 256, 256) bool.
        """
        found, x_BCYX, inside_B1YX = [], self._planes(planes), torch.from_numpy(mask).float()[:, None]
        with torch.inference_mode():
            for encoder in self.generator.encoders:
                x_BCYX, inside_B1YX = encoder(x_BCYX), functional.avg_pool2d(inside_B1YX, 2)
                share = inside_B1YX / inside_B1YX.sum((2, 3), keepdim=True)
                mean_BC11 = (x_BCYX * share).sum((2, 3), keepdim=True)
                spread_BC = ((x_BCYX - mean_BC11) ** 2 * share).sum((2, 3)).sqrt()
                found += [mean_BC11[:, :, 0, 0], spread_BC]
            return self._numbers(torch.cat(found, dim=1))

    def _planes(self, planes: np.ndarray) -> Tensor:
        torch.set_num_threads(self.threads)  # sums are split by thread, so the number of threads is part of the result
        return torch.from_numpy(np.ascontiguousarray(planes, np.float32))

    @staticmethod
    def _numbers(maps_BKYX: Tensor) -> np.ndarray:
        numbers: np.ndarray = maps_BKYX.numpy()
        return numbers


def load_engine(manifest: Manifest, state: Mapping[str, Tensor], threads: int) -> Engine:
    """An engine for weights that `weights.load` returned; raises WeightsError when they do not fit this software."""
    if threads < 1:
        raise ValueError(f"an engine needs at least one thread, got {threads}")
    if manifest.architecture not in ARCHITECTURES or manifest.norm not in NORMS:
        raise WeightsError(
            f"the weights {manifest.name} want the architecture {manifest.architecture!r} with norm {manifest.norm!r}; "
            f"this software has {', '.join(ARCHITECTURES)} with norm {' or '.join(NORMS)}"
        )
    if manifest.preprocessing != preprocess.VERSION:
        raise WeightsError(
            f"the weights {manifest.name} were trained on preprocessing {manifest.preprocessing}; this software "
            f"has version {preprocess.VERSION}: use the weights that came with it"
        )
    with torch.device("meta"):  # no memory and no random numbers for parameters that are replaced at once
        generator = Magic(len(manifest.kinds), manifest.width, NORMS[manifest.norm])
    try:
        generator.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"the tensors of {manifest.name} do not fit its manifest: {error}") from error
    return Engine(manifest, generator.eval(), threads)
