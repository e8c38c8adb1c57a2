"""MAGIC: perfusion maps from three slices of non-contrast CT, a generator of shared and own branches.

Four encoders are shared by all maps; each map then has its own four encoders, eight decoders and one 1x1 convolution
(PILO, the physician-in-the-loop layer) that mixes the perfusion image with the three CT slices.

Parameters at width 64: 2,756,544 + maps x 51,648,966, hence 209,352,408 for four maps. These are the figures of the
paper and belong to normalisation without parameters (InstanceNorm), our default; BatchNorm adds 34,048 for four maps.

Source: multitask generator of lab-smile, "MAGIC", as specified in models.md section 1; written from the text.
Dimensions: B batch, C channels, K map kinds, Y X space.
"""

from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

Norm = Literal["instance", "batch"]
SIDE = 256  # eight halvings of 256 leave 1x1; a smaller plane would leave nothing


class Encoder(nn.Module):
    """LeakyReLU(0.2), then a convolution that halves Y and X, then normalisation."""

    def __init__(self, channels: int, out: int, *, activate: bool = True, norm: Norm | None) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2) if activate else nn.Identity()
        self.convolution = nn.Conv2d(channels, out, kernel_size=4, stride=2, padding=1)
        self.norm = _norm(norm, out)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, channels, Y, X) to (B, out, Y / 2, X / 2)."""
        out: Tensor = self.norm(self.convolution(self.activation(x_BCYX)))
        return out


class Decoder(nn.Module):
    """ReLU, then a transposed convolution that doubles Y and X, then normalisation and, in training only, dropout."""

    def __init__(self, channels: int, out: int, *, norm: Norm | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.convolution = nn.ConvTranspose2d(channels, out, kernel_size=4, stride=2, padding=1)
        self.norm = _norm(norm, out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, channels, Y, X) to (B, out, 2 Y, 2 X)."""
        out: Tensor = self.dropout(self.norm(self.convolution(self.activation(x_BCYX))))
        return out


class Branch(nn.Module):
    """What one map owns: encoders 5 to 8, decoders 1 to 8 and the PILO layer."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        w = width
        self.encoders = nn.ModuleList(
            [
                Encoder(8 * w, 8 * w, norm=norm),  # 16 -> 8
                Encoder(8 * w, 8 * w, norm=norm),  # 8 -> 4
                Encoder(8 * w, 8 * w, norm=norm),  # 4 -> 2
                Encoder(8 * w, 8 * w, norm=None),  # 2 -> 1: one element has no variance, so no normalisation
            ]
        )
        self.decoders = nn.ModuleList(
            [
                Decoder(8 * w, 8 * w, norm=norm, dropout=0.5),  # 1 -> 2
                Decoder(16 * w, 8 * w, norm=norm, dropout=0.5),  # 2 -> 4, input joined with encoder 7
                Decoder(16 * w, 8 * w, norm=norm, dropout=0.5),  # 4 -> 8, with encoder 6
                Decoder(16 * w, 8 * w, norm=norm),  # 8 -> 16, with encoder 5
                Decoder(16 * w, 4 * w, norm=norm),  # 16 -> 32, with shared encoder 4
                Decoder(8 * w, 2 * w, norm=norm),  # 32 -> 64, with shared encoder 3
                Decoder(4 * w, w, norm=norm),  # 64 -> 128, with shared encoder 2
                Decoder(2 * w, 1, norm=None),  # 128 -> 256, with shared encoder 1
            ]
        )
        self.pilo = nn.Conv2d(4, 1, kernel_size=1)

    def forward(self, shared: list[Tensor]) -> Tensor:
        """The perfusion image P, (B, 1, 256, 256) in [-1, 1], from the four shared feature maps."""
        skips = list(shared)
        for encoder in self.encoders:
            skips.append(encoder(skips[-1]))
        x_BCYX = skips.pop()  # (B, 8 w, 1, 1), the bottleneck
        for decoder in self.decoders[:-1]:
            x_BCYX = torch.cat([decoder(x_BCYX), skips.pop()], dim=1)
        return torch.tanh(self.decoders[-1](x_BCYX))

    def blend(self, perfusion_B1YX: Tensor, planes_BCYX: Tensor, ratio: float = 0.5) -> Tensor:
        """PILO: y = tanh(a_p w_p P + a_x (w_1 X_0 + w_2 X_1 + w_3 X_2) + b), a_p = 2 ratio, a_x = 2 (1 - ratio).

        The inputs are scaled, never the weights. At 0.5 both factors are 1 and nothing is multiplied.
        """
        if ratio != 0.5:
            perfusion_B1YX = 2.0 * ratio * perfusion_B1YX
            planes_BCYX = 2.0 * (1.0 - ratio) * planes_BCYX
        return torch.tanh(self.pilo(torch.cat([perfusion_B1YX, planes_BCYX], dim=1)))


class Magic(nn.Module):
    """The generator. maps: how many map kinds; width: channels of the first encoder (64 in the paper)."""

    def __init__(self, maps: int = 5, width: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        if maps < 1 or width < 1:
            raise ValueError(f"Magic needs at least one map and one channel, got maps={maps}, width={width}")
        w = width
        self.encoders = nn.ModuleList(
            [
                Encoder(3, w, activate=False, norm=None),  # 256 -> 128
                Encoder(w, 2 * w, norm=norm),  # 128 -> 64
                Encoder(2 * w, 4 * w, norm=norm),  # 64 -> 32
                Encoder(4 * w, 8 * w, norm=norm),  # 32 -> 16
            ]
        )
        self.branches = nn.ModuleList([Branch(w, norm) for _ in range(maps)])

    def forward(self, planes_BCYX: Tensor, ratio: float = 0.5) -> Tensor:
        """Maps in [-1, 1], (B, K, 256, 256), from (slice below, target, slice above), (B, 3, 256, 256) in [-1, 1].

        ratio: the perfusion information ratio, 0 anatomy only, 1 perfusion only, 0.5 as trained.
        """
        return self.blend(self.perfusion(planes_BCYX), planes_BCYX, ratio)

    def perfusion(self, planes_BCYX: Tensor) -> Tensor:
        """The perfusion images P before PILO, (B, K, 256, 256) in [-1, 1]."""
        if planes_BCYX.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"Magic expects (batch, 3, {SIDE}, {SIDE}), got {tuple(planes_BCYX.shape)}")
        shared = [planes_BCYX]
        for encoder in self.encoders:
            shared.append(encoder(shared[-1]))
        return torch.cat([branch(shared[1:]) for branch in self.branches], dim=1)

    def blend(self, perfusion_BKYX: Tensor, planes_BCYX: Tensor, ratio: float = 0.5) -> Tensor:
        """Every branch's PILO layer over its perfusion image; what a page with a slider repeats cheaply."""
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"the perfusion information ratio lies in 0..1, got {ratio}")
        branches = cast(Iterable[Branch], self.branches)
        channels = torch.split(perfusion_BKYX, 1, dim=1)
        return torch.cat(
            [
                branch.blend(perfusion_B1YX, planes_BCYX, ratio)
                for branch, perfusion_B1YX in zip(branches, channels, strict=True)
            ],
            dim=1,
        )


def _norm(norm: Norm | None, channels: int) -> nn.Module:
    if norm is None:
        return nn.Identity()
    if norm == "instance":
        return nn.InstanceNorm2d(channels)  # no parameters, no running statistics: training and use are alike
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"norm is 'instance' or 'batch', got {norm!r}")
