"""The summary page, read from its pixels: which tile shows what, on which side, with which figures."""

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.writer import burn, mosaic
from dicomnode.writer.palette import RAINBOW
from inference import regions
from inference.maps import KINDS, PerfusionMap
from tests import phantom
from tests.dicomnode.writer import studies

CORE = RAINBOW[round(0.1 * 255)]  # of CBF in the left upper mark
LATE = RAINBOW[round(studies.MARKS["left upper"] * 255)]  # of Tmax there


def whole(source=None, **changes):
    """A study with all five maps, whose left upper mark is core."""
    study = studies.stroke(source or phantom.head(matrix=128), **changes)
    made = {m.kind.name: m for m in study.maps}
    maps = [made.get(name) or studies.perfusion_map(study.volume, KINDS[name]) for name in KINDS]
    return replace(study, maps=maps)


def tile(rgb, row, column):
    """One tile of the page; column 0 is the source CT."""
    side = mosaic.TILE
    return rgb[mosaic.HEAD + row * side :, column * side :][:side, :side]


def lettering(monkeypatch, study):
    """The lines that the page puts into its pixels."""
    lines = []
    put = burn.Sheet.text
    monkeypatch.setattr(
        burn.Sheet, "text", lambda self, x, y, line, *rest: (lines.append(line.text), put(self, x, y, line, *rest))
    )
    studies.one(study, "mosaic")
    return lines


@pytest.mark.parametrize("position", phantom.POSITIONS)
@pytest.mark.parametrize("tilt", [0.0, 15.0])
def test_a_mark_at_patient_left_is_on_the_side_of_the_letter_l(position, tilt):
    study = whole(phantom.head(matrix=128, patient_position=position, tilt_degrees=tilt))
    rgb = studies.rgb(studies.one(study, "mosaic"))
    most = int(study.regions.hypoperfused.sum(axis=(1, 2)).argmax())
    shown = tile(rgb, mosaic.levels(study).index(most), 5)
    rows, columns = np.nonzero((shown == LATE).all(axis=2))
    brain = np.nonzero((shown == RAINBOW[round(studies.NORMAL * 255)]).all(axis=2))
    across = abs(study.volume.row_direction[0]) > 0.5
    mark, middle = (columns.mean(), brain[1].mean()) if across else (rows.mean(), brain[0].mean())
    letters = white(shown)
    first, last = (letters[:, :70], letters[:, -70:]) if across else (letters[:100], letters[-100:])
    found = {side: matches(burn.word("L", font_size(rgb)), where) for side, where in (("low", first), ("high", last))}
    assert (mark > middle) == (found["high"] > found["low"])


def font_size(rgb):
    return round(9 * min(rgb.shape[:2]) / 512)


def white(rgb):
    return (rgb >= 200).all(axis=2)


def matches(letters, where):
    """The best part of the pixels of a letter found in an area."""
    template = np.where(letters, 1.0, -1.0)
    spectrum = np.fft.rfft2(where) * np.conj(np.fft.rfft2(template, where.shape))
    return np.fft.irfft2(spectrum, where.shape).max() / letters.sum()


def test_each_column_shows_its_map_and_the_first_the_source():
    study = whole()
    rgb = studies.rgb(studies.one(study, "mosaic"))
    row = mosaic.levels(study).index(int(study.regions.core.sum(axis=(1, 2)).argmax()))
    grey = tile(rgb, row, 0)[100:150, 100:150]
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    assert grey.mean() > 50
    assert (tile(rgb, row, 1) == CORE).all(axis=2).sum() > 100
    for column in (2, 3, 4, 5):
        assert (tile(rgb, row, column) == LATE).all(axis=2).sum() > 100
        assert not (tile(rgb, row, column) == CORE).all(axis=2).any()


def test_levels_rise_from_the_feet_and_hold_the_most_late_slice():
    for source in (phantom.head(matrix=64), phantom.head(matrix=64, patient_position="FFS")):
        study = whole(source)
        shown = mosaic.levels(study)
        assert (np.diff(study.volume.positions[shown, 2]) > 0).all()
        assert len(shown) == mosaic.LEVELS
        assert int(study.regions.hypoperfused.sum(axis=(1, 2)).argmax()) in shown


