"""Drawing patients: reproducible, complete in JSON, in the shares of the mix, and split by seed."""

from collections import Counter

import numpy as np
import pytest

from training.simulate.params import MIXES, SPLITS, draw, from_json, split_of


def test_the_same_seed_is_the_same_patient():
    assert draw(17, "balanced") == draw(17, "balanced")
    assert draw(17) != draw(18)


def test_json_gives_back_every_bit():
    for seed in range(200):
        params = draw(seed, "balanced")
        assert from_json(params.to_json()) == params


def test_a_new_attempt_redraws_the_patient_and_keeps_the_class():
    for seed in range(50):
        first, second = draw(seed), draw(seed, attempt=1)
        assert first.severity == second.severity
        assert first.age != second.age


@pytest.mark.parametrize("mix", MIXES)
def test_classes_come_in_the_shares_of_the_mix(mix):
    """2,000 draws: 0.035 is three standard errors of a share of a half."""
    counts = Counter(draw(seed, mix).severity for seed in range(2000))
    shares = [counts[severity] / 2000 for severity in ("none", "mild", "severe")]
    assert np.abs(np.array(shares) - MIXES[mix]).max() < 0.035


def test_strokes_have_vessels_sides_and_ratios_of_their_class():
    for seed in range(300):
        params = draw(seed, "balanced")
        if params.severity == "none":
            assert params.stroke is None or (params.kind == "oligaemia" and params.stroke.ratio == 0.0)
        else:
            assert params.kind == "stroke"
            assert params.stroke is not None
            assert (params.stroke.ratio <= 0.5) == (params.severity == "mild")
            assert 0.7 <= params.stroke.onset <= 24.0


def test_dense_clots_are_as_frequent_as_their_vessels_say():
    """Half of the M1 clots are dense; 0.09 is three standard errors over about 300 of them."""
    strokes = [draw(seed, severity="severe").stroke for seed in range(1000)]
    dense = [stroke.clot is not None for stroke in strokes if stroke and stroke.vessel == "M1"]
    assert np.mean(dense) == pytest.approx(0.5, abs=0.09)


def test_splits_do_not_overlap_and_name_every_seed():
    assert [split_of(seeds.start) for seeds in SPLITS.values()] == list(SPLITS)
    assert [split_of(seeds.stop - 1) for seeds in SPLITS.values()] == list(SPLITS)
    assert split_of(4_000_000) == "demo"


def test_the_external_patients_come_from_another_scanner():
    here, elsewhere = draw(0), draw(3_000_000)
    assert (here.blood.residue, elsewhere.blood.residue) == ("exponential", "gamma")


def test_an_unknown_mix_is_named():
    with pytest.raises(ValueError, match="'usual'"):
        draw(1, "usual")
