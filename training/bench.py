"""How long an update of the trainer takes on this machine, case beside case: `python -m training bench`.

Random slices stand in for patients, so reading and augmentation are left out. The cases take turns, and each round
gives one ratio to the first case: a machine that is busy slows all of them alike. The arithmetic of an update is three
times that of a forward pass: forward, gradients of the inputs, gradients of the weights.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from inference.maps import KINDS
from inference.models.magic import SIDE
from training import describe, state, team
from training.data import Sample
from training.recipe import Recipe
from training.updates import Updates

PASSES = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: the width of the generator, its precision, and whether discriminators train with it."""

    width: int
    precision: Literal["float32", "bfloat16"] = "float32"
    adversarial: bool = False

    @property
    def words(self) -> str:
        """For the table."""
        return f"width {self.width}, {self.precision}{', adversarial' if self.adversarial else ''}"

    def recipe(self, batch: int) -> Recipe:
        """The recipe of magic.toml with this case in it."""
        plain = Recipe()
        return replace(
            plain,
            model=replace(plain.model, width=self.width, discriminator_width=self.width),
            loss=replace(plain.loss, adversarial=float(self.adversarial)),
            training=replace(plain.training, batch=batch, precision=self.precision),
        )


CASES = (Case(8), Case(8, "bfloat16"), Case(12), Case(12, "bfloat16"), Case(12, adversarial=True))


@dataclass(frozen=True, slots=True)
class Timing:
    """seconds: of each round, for one slice; forward_macs: of the generator, for one slice."""

    case: Case
    seconds: tuple[float, ...]
    forward_macs: int


def bench(cases: Sequence[Case] = CASES, rounds: int = 5, batch: int = 8) -> list[Timing]:
    """Time one update of every case in every round, after one that does not count."""
    with team.join("auto") as members:
        updates = [Updates(recipe, members, state.begin(recipe, members.device)) for recipe in _recipes(cases, batch)]
        group = [_noise(batch, members.device)]
        for each in updates:
            each.run(group)
        times = [[_seconds(each, group) / batch for each in updates] for _ in range(rounds)]
    macs = [describe.magic(len(KINDS), case.width)[0].macs for case in cases]
    return [
        Timing(case, column, count) for case, column, count in zip(cases, zip(*times, strict=True), macs, strict=True)
    ]


def show(timings: Sequence[Timing], console: Console) -> None:
    """Print the medians over the rounds."""
    table = Table(
        title=f"one update for each slice, {torch.get_num_threads()} threads, {len(timings[0].seconds)} rounds"
    )
    for heading in ("case", "ms a slice", "times the first (least to most)", "GFLOP/s of the generator"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for timing in timings:
        ratios = [mine / first for mine, first in zip(timing.seconds, timings[0].seconds, strict=True)]
        seconds = median(timing.seconds)
        table.add_row(
            timing.case.words,
            f"{1000 * seconds:.1f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{2 * PASSES * timing.forward_macs / seconds / 1e9:.0f}",
        )
    console.print(table)


def _recipes(cases: Sequence[Case], batch: int) -> list[Recipe]:
    return [case.recipe(batch) for case in cases]


def _noise(batch: int, device: torch.device) -> Sample:
    random = torch.Generator().manual_seed(0)
    planes, maps = (torch.rand(batch, count, SIDE, SIDE, generator=random) * 2 - 1 for count in (3, len(KINDS)))
    return Sample(planes.to(device), maps.to(device), torch.ones(batch, 1, SIDE, SIDE, dtype=torch.bool, device=device))


def _seconds(updates: Updates, group: list[Sample]) -> float:
    begun = time.perf_counter()
    terms = updates.run(group)
    next(iter(terms.values())).item()  # waits for the device
    return time.perf_counter() - begun
