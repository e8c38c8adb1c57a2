"""inference.familiar: a head like those of training has a score of about one, another is warned of, none is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from inference import familiar, preprocess, weights
from inference.engine import Engine, load_engine
from inference.familiar import Familiar
from inference.preprocess import Prepared
from inference.volume import from_slices
from inference.weights import WeightsError
from tests import phantom
from tests.tools import data
from training import familiar as fitting


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(*weights.load(weights.shipped()), threads=1)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return preprocess.prepare(from_slices(phantom.head(phantom.even(20), matrix=64)))


def heads(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal((1.0, -2.0, 0.0), (1.0, 0.1, 5.0), (count, 3))


def test_a_head_like_the_others_is_about_one_spread_away_and_another_is_warned_of():
    found = familiar.fit(heads(200, 1), heads(19, 2))
    assert np.mean([found.score(each) for each in heads(200, 3)]) == pytest.approx(1.0, abs=0.15)
    assert found.judge(np.array(found.mean)) == ()
    (sentence,) = found.judge(np.array(found.mean) + 9 * np.array(found.spread))
    assert sentence == f"Unlike the heads that the weights were trained on: 9.0, at most {found.limit:.1f} is usual."


def test_the_limit_is_the_highest_score_of_the_heads_held_out():
    held_out = heads(19, 2)
    found = familiar.fit(heads(200, 1), held_out)
    assert sorted(bool(found.judge(each)) for each in held_out) == [False] * 19
    assert (found.heads, found.held_out) == (200, 19)


def test_a_feature_that_never_changes_divides_by_no_zero():
    found = familiar.fit(np.ones((5, 2)), np.ones((3, 2)))
    assert found.limit == 0.0
    assert found.judge(np.array([1.0, 2.0]))


def test_features_are_of_the_brain_and_do_not_depend_on_slices_without_any(engine, prepared):
    features = familiar.describe(prepared, engine)
    assert features.shape == (30 * engine.manifest.width,)
    assert np.isfinite(features).all()
    empty = replace(prepared, planes=np.repeat(prepared.planes, 2, 0), mask=np.repeat(prepared.mask, 2, 0))
    empty.mask[1::2] = False
    np.testing.assert_allclose(familiar.describe(empty, engine), features, rtol=1e-5, atol=1e-6)


def test_a_head_without_a_brain_has_no_features(engine, prepared):
    with pytest.raises(ValueError, match="without a brain"):
        familiar.describe(replace(prepared, mask=np.zeros_like(prepared.mask)), engine)


@pytest.fixture
def folder(tmp_path: Path, engine) -> Path:
    weights.save(tmp_path, engine.manifest, engine.generator.state_dict())
    return tmp_path


def test_it_comes_back_as_saved_and_the_manifest_names_it(folder):
    tensors = weights.read(folder).sha256
    made = fitting.keep(folder, Familiar((1.0, 2.0), (0.5, 0.25), 60, 1.75, 59))
    assert familiar.read(folder, weights.verify(folder)) == made
    assert weights.read(folder).sha256 == tensors


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text(path.read_text().replace("1.75", "99.0")), "sha256 expected"),
    ],
)
def test_another_limit_than_the_manifest_names_is_not_used(folder, spoil, words):
    fitting.keep(folder, Familiar((1.0, 2.0), (0.5, 0.25), 60, 1.75, 59))
    spoil(folder / familiar.FILE)
    with pytest.raises(WeightsError, match=words):
        familiar.read(folder, weights.read(folder))


@pytest.fixture(scope="module")
def shipped(engine) -> Familiar:
    return familiar.read(weights.shipped(), engine.manifest)


def test_the_shipped_weights_know_how_a_head_of_theirs_looks(shipped, engine):
    assert len(shipped.mean) == len(shipped.spread) == 30 * engine.manifest.width
    assert 0.5 < shipped.limit < 4.0


def test_a_phantom_of_ellipsoids_is_like_no_training_head(shipped, engine, prepared):
    assert shipped.judge(familiar.describe(prepared, engine))


def test_the_real_head_is_unlike_the_virtual_ones(shipped, engine):
    slices = [dcmread(path) for path in sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))]
    features = familiar.describe(preprocess.prepare(from_slices(slices)), engine)
    assert shipped.score(features) > 1.5 * shipped.limit
    (sentence,) = shipped.judge(features)
    assert sentence.startswith("Unlike the heads that the weights were trained on")
