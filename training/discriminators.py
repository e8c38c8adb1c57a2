"""The 70x70 patch discriminators of MAGIC: one for each map, each looks at the map beside the CT it was made from.

Per map 4-64-128-256 with stride 2, then 512 and 1 with stride 1, 4x4 kernels, padding 1, bias; 2,765,761 parameters at
width 64, 11,063,044 for four maps. Plain convolutions, whatever the figure of the paper says (models.md A14). Zeros
and ones are the targets of the loss, never an input channel (A6), and the CT is always shown (A10).

Source: Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, section 6.1.2; the
multitask form as specified in models.md section 1.1; written from the text.
Dimensions: B batch, C channels, K map kinds, Y X space.
"""

from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

Norm = Literal["instance", "batch"]
PLANES = 3  # slice below, target, slice above


class Discriminator(nn.Module):
    """Judges one map: for each patch of 70x70 pixels, the probability that it is acquired and not generated."""

    def __init__(self, width: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"a discriminator needs at least one channel, got width={width}")
        w = width
        self.layers = nn.Sequential(
            *_layer(PLANES + 1, w, stride=2, norm=None),  # 256 -> 128
            *_layer(w, 2 * w, stride=2, norm=norm),  # 128 -> 64
            *_layer(2 * w, 4 * w, stride=2, norm=norm),  # 64 -> 32
            *_layer(4 * w, 8 * w, stride=1, norm=norm),  # 32 -> 31
            _convolution(8 * w, 1, stride=1),  # 31 -> 30
        )

    def forward(self, planes_BCYX: Tensor, map_B1YX: Tensor) -> Tensor:
        """(B, 1, 30, 30) in 0..1 from the CT (B, 3, 256, 256) and one map (B, 1, 256, 256), both in [-1, 1]."""
        return torch.sigmoid(self.logits(planes_BCYX, map_B1YX))

    def logits(self, planes_BCYX: Tensor, map_B1YX: Tensor) -> Tensor:
        """What `forward` takes the sigmoid of; the loss comes from it, so that a sure verdict keeps its gradient."""
        logits_B1YX: Tensor = self.layers(torch.cat([planes_BCYX, map_B1YX], dim=1))
        return logits_B1YX


class Discriminators(nn.Module):
    """One discriminator for each map, nothing shared."""

    def __init__(self, maps: int = 5, width: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        if maps < 1:
            raise ValueError(f"discriminators need at least one map, got maps={maps}")
        self.each = nn.ModuleList([Discriminator(width, norm) for _ in range(maps)])

    def forward(self, planes_BCYX: Tensor, maps_BKYX: Tensor) -> Tensor:
        """(B, K, 30, 30) in 0..1; channel k is the verdict on map k."""
        return torch.sigmoid(self.logits(planes_BCYX, maps_BKYX))

    def logits(self, planes_BCYX: Tensor, maps_BKYX: Tensor) -> Tensor:
        """(B, K, 30, 30), the verdicts before the sigmoid."""
        each = cast(Iterable[Discriminator], self.each)
        maps = torch.split(maps_BKYX, 1, dim=1)
        logits = [judge.logits(planes_BCYX, map_B1YX) for judge, map_B1YX in zip(each, maps, strict=True)]
        return torch.cat(logits, dim=1)


def receptive_field(network: nn.Module) -> int:
    """Side in pixels of the patch that the convolutions of a chain join into one output element.

    Instance normalisation adds the mean and variance of the whole plane; that is not counted.
    """
    side, step = 1, 1
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            side += (module.kernel_size[0] - 1) * step
            step *= module.stride[0]
    return side


def _layer(channels: int, out: int, *, stride: int, norm: Norm | None) -> list[nn.Module]:
    modules: list[nn.Module] = [_convolution(channels, out, stride=stride)]
    if norm is not None:
        modules.append(_norm(norm, out))
    return [*modules, nn.LeakyReLU(0.2)]


def _convolution(channels: int, out: int, *, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel_size=4, stride=stride, padding=1)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "instance":
        return nn.InstanceNorm2d(channels)  # without parameters, as in the generator
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"norm is 'instance' or 'batch', got {norm!r}")
