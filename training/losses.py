"""The losses of MAGIC, one small function for each equation of paper 001 (models.md L1 to L5).

Maps are what the generator makes and learns, in [-1, 1] (MapKind.normalise); `unit` brings them to 0..1 of each
ceiling. Where the paper's text and sense part, `variant` chooses: "paper" as printed, "mended" as models.md resolves it
(A2 and A3 for the extrema loss, A7 and A26 for the multimodal loss).
Dimensions: B batch, K map kinds, Y X space; a mask has one channel and is true inside the brain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from inference.maps import KINDS
from inference.regions import HYPOPERFUSED

Variant = Literal["paper", "mended"]
EPSILON = 1e-6  # of the range 0..1; keeps the min-max scaling of a constant finite
CLIPPED = 1.0 - 1e-4  # learnt value from which the truth is taken as cut off at its ceiling; interpolation rounds

# CBV = CBF * MTT / 60, every map as a fraction of its ceiling: 60 * 12 / 60 / 4 = 3.
CENTRAL_VOLUME = KINDS["CBF"].ceiling * KINDS["MTT"].ceiling / 60.0 / KINDS["CBV"].ceiling


@dataclass(frozen=True, slots=True)
class Truth:
    """What a batch of generated maps is compared with.

    maps: (B, K, Y, X) in [-1, 1]; mask: (B, 1, Y, X) bool; kinds: the name of each channel.
    """

    maps: Tensor
    mask: Tensor
    kinds: tuple[str, ...]

    def channel(self, name: str) -> int:
        """The index of a map kind."""
        if name not in self.kinds:
            raise ValueError(f"this loss needs the map {name}; the maps are {', '.join(self.kinds)}")
        return self.kinds.index(name)


def unit(maps: Tensor) -> Tensor:
    """[-1, 1] to 0..1, the physical value over its ceiling."""
    return (maps + 1.0) / 2.0


def discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Equation 1 as the discriminators see it: -E[log D(x, y)] - E[log(1 - D(x, G(x)))], mean over maps and patches."""
    return _cross_entropy(real_logits, 1.0) + _cross_entropy(fake_logits, 0.0)


def adversarial(fake_logits: Tensor) -> Tensor:
    """Equation 1 for the generator, non-saturating (A11): -E[log D(x, G(x))], mean over maps and patches."""
    return _cross_entropy(fake_logits, 1.0)


def l1(made_BKYX: Tensor, truth: Truth, lesion_weight: float = 1.0) -> Tensor:
    """Equation 2: E|G - PM|, mean over maps and pixels.

    lesion_weight: how much a pixel with a true Tmax > 6 s counts; 1 is the plain loss. The weights are not divided by
    their sum, so that a pixel counts the same in whatever batch it comes.
    """
    error_BKYX = (made_BKYX - truth.maps).abs()
    if lesion_weight == 1.0:
        return error_BKYX.mean()
    return (error_BKYX * torch.where(lesion(truth), lesion_weight, 1.0)).mean()


def lesion(truth: Truth) -> Tensor:
    """(B, 1, Y, X) bool: where the true Tmax is more than 6 s."""
    k = truth.channel("Tmax")
    return unit(truth.maps[:, k : k + 1]) * KINDS["Tmax"].ceiling > HYPOPERFUSED


def multimodal(made_BKYX: Tensor, truth: Truth, variant: Variant = "mended") -> Tensor:
    """Equation 4: E|CBF_G * MTT_G / 60 - CBV| / 4 in ml/100 g over its ceiling, which is E|3 cbf mtt - cbv| (A7).

    mended: the mean is over the brain, without the pixels where a true map is cut off at its ceiling (A26).
    """
    return _central_volume_error(made_BKYX, truth.maps, truth, variant)


def synthetic_cbv(made_BKYX: Tensor, truth: Truth, variant: Variant = "mended") -> Tensor:
    """The same with the CBV of the generator in place of the true one (A9)."""
    return _central_volume_error(made_BKYX, made_BKYX, truth, variant)


