"""inference.quality.maps: maps that cannot be true are refused by name; on the shipped weights and one virtual head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from inference import predict, preprocess, quality, weights
from inference.engine import load_engine
from inference.maps import KINDS, PerfusionMap
from inference.refusal import Refused
from inference.volume import from_slices

STUDY = Path(__file__).parents[2] / "dicomnode" / "data" / "ncct"


@pytest.fixture(scope="module")
def made():
    """The virtual patient of the demo, and its maps by the shipped weights."""
    head = from_slices([dcmread(path) for path in sorted(STUDY.glob("*.dcm"))])
    prepared = preprocess.prepare(head)
    engine = load_engine(*weights.load(weights.shipped()), threads=1)
    return head, prepared, predict.predict(head, prepared, engine)


def verdict(made, change=lambda name, values: values) -> str:
    head, prepared, maps = made
    changed = [PerfusionMap(m.kind, change(m.kind.name, m.values)) for m in maps]
    try:
        return " ".join(quality.judge_maps(head, prepared, changed))
    except Refused as refusal:
        return str(refusal)


def test_the_maps_of_the_demo_pass_without_a_word(made):
    assert verdict(made) == ""


@pytest.mark.parametrize("pair", [("CBF", "CBV"), ("CBF", "MTT"), ("MTT", "CBV"), ("MTT", "Tmax"), ("TTP", "Tmax")])
def test_a_manifest_with_exchanged_kinds_is_refused_by_their_names(made, pair):
    """As predict would make them: the learnt values of one kind stretched to the range of the other."""
    by_name = {m.kind.name: m.values for m in made[2]}
    other = {pair[0]: pair[1], pair[1]: pair[0]}

    def exchange(name: str, values: np.ndarray) -> np.ndarray:
        of = other.get(name, name)
        return by_name[of] / KINDS[of].ceiling * KINDS[name].ceiling

    said = verdict(made, exchange)
    assert said.startswith("units: ")
    assert all(name in said for name in pair)


@pytest.mark.parametrize(
    ("kind", "factor", "words"),
    [("MTT", 1000.0, "as milliseconds are"), ("Tmax", 1000.0, "as milliseconds are"), ("CBV", 100.0, "hundred times")],
)
@pytest.mark.parametrize("clipped", [False, True])
def test_another_unit_is_refused_by_the_name_of_the_map(made, kind, factor, words, clipped):
    def stretched(name: str, values: np.ndarray) -> np.ndarray:
        if name != kind:
            return values
        return np.minimum(values * factor, KINDS[kind].ceiling) if clipped else values * factor

    said = verdict(made, stretched)
    assert said.startswith(f"units: {kind} ")
    assert ("wrong unit" if clipped else words) in said


def test_maps_that_break_the_central_volume_are_refused(made):
    said = verdict(made, lambda name, values: values * 1.7 if name == "CBV" else values)
    assert said.startswith("implausible-maps: CBV differs by 4")


def late(share: float):
    """Tmax of 9 s in so much of the brain, from the right."""

    def change(name: str, values: np.ndarray) -> np.ndarray:
        if name != "Tmax":
            return values
        inside = np.nonzero(values)[2]
        return np.where((values > 0) & (np.arange(values.shape[2]) < np.quantile(inside, share)), 9.0, values)

    return change


def test_a_brain_that_is_all_late_is_refused_and_nearly_half_of_it_warned_of(made):
    assert verdict(made, late(1.0)).startswith(("implausible-maps: Tmax", "units: CBF and MTT"))
    assert verdict(made, late(0.8)).startswith(("implausible-maps: Tmax", "units: CBF and MTT"))
    assert "of the brain: unusual." in verdict(made, late(0.15))


def test_empty_maps_are_refused(made):
    assert verdict(made, lambda name, values: values * 0) == "implausible-maps: the maps are empty"


def test_a_lesion_on_the_denser_side_warns(made):
    """The CT made denser by 8 HU where the maps have their lesion."""
    head, _, maps = made
    tmax = next(m.values for m in maps if m.kind.name == "Tmax")
    hu = head.hu + np.where(tmax > 6.0, 8.0, 0.0).astype(np.float32)
    denser = replace(head, hu=hu)
    seen = quality.judge_maps(denser, preprocess.prepare(denser), maps)
    assert len(seen) == 1
    assert seen[0].startswith("Where the maps show a lesion the CT is ")
