"""Captures at another ratio: they say so in pixels and description, have no unit, and are never mistaken for a map."""

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.writer import burn, explore, pilo
from dicomnode.writer.palette import RAINBOW
from inference.maps import KINDS
from tests.dicomnode.writer import studies


@pytest.fixture(scope="module")
def study():
    return studies.small()


def lines(monkeypatch, study, percent: int) -> list[str]:
    put, said = burn.Sheet.text, []
    monkeypatch.setattr(
        burn.Sheet, "text", lambda self, x, y, line, *rest: (said.append(line.text), put(self, x, y, line, *rest))
    )
    next(iter(explore(study, percent)))
    return said


def test_one_for_each_slice_and_map_and_nothing_but_captures(study):
    made = list(explore(study, 75))
    assert [(r.kind, r.map, r.index) for r in made] == [("pilo", "Tmax-r075", i) for i in range(10)]
    assert {r.dataset.SOPClassUID for r in made} == {SecondaryCaptureImageStorage}
    assert len({r.dataset.SeriesInstanceUID for r in made}) == 1


def test_the_ratio_stands_in_the_pixels_and_there_are_no_numbers_on_the_bar(study, monkeypatch):
    said = lines(monkeypatch, study, 75)
    assert "PERFUSION INFORMATION RATIO 0.75" in said
    assert pilo.NO_UNIT in said
    assert {"low", "high", "TRAINED ON SIMULATED DATA"} <= set(said)
    assert said.count("SYNTHETIC, not acquired perfusion") == 2
    assert KINDS["Tmax"].unit not in said
    assert ">=12" not in said


@pytest.mark.parametrize("changes", [{}, {"revision": 999, "supersedes": 998}])
@pytest.mark.parametrize("percent", [0, 100])
def test_the_description_names_map_and_ratio_and_fits(changes, percent):
    ds = next(iter(explore(studies.small(**changes), percent))).dataset
    assert ds.SeriesDescription.startswith(f"SYNTHETIC Tmax ratio {percent / 100:.2f} no unit sim-trained")
    assert len(ds.SeriesDescription) <= 64
    assert "exploratory, no unit" in ds.DerivationDescription
    assert len(ds.DerivationDescription) <= 1024
    assert ds.SyntheticData == "YES"


def test_equal_requests_are_equal_objects_and_other_ratios_are_others(study):
    first, again, other = (studies.saved(next(iter(explore(study, percent))).dataset) for percent in (75, 75, 80))
    assert first == again
    uids = [next(iter(explore(study, percent))).dataset for percent in (75, 80)]
    assert len({ds.SOPInstanceUID for ds in uids}) == len({ds.SeriesInstanceUID for ds in uids}) == 2
    assert other != first


def test_colours_are_those_of_the_captures(study):
    made = {r.index: r.dataset for r in explore(study, 20, lambda kind, name, index: index == 5)}
    plain, other = studies.rgb(studies.one(study, index=5)), studies.rgb(studies.read_back(made[5]))
    level = RAINBOW[round(studies.NORMAL * 255)]
    same = (plain == level).all(axis=2) & (other == level).all(axis=2)
    assert same.sum() > 10000


@pytest.mark.parametrize("percent", [-1, 50, 101])
def test_the_trained_ratio_and_none_at_all_are_refused(study, percent):
    with pytest.raises(ValueError, match="exploratory"):
        list(explore(study, percent))
