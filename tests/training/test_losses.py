"""The losses of MAGIC against values computed by hand, and where their gradients go."""

import math

import pytest
import torch

from inference.maps import KINDS
from training import losses
from training.losses import Truth

NAMES = tuple(KINDS)


def learnt(**values: float) -> torch.Tensor:
    """(1, 5, 4, 4): each map a constant in its own unit, 0 where not named."""
    planes = [torch.full((4, 4), 2 * values.get(name, 0.0) / KINDS[name].ceiling - 1) for name in NAMES]
    return torch.stack(planes)[None]


def truth(maps: torch.Tensor, mask: torch.Tensor | None = None) -> Truth:
    inside = torch.ones_like(maps[:, :1], dtype=torch.bool) if mask is None else mask
    return Truth(maps, inside, NAMES)


def random_maps(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 5, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def half_mask(maps: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros_like(maps[:, :1], dtype=torch.bool)
    mask[..., : maps.shape[-1] // 2] = True
    return mask


def test_equation_1_for_the_discriminators_is_the_cross_entropy_of_both_verdicts():
    real, fake = torch.full((1, 2, 3, 3), 2.0), torch.full((1, 2, 3, 3), -1.0)
    by_hand = -math.log(1 / (1 + math.exp(-2))) - math.log(1 - 1 / (1 + math.exp(1)))
    assert losses.discriminator(real, fake).item() == pytest.approx(by_hand, rel=1e-6)


def test_equation_1_for_the_generator_is_not_saturating():
    """Where the discriminators are sure, log(1 - D) has no slope; -log D has the slope of a straight line."""
    logits = torch.full((1, 2, 3, 3), -60.0, requires_grad=True)
    losses.adversarial(logits).backward()
    assert logits.grad.sum().item() == pytest.approx(-1.0, abs=1e-6)


def test_the_adversarial_terms_are_the_mean_over_maps():
    per_map = torch.tensor([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1).expand(2, 3, 5, 5)
    each = [losses.adversarial(per_map[:, k : k + 1]) for k in range(3)]
    assert losses.adversarial(per_map).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)


def test_equation_2_is_the_mean_absolute_error_over_maps_and_pixels():
    made, true = learnt(CBF=30.0), learnt(CBF=15.0, MTT=6.0)
    by_hand = (15.0 / 30.0 + 6.0 / 6.0) / 5  # one unit of the learnt range is half a ceiling; five maps
    assert losses.l1(made, truth(true)).item() == pytest.approx(by_hand, rel=1e-6)


def test_a_lesion_weight_counts_pixels_with_tmax_above_6_s_and_1_is_the_plain_loss():
    true = learnt(Tmax=3.0)
    true[..., :2] = learnt(Tmax=9.0)[..., :2]
    made = true + 0.1
    assert losses.l1(made, truth(true), 3.0).item() == pytest.approx(0.1 * (1 + 3) / 2, rel=1e-5)
    assert losses.l1(made, truth(true), 1.0) == losses.l1(made, truth(true))


def test_exactly_6_seconds_is_no_lesion():
    assert not losses.lesion(truth(learnt(Tmax=6.0))).any()


@pytest.mark.parametrize("variant", ["paper", "mended"])
def test_cbf_60_and_mtt_4_s_are_cbv_4(variant):
    """60 ml/100 g/min x 4 s / 60 = 4 ml/100 g; in 0..1 that is 3 x 1 x 1/3 = 1 (models.md L3, A7)."""
    true = learnt(CBF=50.0, MTT=3.0, CBV=2.5)
    made = learnt(CBF=50.0, MTT=3.0)
    assert losses.multimodal(made, truth(true), variant).item() == pytest.approx(0.0, abs=1e-6)
    assert pytest.approx(3.0) == losses.CENTRAL_VOLUME


@pytest.mark.parametrize("variant", ["paper", "mended"])
def test_the_multimodal_error_is_in_units_of_the_cbv_ceiling(variant):
    true, made = learnt(CBF=40.0, MTT=6.0, CBV=3.0), learnt(CBF=30.0, MTT=4.0)
    assert losses.multimodal(made, truth(true), variant).item() == pytest.approx(abs(30 * 4 / 60 - 3.0) / 4, rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "mended"])
def test_the_multimodal_loss_reaches_cbf_and_mtt_alone(variant):
    made = random_maps(1).requires_grad_(True)
    losses.multimodal(made, truth(random_maps(2)), variant).backward()
    reached = {name for name, slope in zip(NAMES, made.grad.abs().sum(dim=(0, 2, 3)), strict=True) if slope > 0}
    assert reached == {"CBF", "MTT"}


def test_the_synthetic_cbv_term_reaches_cbv_too():
    made = random_maps(1).requires_grad_(True)
    losses.synthetic_cbv(made, truth(random_maps(2))).backward()
    reached = {name for name, slope in zip(NAMES, made.grad.abs().sum(dim=(0, 2, 3)), strict=True) if slope > 0}
    assert reached == {"CBF", "CBV", "MTT"}


@pytest.mark.parametrize("name", ["CBF", "CBV", "MTT"])
def test_a_pixel_cut_off_at_a_ceiling_has_no_part_in_the_mended_multimodal_loss(name):
    true = random_maps(2)
    true[:, NAMES.index(name), 0, 0] = 1.0
    made = random_maps(1).requires_grad_(True)
    losses.multimodal(made, truth(true), "mended").backward()
    assert made.grad[..., 0, 0].abs().sum() == 0
    assert made.grad[..., 0, 1].abs().sum() > 0


@pytest.mark.parametrize("loss", [losses.multimodal, losses.extrema])
def test_the_mended_losses_stay_inside_the_brain_and_the_printed_ones_do_not(loss):
    true, made = random_maps(2), random_maps(1)
    mask = half_mask(true)
    elsewhere = torch.where(mask, made, made - 0.05)
    assert loss(elsewhere, truth(true, mask), "mended") == loss(made, truth(true, mask), "mended")
    assert loss(elsewhere, truth(true, mask), "paper") != loss(made, truth(true, mask), "paper")


def test_the_extrema_loss_as_printed_by_hand():
    """Truth 0, 1/2, 1 after min-max; made 0, 1, 1/2: W = 1/4, 0, 1/4; H = 0, 1/4, 1/4; mean of W x H = 1/48."""
    true = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    made = torch.tensor([-0.4, 0.0, -0.2]).reshape(1, 1, 1, 3)
    both = Truth(true, torch.ones_like(true, dtype=torch.bool), ("CBF",))
    assert losses.extrema(made, both, "paper").item() == pytest.approx(1 / 48, rel=1e-4)


def test_the_mended_extrema_loss_by_hand():
    """H keeps the scale: made 0.3, 0.5, 0.4 of the ceiling against 0, 1/2, 1 is H = 0.09, 0, 0.36; mean 0.45 / 12."""
    true = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    made = torch.tensor([-0.4, 0.0, -0.2]).reshape(1, 1, 1, 3)
    both = Truth(true, torch.ones_like(true, dtype=torch.bool), ("CBF",))
    assert losses.extrema(made, both, "mended").item() == pytest.approx(0.45 / 12, rel=1e-4)


@pytest.mark.parametrize("variant", ["paper", "mended"])
def test_the_extrema_loss_has_a_gradient_in_every_map(variant):
    """The public code computes it in NumPy, where it has none (models.md 4.1 number 1)."""
    made = random_maps(1).requires_grad_(True)
    losses.extrema(made, truth(random_maps(2)), variant).backward()
    assert (made.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("variant", ["paper", "mended"])
@pytest.mark.parametrize("constant_truth", [False, True])
def test_constant_maps_give_a_finite_extrema_loss_and_gradient(variant, constant_truth):
    made = torch.zeros(2, 5, 8, 8, requires_grad=True)
    loss = losses.extrema(made, truth(torch.zeros(2, 5, 8, 8) if constant_truth else random_maps(2)), variant)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(made.grad).all()


def test_min_max_is_of_each_image_by_itself():
    maps = torch.stack([random_maps(1, 1)[0], random_maps(2, 1)[0] * 0.1])
    scaled = losses.minmax(maps, torch.ones_like(maps[:, :1], dtype=torch.bool))
    assert scaled.amin(dim=(2, 3)).abs().max() < 1e-6
    assert (scaled.amax(dim=(2, 3)) - 1).abs().max() < 1e-4


def test_a_slice_without_brain_gives_finite_losses():
    made = random_maps(1).requires_grad_(True)
    empty = truth(random_maps(2), torch.zeros(2, 1, 8, 8, dtype=torch.bool))
    (losses.extrema(made, empty) + losses.multimodal(made, empty)).backward()
    assert torch.isfinite(made.grad).all()


def test_equation_8_is_linear_in_its_lambdas():
    terms = {"l1": torch.tensor(2.0), "extrema": torch.tensor(3.0)}
    assert losses.total(terms, {"l1": 100.0, "extrema": 10.0}).item() == 230.0


def test_only_the_terms_that_are_named_are_computed():
    terms = losses.generator_terms(random_maps(1), truth(random_maps(2)), ["adversarial", "l1"], "paper")
    assert terms.keys() == {"l1"}


def test_a_loss_names_the_map_that_it_misses():
    with pytest.raises(ValueError, match="needs the map MTT; the maps are CBF, Tmax"):
        losses.multimodal(random_maps(1), Truth(random_maps(2), half_mask(random_maps(2)), ("CBF", "Tmax")))
