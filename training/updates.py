"""One update: the discriminators first, then the generator against them as they now are (models.md T2, L1).

The discriminators' step makes its maps without keeping the graph and the generator's step makes them again: one
forward pass more, and any number of accumulated batches sees the same networks in the same memory.
Dimensions: B batch, C channels, K map kinds, Y X space.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training import losses, team
from training.data import Sample
from training.discriminators import Discriminators
from training.recipe import Recipe
from training.state import State
from training.team import Team

Group = list[Sample]  # the batches of one update
Terms = dict[str, Tensor]


class Judge(nn.Module):
    """The discriminators before their sigmoid, asked about acquired and generated maps in one call."""

    def __init__(self, discriminators: Discriminators) -> None:
        super().__init__()
        self.discriminators = discriminators

    def forward(self, planes_BCYX: Tensor, real_BKYX: Tensor, fake_BKYX: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both, each (B, K, 30, 30)."""
        judges = self.discriminators
        return judges.logits(planes_BCYX, real_BKYX), judges.logits(planes_BCYX, fake_BKYX)


class Updates:
    """One update after another of the networks of a state."""

    def __init__(self, recipe: Recipe, members: Team, state: State) -> None:
        self.recipe, self.state, self.device = recipe, state, members.device
        self.generator = members.wrap(state.generator)
        self.judge = members.wrap(Judge(state.discriminators)) if state.discriminators else None

    def run(self, group: Group) -> Terms:
        """The discriminators, the generator, its running mean. Returns the losses, averaged over the group."""
        terms = {**self.update_discriminators(group), **self.update_generator(group)}
        self.state.follow(self.recipe.training.ema)
        return terms

    def update_discriminators(self, group: Group) -> Terms:
        """The generator is left as it is; nothing where the recipe has no adversarial term."""
        optimiser = self.state.discriminator_optimiser
        if self.judge is None or optimiser is None:
            return {}
        return _update(self.judge, optimiser, group, self._discriminator_terms, {"discriminators": 1.0})

    def update_generator(self, group: Group) -> Terms:
        """The discriminators are frozen meanwhile: they pass gradients on and gather none."""
        optimiser, lambdas = self.state.generator_optimiser, self.recipe.loss.lambdas
        with _frozen(self.state.discriminators):
            return _update(self.generator, optimiser, group, self._generator_terms, lambdas)

    def _discriminator_terms(self, batch: Sample) -> Terms:
        assert self.judge is not None
        with self._precision():
            with torch.no_grad():
                made_BKYX = self.generator(batch.planes)
            real, fake = self.judge(batch.planes, batch.maps, made_BKYX)
        return {"discriminators": losses.discriminator(real.float(), fake.float())}

    def _generator_terms(self, batch: Sample) -> Terms:
        with self._precision():
            made_BKYX = self.generator(batch.planes)
            judges = self.state.discriminators
            logits = None if judges is None else judges.logits(batch.planes, made_BKYX)
        loss = self.recipe.loss
        truth = losses.Truth(batch.maps, batch.mask, self.recipe.data.kinds)
        terms = losses.generator_terms(made_BKYX.float(), truth, list(loss.lambdas), loss.variant, loss.lesion_weight)
        return terms if logits is None else {"adversarial": losses.adversarial(logits.float()), **terms}

    def _precision(self) -> torch.autocast:
        mixed = self.recipe.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)


@contextmanager
def _frozen(network: nn.Module | None) -> Iterator[None]:
    """Within it, the parameters of a network, where there is one, gather no gradients."""
    parameters = list(network.parameters()) if network else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    yield
    for parameter in parameters:
        parameter.requires_grad_(True)


def mean(rows: Sequence[Terms]) -> Terms:
    """Each term's mean over the rows."""
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}


def _update(
    network: nn.Module,
    optimiser: Optimizer,
    group: Group,
    terms_of: Callable[[Sample], Terms],
    lambdas: Mapping[str, float],
) -> Terms:
    """One step along the mean gradient of the group; in a team, the last batch brings the gradients together."""
    optimiser.zero_grad()
    found = []
    for left, batch in zip(reversed(range(len(group))), group, strict=True):
        with team.local_gradients(network) if left else nullcontext():
            terms = terms_of(batch)
            (losses.total(terms, lambdas) / len(group)).backward()  # type: ignore[no-untyped-call]
        found.append({name: term.detach() for name, term in terms.items()})
    optimiser.step()
    return mean(found)
