"""The last layer repeated from what is kept equals that of the generator at every ratio, after a way through a file."""

from dataclasses import replace

import numpy as np
import pytest

from inference import pilo, predict, preprocess, weights
from inference.engine import Engine, load_engine
from inference.pilo import Loop
from inference.preprocess import Prepared
from inference.units import in_units
from inference.volume import Volume, from_slices
from tests import phantom

LEVEL = 1 / 255  # of the range of a map


@pytest.fixture(scope="module")
def trained() -> Engine:
    """The shipped weights, whose Tmax is smoothed across slices."""
    return load_engine(*weights.load(weights.shipped()), threads=1)


@pytest.fixture(scope="module")
def head() -> tuple[Volume, Prepared]:
    volume = from_slices(phantom.head(phantom.even(12, 10.0, -55.0), matrix=96, thickness=10.0, tilt_degrees=8.0))
    return volume, preprocess.prepare(volume)


@pytest.fixture(scope="module")
def kept(trained: Engine, head, tmp_path_factory) -> Loop:
    _, prepared = head
    made = pilo.loop(prepared, predict.generate(prepared, trained).perfusion, trained.mix, trained.manifest)
    path = tmp_path_factory.mktemp("pilo") / "pilo.npz"
    with path.open("wb") as file:
        pilo.save(file, made, {"about": np.array("{}")})
    return pilo.load(path)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_what_is_kept_repeats_the_generator_at_every_ratio(kept: Loop, trained: Engine, head, ratio):
    _, prepared = head
    learnt_KSYX = np.full((5, *prepared.mask.shape), -1.0, np.float32)
    for s in np.flatnonzero(prepared.mask.any(axis=(1, 2))):
        learnt_KSYX[:, s] = trained.run(prepared.planes[s][None], ratio)[0]
    expected = in_units(learnt_KSYX, prepared.mask, prepared.grid.heights, trained.manifest)
    for kind, made, wanted in zip(trained.manifest.map_kinds, kept.values(ratio), expected, strict=True):
        assert np.abs(made - wanted).max() < kind.ceiling * LEVEL
        assert np.ptp(wanted[prepared.mask]) > kind.ceiling * LEVEL  # or the test would say nothing


def test_at_one_half_the_maps_are_those_that_are_written(kept: Loop, trained: Engine, head):
    written = predict.predict(*head, trained)
    for mine, theirs in zip(kept.maps(pilo.TRAINED, head[0]), written, strict=True):
        assert mine.kind is theirs.kind
        assert np.abs(mine.values - theirs.values).max() < mine.kind.ceiling * LEVEL


def test_without_the_smoothing_of_the_weights_they_would_not_be(kept: Loop):
    rough = replace(kept, manifest=replace(kept.manifest, smoothing={}))
    off = np.abs(rough.values(pilo.TRAINED) - kept.values(pilo.TRAINED)).max(axis=(1, 2, 3))
    ceilings = np.array([kind.ceiling for kind in kept.manifest.map_kinds])
    assert [kind for kind, far in zip(kept.manifest.kinds, off > ceilings * LEVEL, strict=True) if far] == ["Tmax"]


def test_everything_comes_back_from_the_file(kept: Loop, trained: Engine, head):
    _, prepared = head
    assert kept.manifest == trained.manifest
    assert np.array_equal(kept.mask, prepared.mask)
    assert np.array_equal(kept.grid.heights, prepared.grid.heights)
    assert np.abs(kept.planes[1] - prepared.planes[:, 1][prepared.mask]).max() < 2**-11
    assert (kept.perfusion.dtype, kept.planes.dtype) == (np.float16, np.float16)


def test_the_mix_is_what_the_layer_has_learnt(trained: Engine):
    pilo_layer = trained.generator.branches[2].pilo
    assert trained.mix[2, :4].tolist() == pilo_layer.weight.flatten().tolist()
    assert trained.mix[2, 4] == pilo_layer.bias.item()


def test_a_ratio_beyond_0_and_1_is_refused(kept: Loop):
    with pytest.raises(ValueError, match=r"1\.1"):
        kept.learnt(1.1)
