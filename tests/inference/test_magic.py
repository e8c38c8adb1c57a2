"""The generator MAGIC: its counts, its shapes, and what the ratio does. Source: models.md sections 1 and 2.2."""

import pytest
import torch
from torch import Tensor

from inference.models.magic import Magic


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture
def planes() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def small() -> Magic:
    torch.manual_seed(0)
    return Magic(maps=3, width=2).eval()


def parameters(maps: int, width: int = 64, norm: str = "instance") -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Magic(maps, width, norm).parameters())


@pytest.mark.parametrize("maps", range(1, 7))
def test_the_number_of_parameters_is_that_of_the_formula(maps):
    assert parameters(maps) == 2_756_544 + maps * 51_648_966


@pytest.mark.parametrize(("maps", "count"), [(3, 157_703_442), (4, 209_352_408), (5, 261_001_374)])
def test_the_number_of_parameters_is_that_of_the_paper(maps, count):
    assert parameters(maps) == count


@pytest.mark.parametrize(("maps", "count"), [(4, 209_386_456), (1, 2_756_544 + 51_648_966 + 1_792 + 8_064)])
def test_batch_norm_adds_its_scales_and_offsets(maps, count):
    assert parameters(maps, norm="batch") == count


def test_instance_norm_has_no_parameters_and_no_running_statistics():
    with torch.device("meta"):
        state = Magic(maps=1, width=2).state_dict()
    assert {name.split(".")[-2] for name in state} == {"convolution", "pilo"}


def test_the_bottleneck_of_every_map_is_512_by_1_by_1():
    with torch.device("meta"):
        generator = Magic(maps=2)
        seen = []
        for branch in generator.branches:
            branch.encoders[-1].register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
        maps_BKYX = generator(torch.empty(2, 3, 256, 256))
    assert seen == [(2, 512, 1, 1)] * 2
    assert maps_BKYX.shape == (2, 2, 256, 256)


def test_every_stage_halves_or_doubles_the_plane():
    with torch.device("meta"):
        generator, sides = Magic(maps=1, width=2), []
        branch = generator.branches[0]
        for stage in (*generator.encoders, *branch.encoders, *branch.decoders):
            stage.register_forward_hook(lambda module, given, out: sides.append(out.shape[-1]))
        generator(torch.empty(1, 3, 256, 256))
    assert sides == [128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_a_plane_that_is_not_256_by_256_is_refused_by_its_shape(small):
    with pytest.raises(ValueError, match=r"\(1, 3, 128, 128\)"):
        small(torch.zeros(1, 3, 128, 128))


def test_a_generator_without_maps_cannot_be_made():
    with pytest.raises(ValueError, match="maps=0"):
        Magic(maps=0)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="'group'"):
        Magic(maps=1, width=2, norm="group")


def test_maps_lie_between_minus_one_and_one(small, planes):
    with torch.inference_mode():
        maps_BKYX = small(planes)
    assert maps_BKYX.abs().max() <= 1


def test_ratio_one_half_is_the_plain_forward_pass_bit_for_bit(small, planes):
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        plain = [
            torch.tanh(branch.pilo(torch.cat([perfusion_BKYX[:, k : k + 1], planes], 1)))
            for k, branch in enumerate(small.branches)
        ]
        assert torch.equal(small(planes, ratio=0.5), torch.cat(plain, 1))
        assert torch.equal(small(planes), torch.cat(plain, 1))


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_ratio_scales_perfusion_by_2r_and_all_three_slices_by_2_minus_2r(small, planes, ratio):
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        maps_BKYX = small(planes, ratio)
        for k, branch in enumerate(small.branches):
            w, b = branch.pilo.weight[0, :, 0, 0], branch.pilo.bias[0]
            anatomy = sum(w[1 + i] * planes[:, i] for i in range(3))
            expected = torch.tanh(2 * ratio * w[0] * perfusion_BKYX[:, k] + 2 * (1 - ratio) * anatomy + b)
            assert torch.allclose(maps_BKYX[:, k], expected, atol=1e-6)


@pytest.mark.parametrize("channel", range(3))
def test_ratio_one_forgets_each_of_the_three_slices(small, planes, channel):
    other = planes.clone()
    other[:, channel] += 0.3
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        assert torch.equal(small.blend(perfusion_BKYX, planes, 1.0), small.blend(perfusion_BKYX, other, 1.0))
        assert not torch.equal(small.blend(perfusion_BKYX, planes, 0.9), small.blend(perfusion_BKYX, other, 0.9))


def test_ratio_zero_forgets_the_perfusion(small, planes):
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        assert torch.equal(small.blend(perfusion_BKYX, planes, 0.0), small.blend(-perfusion_BKYX, planes, 0.0))


def test_the_share_of_perfusion_grows_with_the_ratio(small, planes):
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        shift = [
            torch.atanh(small.blend(perfusion_BKYX + 0.1, planes, r).double())
            - torch.atanh(small.blend(perfusion_BKYX, planes, r).double())
            for r in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
    sizes = [float(s.abs().mean()) for s in shift]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(2 * sizes[2], rel=1e-3)


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_outside_0_to_1_is_an_error(small, planes, ratio):
    with pytest.raises(ValueError, match=str(ratio)):
        small(planes, ratio)


def test_the_ratio_never_changes_the_weights(small, planes):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with torch.inference_mode():
        small(planes, 0.0)
        small(planes, 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_the_perfusion_image_is_offered_alone(small, planes):
    with torch.inference_mode():
        perfusion_BKYX = small.perfusion(planes)
        assert perfusion_BKYX.shape == (2, 3, 256, 256)
        assert torch.equal(small.blend(perfusion_BKYX, planes), small(planes))


def test_in_use_the_same_planes_give_the_same_maps(small, planes):
    with torch.inference_mode():
        assert torch.equal(small(planes), small(planes))


def test_in_training_dropout_of_one_half_works_in_decoders_1_to_3_only(small, planes):
    rates = [decoder.dropout.p for decoder in small.branches[0].decoders]
    assert rates == [0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    small.train()
    with torch.inference_mode():
        assert not torch.equal(small(planes), small(planes))


def test_a_slice_does_not_depend_on_its_companions_in_the_batch(small, planes):
    with torch.inference_mode():
        assert torch.allclose(small(planes)[1], small(planes[1:])[0], atol=1e-6)


def test_every_weight_receives_a_gradient_no_decoder_is_dead(planes):
    torch.manual_seed(0)
    generator = Magic(maps=3, width=2)
    generator(planes).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        # InstanceNorm subtracts the mean, so a bias just before it cannot matter; every weight does.
        if name.endswith("weight"):
            assert parameter.grad.abs().max() > 0, name


def test_a_map_depends_on_its_own_branch_only(small, planes):
    with torch.inference_mode():
        before = small(planes)
        for parameter in small.branches[1].parameters():
            parameter.mul_(1.5)
        changed = [not torch.equal(before[:, k], after) for k, after in enumerate(small(planes).unbind(1))]
    assert changed == [False, True, False]


def test_activations_stand_before_the_convolutions_as_specified(small):
    branch = small.branches[0]
    slopes = [getattr(stage.activation, "negative_slope", None) for stage in (*small.encoders, *branch.encoders)]
    assert slopes == [None] + [0.2] * 7
    normed = [isinstance(stage.norm, torch.nn.InstanceNorm2d) for stage in (*small.encoders, *branch.encoders)]
    assert normed == [False] + [True] * 6 + [False]
    assert [isinstance(d.norm, torch.nn.InstanceNorm2d) for d in branch.decoders] == [True] * 7 + [False]
