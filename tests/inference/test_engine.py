"""The engine: the same planes, the same bytes; weights that do not fit are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference import weights
from inference.engine import load_engine
from inference.weights import WeightsError


@pytest.fixture(scope="module")
def loaded():
    return weights.load(weights.shipped("ncct-untrained"))


@pytest.fixture
def planes() -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (5, 3, 256, 256)).astype(np.float32)


def test_maps_are_float32_in_the_learnt_range_one_for_each_kind(engine, planes):
    maps_BKYX = engine.run(planes)
    assert maps_BKYX.shape == (5, 5, 256, 256)
    assert maps_BKYX.dtype == np.float32
    assert np.abs(maps_BKYX).max() <= 1


def test_untrained_maps_are_neither_constant_nor_saturated(engine, planes):
    maps_BKYX = engine.run(planes)
    assert (maps_BKYX.std(axis=(0, 2, 3)) > 0.05).all()
    assert (np.abs(maps_BKYX) > 0.98).mean() < 0.01


def test_the_same_planes_give_the_same_bytes_whatever_ran_before(engine, planes):
    first = engine.run(planes)
    engine.run(-planes)
    assert np.array_equal(engine.run(planes), first)


def test_a_second_engine_of_the_same_weights_gives_the_same_bytes(engine, loaded, planes):
    assert np.array_equal(load_engine(*loaded, threads=1).run(planes), engine.run(planes))


def test_a_slice_does_not_depend_on_its_batch(engine, planes):
    together = engine.run(planes)
    alone = np.concatenate([engine.run(planes[i : i + 1]) for i in range(len(planes))])
    assert np.abs(together - alone).max() < 1e-5


def test_the_number_of_threads_is_fixed_at_every_run(loaded, planes):
    engine = load_engine(*loaded, threads=2)
    torch.set_num_threads(1)
    engine.run(planes[:1])
    assert torch.get_num_threads() == 2


def test_dropout_rests_and_no_gradient_is_kept(engine, planes):
    assert not engine.generator.training
    assert not torch.from_numpy(engine.run(planes[:1])).requires_grad


def test_ratio_one_half_is_the_default_and_others_differ(engine, planes):
    plain = engine.run(planes[:1])
    assert np.array_equal(engine.run(planes[:1], ratio=0.5), plain)
    assert not np.array_equal(engine.run(planes[:1], ratio=0.9), plain)


def test_the_perfusion_image_before_pilo_is_offered(engine, planes):
    perfusion_BKYX = engine.perfusion(planes[:1])
    assert perfusion_BKYX.shape == (1, 5, 256, 256)
    blended = engine.generator.blend(torch.from_numpy(perfusion_BKYX), torch.from_numpy(planes[:1])).detach().numpy()
    assert np.array_equal(blended, engine.run(planes[:1]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "unet"}, "'unet'"),
        ({"norm": "layer"}, "'layer'"),
        ({"preprocessing": "0"}, "preprocessing 0"),
        ({"width": 8}, "do not fit"),
        ({"kinds": ("CBF",)}, "do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_reason(loaded, fields, message):
    manifest, state = loaded
    with pytest.raises(WeightsError, match=message):
        load_engine(replace(manifest, **fields), state, threads=1)


def test_no_threads_is_an_error(loaded):
    with pytest.raises(ValueError, match="got 0"):
        load_engine(*loaded, threads=0)
