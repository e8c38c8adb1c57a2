"""All that changes while a model is trained, and its checkpoint.

Randomness is not part of it: every epoch begins from a seed of its own (`seed_epoch`), so that a training that went on
from a checkpoint ends in the same bits as one that was never interrupted, on any number of processes.
"""

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Adam

from inference import weights
from inference.models.magic import Magic
from training.curves import Row
from training.discriminators import Discriminators
from training.recipe import Recipe, RecipeError

CHECKPOINT = "checkpoint.pt"


@dataclass(slots=True, eq=False)
class State:
    """average: the running mean of the generator, where the recipe has one; history: a row for each finished epoch."""

    generator: Magic
    average: Magic | None
    discriminators: Discriminators | None
    generator_optimiser: Adam
    discriminator_optimiser: Adam | None
    history: list[Row] = field(default_factory=list)

    @property
    def best(self) -> Magic:
        """The generator to validate and to export."""
        return self.average or self.generator

    def follow(self, decay: float) -> None:
        """Move the running mean towards the generator: mean = decay * mean + (1 - decay) * generator."""
        if self.average is None:
            return
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1.0 - decay)
                else:
                    mean.copy_(now)

    def parts(self) -> dict[str, nn.Module | Adam]:
        """What a checkpoint holds beside the history, by name."""
        parts = {
            "generator": self.generator,
            "average": self.average,
            "discriminators": self.discriminators,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }
        return {name: part for name, part in parts.items() if part is not None}


def begin(recipe: Recipe, device: torch.device, start: Path | None = None) -> State:
    """Networks and their optimisers, the same for the same seed; without lambda no discriminators.

    start: a folder of weights that the generator has at first, made by a recipe with the same [model] and kinds;
        without it the generator is untrained.
    """
    torch.manual_seed(recipe.training.seed)
    maps, model = len(recipe.data.kinds), recipe.model
    generator = Magic(maps, model.width, model.norm).to(device)
    if start:
        generator.load_state_dict(_fitting(start, recipe))
        _copy_branches(generator, recipe)
    elif model.copied:
        raise RecipeError("model.copied wants trained branches to copy; give the weights to begin with by --start")
    judges = None
    if "adversarial" in recipe.loss.lambdas:
        judges = Discriminators(maps, model.discriminator_width, model.norm).to(device)
    return State(
        generator=generator,
        average=copy.deepcopy(generator).requires_grad_(False) if recipe.training.ema else None,
        discriminators=judges,
        generator_optimiser=_adam(generator, recipe),
        discriminator_optimiser=_adam(judges, recipe) if judges else None,
    )


def _fitting(start: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The tensors of a folder of weights; raises RecipeError where they are those of another generator."""
    manifest, tensors = weights.load(start)
    theirs = (manifest.width, manifest.norm, manifest.kinds)
    if theirs != (ours := (recipe.model.width, recipe.model.norm, recipe.data.kinds)):
        raise RecipeError(f"{start} has width, norm and kinds {theirs}, the recipe {ours}; start from fitting weights")
    return tensors


def _copy_branches(generator: Magic, recipe: Recipe) -> None:
    """Each branch named in model.copied becomes the other's, both as they were at the start."""
    kinds, states = recipe.data.kinds, [copy.deepcopy(branch.state_dict()) for branch in generator.branches]
    for kind, source in recipe.model.copied.items():
        generator.branches[kinds.index(kind)].load_state_dict(states[kinds.index(source)])


def _adam(module: nn.Module, recipe: Recipe) -> Adam:
    training = recipe.training
    return Adam(module.parameters(), lr=training.learning_rate, betas=(training.beta1, training.beta2))


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Begin the random numbers of an epoch (dropout), different in each process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def save(out: Path, state: State, recipe: Recipe, data_digest: str) -> None:
    """Replace the checkpoint at one stroke: whoever reads it finds the old one or the new one, whole."""
    content: dict[str, Any] = {name: part.state_dict() for name, part in state.parts().items()}
    content |= {"history": state.history, "recipe": recipe.digest(), "data": data_digest}
    partial = out / f"{CHECKPOINT}.partial"
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(out / CHECKPOINT)


def resume(out: Path, state: State, recipe: Recipe, data_digest: str) -> None:
    """Fill a state from the checkpoint of a folder, where it has one; refuse another recipe or other patients."""
    path = out / CHECKPOINT
    if not path.exists():
        return
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, digest in (("recipe", recipe.digest()), ("data", data_digest)):
        if content[name] != digest:
            raise RecipeError(f"{path} was made with another {name}; go on with that one, or name a new folder")
    for name, part in state.parts().items():
        part.load_state_dict(content[name])
    state.history = content["history"]
