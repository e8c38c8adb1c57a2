"""How a generator is trained, epoch by epoch, from a recipe and a cohort (models.md T1); one update is in `updates`.

A folder of results holds checkpoint.pt (the training goes on from it), curves.csv and curves.png, and `weights`, the
generator of the best epoch so far. On several GPUs: `torchrun --nproc-per-node N -m training train ...`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import Progress
from torch.utils.data import DataLoader

from training import curves, data, export, state, team, validation
from training.data import CohortError, Sample, Slices
from training.recipe import Recipe
from training.state import State
from training.team import Team
from training.updates import Group, Updates, mean


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What stays the same during a training."""

    recipe: Recipe
    team: Team
    training: Slices
    validation: Slices
    data_digest: str
    out: Path


def train(recipe: Recipe, cohort: Path, out: Path, start: Path | None = None) -> Path:
    """Train on a cohort, or go on where the checkpoint in `out` ends. Returns the folder of the best weights.

    start: weights to begin with, of an earlier recipe.
    """
    with team.join(recipe.training.device) as members:
        work = _prepare(recipe, cohort, out, members)
        now = state.begin(recipe, members.device, start)
        state.resume(out, now, recipe, work.data_digest)
        updates = Updates(recipe, members, now)
        epochs = range(len(now.history), recipe.training.epochs)
        with Progress(disable=not members.first) as progress:
            task = progress.add_task("training", total=len(epochs))
            for epoch in epochs:
                _epoch(epoch, work, now, updates, partial(progress.advance, task))
    return out / export.FOLDER


def _prepare(recipe: Recipe, cohort: Path, out: Path, members: Team) -> Work:
    out.mkdir(parents=True, exist_ok=True)
    settings, seed = recipe.data, recipe.training.seed
    learn, check = data.divide(data.read_cohort(cohort), settings.validation_share, seed)
    return Work(
        recipe=recipe,
        team=members,
        training=Slices(
            learn, settings.kinds, seed if settings.augment else None, settings.cache, shuffled=settings.shuffled
        ),
        validation=Slices(check, settings.kinds, None, cache=1),
        data_digest=data.digest([*learn, *check]),
        out=out,
    )


def _epoch(epoch: int, work: Work, now: State, updates: Updates, advance: Callable[[float], None]) -> None:
    """One pass over the training patients; the first process then validates and writes."""
    state.seed_epoch(work.recipe.training.seed, epoch, work.team.rank)
    batches = schedule(work, epoch)
    rows = []
    for group in groups(work, epoch, batches):
        rows.append(updates.run(group))
        advance(len(group) / len(batches))
    row = {"epoch": float(epoch), **{name: value.item() for name, value in mean(rows).items()}}
    if not np.isfinite(list(row.values())).all():
        raise FloatingPointError(f"the losses are no longer numbers: {row}; go on with a lower learning_rate")
    if work.team.first:
        found = validation.validate(now.best, work.validation, work.team.device, work.recipe.training.batch)
        figures = {f"{curves.VALIDATION}{name}": value for name, value in found.items()}
        now.history.append(row | figures)
        _write(work, now)
    work.team.wait()


def _write(work: Work, now: State) -> None:
    """The weights, if they are the best so far, then the curves, and the checkpoint last."""
    scores = [row[f"{curves.VALIDATION}score"] for row in now.history]
    if scores[-1] == min(scores):
        figures = {name: value for name, value in now.history[-1].items() if name.startswith(curves.VALIDATION)}
        export.export(work.out, now.best, work.recipe, work.data_digest, figures)
    curves.write(work.out, now.history)
    state.save(work.out, now, work.recipe, work.data_digest)


def schedule(work: Work, epoch: int) -> list[list[int]]:
    """The batches of this process in an epoch, as indices; the team shares the slices out.

    Only whole updates: the few slices that are left over have their turn in another epoch.
    """
    recipe, members = work.recipe, work.team
    settings, batch = recipe.data, recipe.training.batch
    indices = data.order(work.training, recipe.training.seed, epoch, balanced=settings.balanced, block=settings.cache)
    needed = batch * recipe.training.accumulate * members.size
    if len(indices) < needed:
        raise CohortError(
            f"an epoch has {len(indices)} slices and one update wants {needed}; train with a smaller batch"
        )
    mine = indices[members.rank :: members.size]
    count = len(indices) // needed * recipe.training.accumulate
    return [mine[number * batch : (number + 1) * batch] for number in range(count)]


def groups(work: Work, epoch: int, schedule: list[list[int]]) -> Iterator[Group]:
    """The updates of an epoch, each as its batches on the device."""
    work.training.epoch = epoch
    loader = DataLoader(work.training, batch_sampler=schedule, num_workers=work.recipe.data.workers)
    batches = (Sample(*(part.to(work.team.device) for part in batch)) for batch in loader)
    while group := list(islice(batches, work.recipe.training.accumulate)):
        yield group
