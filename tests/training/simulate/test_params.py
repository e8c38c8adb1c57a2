"""Drawing patients: reproducible, complete in JSON, in the shares of the mix, and split by seed."""

from collections import Counter

import numpy as np
import pytest

from training.simulate.anatomy import OCCLUSIONS
from training.simulate.params import MIXES, SPLITS, PatientParams, draw, from_json, population_of, split_of


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
    """Over 2,000 strokes, to three standard errors of each share; a dense clot has the 64 +- 6 HU of the literature."""
    strokes = [stroke for seed in range(2000) if (stroke := draw(seed, severity="severe").stroke)]
    for vessel, occlusion in OCCLUSIONS.items():
        dense = [stroke.clot is not None for stroke in strokes if stroke.vessel == vessel]
        share = occlusion.hyperdense
        assert np.mean(dense) == pytest.approx(share, abs=3 * (share * (1 - share) / len(dense)) ** 0.5), vessel
    clots = [stroke.clot for stroke in strokes if stroke.clot is not None]
    assert (np.mean(clots), np.std(clots)) == pytest.approx((64.0, 6.0), abs=0.7)


def test_splits_do_not_overlap_and_name_every_seed():
    assert [split_of(seeds.start) for seeds in SPLITS.values()] == list(SPLITS)
    assert [split_of(seeds.stop - 1) for seeds in SPLITS.values()] == list(SPLITS)
    assert split_of(4_000_000) == "demo"


def drawn_from(split: str) -> list[PatientParams]:
    return [draw(SPLITS[split].start + n) for n in range(1000)]


def test_the_external_patients_come_from_another_scanner_and_another_population():
    """Contract 18, over 1,000 patients: residue family, scanner, noise, tilt and age mix differ from those of test."""
    here, elsewhere = drawn_from("test"), drawn_from("external")
    assert {params.blood.residue for params in here} == {"exponential"}
    assert {params.blood.residue for params in elsewhere} == {"gamma"}
    assert {population_of(params.seed).scanner for params in here} == {"usual"}
    assert {population_of(params.seed).scanner for params in elsewhere} == {"other"}
    for measured, least in ((age, -9.5), (noise, 0.8), (tilted, 0.2)):
        difference = np.mean([measured(params) for params in elsewhere]) - np.mean([measured(p) for p in here])
        assert difference / least == pytest.approx(1.2, abs=0.5), measured


def test_training_and_test_patients_come_from_the_same_place():
    """Three standard errors of a difference of means over 1,000 patients each."""
    train, test = drawn_from("train"), drawn_from("test")
    for measured, within in ((age, 2.0), (noise, 0.08), (tilted, 0.07)):
        assert np.mean([measured(p) for p in train]) == pytest.approx(np.mean([measured(p) for p in test]), abs=within)


def age(params: PatientParams) -> float:
    return params.age


def noise(params: PatientParams) -> float:
    return params.acquisition.noise


def tilted(params: PatientParams) -> float:
    return float(params.pose.tilt > 0)


def test_an_unknown_mix_is_named():
    with pytest.raises(ValueError, match="'usual'"):
        draw(1, "usual")
