"""The patch discriminators: the paper's parameter counts, a 70x70 view and a 30x30 verdict for each map."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from training.discriminators import Discriminator, Discriminators, receptive_field


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def by_hand(width: int) -> int:
    """Parameters of one discriminator: 16 weights per pair of channels and a bias per output channel."""
    channels = [4, width, 2 * width, 4 * width, 8 * width, 1]
    return sum(16 * a * b + b for a, b in pairwise(channels))


def meta(network: type[nn.Module], *args, **kwargs) -> nn.Module:
    with torch.device("meta"):
        return network(*args, **kwargs)


def test_one_discriminator_has_the_parameters_of_the_paper():
    assert count(meta(Discriminator)) == by_hand(64) == 2_765_761


def test_four_discriminators_have_the_parameters_of_the_paper():
    assert count(meta(Discriminators, maps=4)) == 11_063_044


def test_batch_normalisation_adds_7168_parameters_to_four_discriminators():
    assert count(meta(Discriminators, maps=4, norm="batch")) == 11_063_044 + 7_168


@pytest.mark.parametrize("maps", range(1, 7))
@pytest.mark.parametrize("width", [1, 8, 64, 96])
def test_the_count_follows_the_formula(maps, width):
    assert count(meta(Discriminators, maps=maps, width=width)) == maps * by_hand(width)


def test_the_verdict_is_30_by_30_for_each_map_and_a_probability():
    torch.manual_seed(0)
    verdicts = Discriminators(maps=3, width=2)(torch.randn(2, 3, 256, 256), torch.randn(2, 3, 256, 256))
    assert verdicts.shape == (2, 3, 30, 30)
    assert 0 < verdicts.min() < verdicts.max() < 1


def test_a_verdict_is_about_its_own_map_and_the_ct():
    torch.manual_seed(0)
    network = Discriminators(maps=2, width=2)
    planes, maps = torch.randn(1, 3, 256, 256), torch.randn(1, 2, 256, 256)
    first, second = network(planes, maps).unbind(dim=1)
    maps[:, 1] = torch.randn(1, 256, 256)
    first_after, second_after = network(planes, maps).unbind(dim=1)
    assert torch.equal(first, first_after)
    assert not torch.equal(second, second_after)
    assert not torch.equal(first, network(torch.randn(1, 3, 256, 256), maps)[:, 0])


def test_one_output_element_sees_70_by_70_pixels():
    """By impulse response: the gradient of one output element is non-zero on a 70x70 square and nowhere else.

    Without the normalisation layers, whose mean and variance come from the whole plane.
    """
    torch.manual_seed(0)
    network = bare(Discriminator(width=2)).double()
    planes = torch.randn(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    values = torch.randn(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    network(planes, values)[0, 0, 15, 14].backward()
    for gradient in (planes.grad, values.grad):
        rows, columns = torch.nonzero(gradient[0].abs().sum(dim=0), as_tuple=True)
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 70
        assert len(rows) == 70 * 70
    # Output element i begins at input 8 i - 23: (((-1) 2 - 1) 2 - 1 ...) through five paddings of 1.
    assert (rows.min(), columns.min()) == (8 * 15 - 23, 8 * 14 - 23)
    assert receptive_field(network) == 70


def bare(network: Discriminator) -> Discriminator:
    network = copy.deepcopy(network)
    kept = [layer for layer in network.layers if not isinstance(layer, nn.InstanceNorm2d)]
    network.layers = nn.Sequential(*kept)
    return network


def test_a_number_of_maps_or_channels_below_one_is_refused():
    with pytest.raises(ValueError, match="maps=0"):
        Discriminators(maps=0)
    with pytest.raises(ValueError, match="width=0"):
        Discriminator(width=0)
    with pytest.raises(ValueError, match="'layer'"):
        Discriminator(norm="layer")