def extrema(made_BKYX: Tensor, truth: Truth, variant: Variant = "mended") -> Tensor:
    """Equations 5 to 7: E[W * H], W = (minmax(PM) - 0.5)^2, mean over maps.

    paper: H = (minmax(G) - minmax(PM))^2 over the whole image, each image of the batch by itself (A3).
    mended: H = (unit(G) - unit(PM))^2, so that the scale is learnt; min-max and mean inside the brain, or the
        background would hold nine tenths of the weight (A2).
    """
    return EXTREMA[variant](made_BKYX, truth)


def total(terms: Mapping[str, Tensor], lambdas: Mapping[str, float]) -> Tensor:
    """Equation 8: the sum of the terms, each times its lambda."""
    return torch.stack([lambdas[name] * term for name, term in terms.items()]).sum()


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _central_volume_error(made_BKYX: Tensor, cbv_BKYX: Tensor, truth: Truth, variant: Variant) -> Tensor:
    cbf, mtt, cbv = (truth.channel(name) for name in ("CBF", "MTT", "CBV"))
    expected_BYX = CENTRAL_VOLUME * unit(made_BKYX[:, cbf]) * unit(made_BKYX[:, mtt])
    error_BYX = (expected_BYX - unit(cbv_BKYX[:, cbv])).abs()
    if variant == "paper":
        return error_BYX.mean()
    whole_BYX = (truth.maps[:, [cbf, mtt, cbv]] < CLIPPED).all(dim=1)
    return _mean(error_BYX, truth.mask[:, 0] & whole_BYX)


def _extrema_as_printed(made_BKYX: Tensor, truth: Truth) -> Tensor:
    everywhere = torch.ones_like(truth.mask)
    true_BKYX = minmax(truth.maps, everywhere)
    return ((true_BKYX - 0.5) ** 2 * (minmax(made_BKYX, everywhere) - true_BKYX) ** 2).mean()


def _extrema_mended(made_BKYX: Tensor, truth: Truth) -> Tensor:
    weight_BKYX = (minmax(truth.maps, truth.mask) - 0.5) ** 2
    error_BKYX = (unit(made_BKYX) - unit(truth.maps)) ** 2
    return _mean(weight_BKYX * error_BKYX, truth.mask.expand_as(error_BKYX))


EXTREMA: Mapping[Variant, Callable[[Tensor, Truth], Tensor]] = {
    "paper": _extrema_as_printed,
    "mended": _extrema_mended,
}


def minmax(maps_BKYX: Tensor, mask_B1YX: Tensor) -> Tensor:
    """Each map of each image scaled to 0 at its least value inside the mask and 1 at its greatest; a constant is 0."""
    low_BK11 = maps_BKYX.masked_fill(~mask_B1YX, torch.inf).amin(dim=(2, 3), keepdim=True)
    high_BK11 = maps_BKYX.masked_fill(~mask_B1YX, -torch.inf).amax(dim=(2, 3), keepdim=True)
    some = mask_B1YX.any(dim=3, keepdim=True).any(dim=2, keepdim=True)
    low_BK11, high_BK11 = (torch.where(some, end, 0.0) for end in (low_BK11, high_BK11))
    return (maps_BKYX - low_BK11) / (high_BK11 - low_BK11 + EPSILON)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean over a mask, 0 where the mask is empty."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)


def generator_terms(
    made_BKYX: Tensor, truth: Truth, names: Sequence[str], variant: Variant, lesion_weight: float = 1.0
) -> dict[str, Tensor]:
    """The named terms of equation 8 but the adversarial one, which needs the discriminators."""
    functions: dict[str, Callable[[], Tensor]] = {
        "l1": lambda: l1(made_BKYX, truth, lesion_weight),
        "extrema": lambda: extrema(made_BKYX, truth, variant),
        "multimodal": lambda: multimodal(made_BKYX, truth, variant),
        "synthetic_cbv": lambda: synthetic_cbv(made_BKYX, truth, variant),
    }
    return {name: functions[name]() for name in names if name in functions}