def test_volumes_are_those_of_the_regions(monkeypatch):
    study = whole()
    lines = lettering(monkeypatch, study)
    late, core = study.regions.hypoperfused_ml, study.regions.core_ml
    at = lines.index("Synthetic estimate, not for treatment selection:")
    assert lines[at + 1 : at + 4] == [
        f"Tmax > 6 s: {late:.0f} ml",
        f"Tmax > 6 s and CBF < 30 % of healthy: {core:.0f} ml",
        f"difference {late - core:.0f} ml, ratio {late / core:.1f}",
    ]
    assert (late, core) == (
        pytest.approx(regions.volume(study.regions.hypoperfused, regions.slice_voxel_ml(study.volume))),
        pytest.approx(regions.volume(study.regions.core, regions.slice_voxel_ml(study.volume))),
    )


def test_nothing_late_is_zero_and_no_ratio(monkeypatch):
    study = whole()
    quick = PerfusionMap(KINDS["Tmax"], np.where(study.brain, 2.0, 0.0).astype(np.float32))
    lines = lettering(monkeypatch, replace(study, maps=[*study.maps[:4], quick]))
    assert {"Tmax > 6 s: 0 ml", "difference 0 ml, ratio undefined"} <= set(lines)


def test_relative_units_have_no_volumes_and_no_numbers_on_the_scale(monkeypatch):
    lines = lettering(monkeypatch, whole(manifest=replace(studies.MANIFEST, units="relative")))
    assert "No volumes: they need CBF and Tmax in physical units." in lines
    assert {"low", "high"} <= set(lines)
    assert not any("ml" in line for line in lines)


def test_the_page_says_what_it_is_and_who_made_it(monkeypatch):
    lines = lettering(monkeypatch, whole(revision=2, supersedes=1, simulated_input=True, warnings=("INCOMPLETE",)))
    assert lines.count("SYNTHETIC, not acquired perfusion") == 2
    assert {
        "A normal synthetic map does not exclude stroke.",
        "TRAINED ON SIMULATED DATA",
        "SIMULATED PATIENT",
        "INCOMPLETE",
        "Summary of all maps, ncct-virtual 1",
        "Perfusion Node 0.1.0, rev 2, replaces rev 1, 2026-03-02 08:30 UTC",
        "SYNTHETIC Tmax",
        ">=12 s",
        "Non-contrast CT",
    } <= set(lines)


def test_the_page_lies_in_no_plane_but_names_its_slices():
    study = whole()
    ds = studies.one(study, "mosaic")
    assert not {"FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing"} & {e.keyword for e in ds}
    assert list(ds.PatientOrientation) == ["L", "P"]
    referenced = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert referenced == [study.source[i].SOPInstanceUID for i in mosaic.levels(study)]
    assert (ds.Modality, ds.SeriesDescription) == ("OT", "SYNTHETIC summary sim-trained (NCCT-AI)")
    assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)


def test_pixels_that_are_not_square_are_shown_in_proportion():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        ds.PixelSpacing = [2.0, 4.0]
    study = studies.study(source, kinds=("CBF", "Tmax"))
    study = replace(study, maps=[PerfusionMap(m.kind, np.full_like(m.values, 1.0)) for m in study.maps])
    rgb = studies.rgb(studies.one(study, "mosaic"))
    rows, columns = np.nonzero((tile(rgb, 1, 1) == RAINBOW[round(255 / 60)]).all(axis=2))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(2.0, rel=0.02)


def test_a_study_without_brain_still_has_its_page():
    study = studies.small(kinds=("CBF", "Tmax"))
    empty = replace(study, maps=[PerfusionMap(m.kind, np.zeros_like(m.values)) for m in study.maps])
    assert studies.rgb(studies.one(empty, "mosaic")).any()
