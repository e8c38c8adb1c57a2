"""Seeded random weights: what the path from scanner to PACS is built and tested with before anything is trained."""

from pathlib import Path

import torch
from torch import nn

from inference import preprocess, weights
from inference.maps import KINDS
from inference.models.magic import Branch, Magic

NAME = "ncct-untrained"


def make(out: Path, width: int = 4, seed: int = 0) -> Path:
    """Write a folder of random weights for all map kinds; same seed and width, same bytes. Returns the folder."""
    generator = Magic(maps=len(KINDS), width=width)
    initialise(generator, seed)
    weights.save(out, _manifest(width, seed), generator.state_dict(), half=True)
    return out


def initialise(generator: Magic, seed: int) -> None:
    """Every parameter from one seed.

    Normalised layers take N(0, 0.02) as in pix2pix (their scale cancels). The layers without normalisation set the
    range of the output, so they are scaled to their input, or an untrained map would be one grey.
    """
    random = torch.Generator().manual_seed(seed)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=random)
            _zero_bias(module)
    for branch in generator.branches:
        if isinstance(branch, Branch):
            _scale_output(branch, random)


def _zero_bias(module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _scale_output(branch: Branch, random: torch.Generator) -> None:
    last = branch.decoders[-1].convolution
    assert isinstance(last, nn.ConvTranspose2d)
    reached = last.in_channels * 4  # weights that meet at one output pixel: 4x4 kernel over stride 2
    nn.init.normal_(last.weight, 0.0, reached**-0.5, generator=random)
    nn.init.normal_(branch.pilo.weight, 0.0, 0.1, generator=random)
    with torch.no_grad():
        branch.pilo.weight[:, 0].add_(0.8)


def _manifest(width: int, seed: int) -> weights.Manifest:
    kinds = tuple(KINDS)
    return weights.Manifest(
        name=NAME,
        version="0",
        route="ncct",
        architecture="magic",
        width=width,
        norm="instance",
        kinds=kinds,
        ranges=weights.ranges(kinds),
        units="physical",
        preprocessing=preprocess.VERSION,
        training_domain="untrained",
        data_digest="",
        seeds=(seed,),
        commit="",
        licence="Apache-2.0",
    )
