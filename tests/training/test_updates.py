"""One update: the discriminators first and alone, then the generator; every loss reaches it; accumulation adds up."""

import copy

import pytest
import torch
from torch import nn

from training import recipe, state
from training.data import Sample
from training.team import Team
from training.updates import Updates

ALONE = Team(0, 1, torch.device("cpu"))


def batch(seed: int = 0, slices: int = 2) -> Sample:
    random = torch.Generator().manual_seed(seed)
    mask = torch.zeros(slices, 1, 256, 256, dtype=torch.bool)
    mask[..., 60:200, 60:200] = True
    planes = torch.rand(slices, 3, 256, 256, generator=random) * 1.6 - 0.8
    maps = torch.rand(slices, 5, 256, 256, generator=random) * 1.6 - 0.8
    return Sample(torch.where(mask, planes, -1.0), torch.where(mask, maps, -1.0), mask)


def updates(**sections) -> Updates:
    sections["model"] = {"width": 1, "discriminator_width": 1}
    chosen = recipe.parse(sections)
    return Updates(chosen, ALONE, state.begin(chosen, ALONE.device))


def bits(module: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in module.state_dict().values()]


def same(before: list[torch.Tensor], module: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, module.state_dict().values(), strict=True))


def test_the_discriminators_are_updated_first():
    made, order = updates(), []
    made.state.generator_optimiser.register_step_post_hook(lambda *_: order.append("generator"))
    made.state.discriminator_optimiser.register_step_post_hook(lambda *_: order.append("discriminators"))
    made.run([batch()])
    assert order == ["discriminators", "generator"]


def test_the_step_of_the_discriminators_leaves_the_generator_and_its_gradients_alone():
    made = updates()
    before = bits(made.state.generator), bits(made.state.discriminators)
    made.update_discriminators([batch()])
    assert same(before[0], made.state.generator)
    assert all(parameter.grad is None for parameter in made.state.generator.parameters())
    assert not same(before[1], made.state.discriminators)


def test_the_step_of_the_generator_finds_the_discriminators_frozen():
    made = updates()
    before = bits(made.state.discriminators), bits(made.state.generator)
    made.update_generator([batch()])
    assert same(before[0], made.state.discriminators)
    assert all(parameter.grad is None for parameter in made.state.discriminators.parameters())
    assert all(parameter.requires_grad for parameter in made.state.discriminators.parameters())
    assert not same(before[1], made.state.generator)


@pytest.mark.parametrize("term", ["adversarial", "l1", "extrema", "multimodal", "synthetic_cbv"])
def test_each_term_alone_reaches_the_generator(term):
    others = dict.fromkeys(("adversarial", "l1", "extrema", "multimodal", "synthetic_cbv"), 0.0)
    made = updates(loss={**others, term: 100.0})
    assert (set(made.run([batch()])) - {"discriminators"}) == {term}
    shared = made.state.generator.encoders[0].convolution.weight.grad
    assert shared is not None and shared.abs().sum() > 0


def test_without_the_adversarial_term_there_are_no_discriminators():
    made = updates(loss={"adversarial": 0.0})
    assert made.state.discriminators is None and made.judge is None
    assert made.run([batch()]).keys() == {"l1", "extrema", "multimodal"}


def test_two_batches_of_one_update_have_the_gradient_of_one_batch_of_both():
    """Dropout off, so that both see the same network; the losses here are means over slices of equal size."""
    chosen = {"loss": {"adversarial": 0.0, "multimodal": 0.0, "extrema": 0.0}}
    apart, together = updates(**chosen), updates(**chosen)
    whole = batch(slices=4)
    halves = [Sample(*(part[:2] for part in whole)), Sample(*(part[2:] for part in whole))]
    for made, group in ((apart, halves), (together, [whole])):
        made.state.generator.eval()
        made.update_generator(group)
    for a, b in zip(apart.state.generator.parameters(), together.state.generator.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)


def test_the_running_mean_follows_the_generator():
    made = updates(training={"ema": 0.75})
    before = copy.deepcopy(made.state.average)
    made.run([batch()])
    for mean, was, now in zip(
        made.state.average.parameters(), before.parameters(), made.state.generator.parameters(), strict=True
    ):
        torch.testing.assert_close(mean, 0.75 * was + 0.25 * now)
    assert made.state.best is made.state.average


def test_mixed_precision_keeps_parameters_and_losses_in_float32():
    made = updates(training={"precision": "bfloat16"})
    terms = made.run([batch()])
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert all(torch.isfinite(term) for term in terms.values())
    assert {parameter.dtype for parameter in made.state.generator.parameters()} == {torch.float32}
