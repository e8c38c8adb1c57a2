"""Captures, read from the file and from their pixels: place, sides, colours, lettering."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

from dicomnode.writer import burn, plane, secondary_capture, write
from dicomnode.writer.palette import RAINBOW
from inference.maps import KINDS, PerfusionMap
from inference.volume import from_slices
from tests import phantom
from tests.dicomnode.writer import studies
from tests.tools import data

POSITIONS = pytest.mark.parametrize("position", phantom.POSITIONS)


def in_patient(ds, row, column):
    """LPS mm of a pixel by the plane of the capture itself (PS3.3 C.7.6.2.1.1)."""
    orientation = np.array(ds.ImageOrientationPatient, float)
    between_rows, between_columns = map(float, ds.PixelSpacing)
    start = np.array(ds.ImagePositionPatient, float)
    return start + orientation[:3] * between_columns * column + orientation[3:] * between_rows * row


def find(letters, rgb):
    """Centre (row, column) of the place where white lettering correlates best, and the part of its pixels found."""
    white = (rgb >= 200).all(axis=2)
    template = np.where(letters, 1.0, -1.0)
    spectrum = np.fft.rfft2(white) * np.conj(np.fft.rfft2(template, white.shape))
    score = np.fft.irfft2(spectrum, white.shape)
    row, column = np.unravel_index(score.argmax(), score.shape)
    height, width = letters.shape
    return (row + (height - 1) / 2, column + (width - 1) / 2), score.max() / letters.sum()


@POSITIONS
def test_the_letters_stand_on_their_sides_of_the_patient(position):
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=64, patient_position=position))
    ds = studies.one(study)
    places = []
    for letter, sign in (("L", 1), ("R", -1)):
        (row, column), found = find(burn.word(letter, 30), studies.rgb(ds))
        assert found > 0.85  # all but the smoothed edge of the letter
        assert sign * in_patient(ds, row, column)[0] > 40.0
        places.append((row, column))
    apart = np.abs(np.subtract(*places))
    assert apart.argmax() == (0 if position[2:] in ("DR", "DL") else 1)  # above each other when lying on a side


@POSITIONS
def test_a_mark_at_patient_left_is_drawn_at_patient_left(position):
    source = phantom.head(phantom.even(26), matrix=64, patient_position=position)
    study = studies.study(source)
    mark = phantom.MARKS[0]
    slices = np.abs(study.volume.positions[:, 2] - mark.centre[2])
    ds = studies.one(study, index=int(slices.argmin()))
    level = RAINBOW[round(studies.MARKS[mark.name] * 255)]
    rows, columns = np.nonzero((studies.rgb(ds) == level).all(axis=2) & ~bar_columns(ds))
    centre = in_patient(ds, rows.mean(), columns.mean())
    assert np.linalg.norm((centre - mark.centre)[:2]) < 2.0  # less than one source pixel of 3.4 mm


def bar_columns(ds):
    return np.broadcast_to(np.arange(ds.Columns) > 0.94 * ds.Columns, (ds.Rows, ds.Columns))


def test_a_mark_at_patient_left_is_right_in_the_image_of_a_patient_on_the_back():
    study = studies.small()
    left = studies.points(study.volume)[..., 0] > 15.0
    values = np.where(left & (study.maps[0].values > 0), 12.0, study.maps[0].values).astype(np.float32)
    ds = studies.one(replace(study, maps=[PerfusionMap(KINDS["Tmax"], values)]))
    red = (studies.rgb(ds) == RAINBOW[255]).all(axis=2) & ~bar_columns(ds)
    assert red[:, 256:].sum() > 10000
    assert not red[:, :256].any()
    assert list(ds.PatientOrientation) == ["L", "P"]


@pytest.mark.parametrize("matrix", [512, 520])
@pytest.mark.parametrize("tilt", [0.0, -17.3])
def test_the_plane_is_that_of_the_source(matrix, tilt):
    source = phantom.head([-50, -43, -36, -20, -10, 0, 5, 10, 33, 60], matrix=matrix, tilt_degrees=tilt)
    study = studies.study(source)
    for index in (0, 4, 9):
        ds, of = studies.one(study, index=index), study.source[index]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            assert np.allclose(ds[keyword].value, of[keyword].value, rtol=0, atol=1e-4)
        assert ds.FrameOfReferenceUID == of.FrameOfReferenceUID
        assert (ds.Rows, ds.Columns, ds.InstanceNumber) == (matrix, matrix, index + 1)
        (reference,) = ds.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == of.SOPInstanceUID
        assert reference.SpatialLocationsPreserved == "YES"
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


@pytest.mark.parametrize(("matrix", "factor"), [(256, 2), (200, 3), (64, 8)])
def test_a_small_matrix_is_enlarged_in_place(matrix, factor):
    """The centre of every block of pixels is the centre of the source pixel; the outer edges of the image agree."""
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=matrix, tilt_degrees=12.0))
    ds, source = studies.one(study), study.source[5]
    assert (ds.Rows, ds.Columns) == (matrix * factor, matrix * factor)
    block = (factor - 1) / 2
    for row, column in ((0, 0), (matrix - 1, 0), (10, matrix - 1)):
        enlarged = in_patient(ds, row * factor + block, column * factor + block)
        assert np.allclose(enlarged, in_patient(source, row, column), rtol=0, atol=1e-4)
    assert ds.SourceImageSequence[0].SpatialLocationsPreserved == "NO"


def test_pixels_that_are_not_square_keep_both_spacings():
    source = phantom.head(phantom.even(10, 14.0), matrix=128)
    for ds in source:
        ds.PixelSpacing = [1.5, 2.0]
    ds = studies.one(studies.study(source))
    assert [float(v) for v in ds.PixelSpacing] == [0.375, 0.5]
    assert np.allclose(in_patient(ds, 1.5, 1.5), [*source[0].ImagePositionPatient[:2], ds.ImagePositionPatient[2]])


def test_the_real_head_keeps_its_planes():
    slices = [dcmread(path) for path in sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))]
    volume = from_slices(slices)
    values = np.where(volume.hu > 0, 5.0, 0.0).astype(np.float32)
    study = replace(
        studies.small(),
        source=[slices[i] for i in volume.order],
        volume=volume,
        maps=[PerfusionMap(KINDS["Tmax"], values)],
    )
    for r in write(study, lambda kind, name, index: kind == "sc"):
        ds, of = studies.read_back(r.dataset), study.source[r.index]
        assert ds.ImagePositionPatient == of.ImagePositionPatient
        assert ds.ImageOrientationPatient == of.ImageOrientationPatient
        assert list(ds.PatientOrientation) == ["L", "PF"]


def test_the_bar_rises_in_value_from_bottom_to_top():
    rgb = studies.rgb(studies.one(studies.small()))
    column = rgb[:, round(0.96 * 512)].tolist()
    table = RAINBOW.tolist()
    levels = [table.index(pixel) for pixel in column if pixel in table]
    assert len(levels) > 200
    assert levels[0] == 255
    assert levels[-1] == 0
    assert all(above >= below for above, below in itertools.pairwise(levels))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("CBF", ("0", "15", "30", "45", ">=60")),
        ("CBV", ("0", "1", "2", "3", ">=4")),
        ("TTP", ("0", "5", "10", "15", "20", ">=25")),
        ("Tmax", ("0", "3", "6", "9", ">=12")),
    ],
)
def test_the_bar_has_round_ticks_and_the_top_one_is_open(name, labels):
    bar = secondary_capture.bar(studies.small(), KINDS[name])
    assert bar == burn.Bar(name, KINDS[name].unit, labels)


def test_an_odd_ceiling_still_has_ticks():
    bar = secondary_capture.bar(studies.small(), replace(KINDS["Tmax"], ceiling=7.1))
    assert bar.labels == ("0", "1.775", "3.55", "5.325", ">=7.1")


def test_relative_units_have_no_numbers():
    relative = studies.small(manifest=replace(studies.MANIFEST, units="relative"))
    assert secondary_capture.bar(relative, KINDS["CBF"]) == burn.Bar("CBF", "[arb'U]", ("low", "high"))


def lettering(monkeypatch, **changes):
    """The lines that a capture puts into its pixels."""
    lines = []
    put = burn.Sheet.text
    monkeypatch.setattr(
        burn.Sheet, "text", lambda self, x, y, line, *rest: (lines.append(line.text), put(self, x, y, line, *rest))
    )
    study = studies.small(**changes)
    studies.one(study)
    return lines


def test_every_capture_says_what_it_is_and_who_made_it(monkeypatch):
    lines = lettering(monkeypatch)
    assert lines.count("SYNTHETIC, not acquired perfusion") == 2
    assert "A normal synthetic map does not exclude stroke." in lines
    assert "Time to maximum of the residue function, ncct-virtual 1" in lines
    assert "Perfusion Node 0.1.0, rev 1, 2026-03-02 08:30 UTC" in lines
    assert "TRAINED ON SIMULATED DATA" in lines
    assert "SIMULATED PATIENT" not in lines


def test_untrained_weights_revisions_and_simulated_patients_are_named(monkeypatch):
    untrained = replace(studies.MANIFEST, training_domain="untrained")
    lines = lettering(
        monkeypatch, manifest=untrained, revision=2, supersedes=1, simulated_input=True, warnings=("INCOMPLETE SERIES",)
    )
    assert {"UNTRAINED: random weights, no meaning", "SIMULATED PATIENT"} <= set(lines)
    assert any("rev 2, replaces rev 1" in line for line in lines)
    assert {"INCOMPLETE", "SERIES"} == set(" ".join(lines).split()) & {"INCOMPLETE", "SERIES"}


def test_weights_trained_on_patients_need_no_caution(monkeypatch):
    lines = lettering(monkeypatch, manifest=replace(studies.MANIFEST, training_domain="clinical"))
    assert not any("SIMULATED" in line or "UNTRAINED" in line for line in lines)


def test_a_slice_without_brain_says_so(monkeypatch):
    source = phantom.head([*phantom.even(10, 13.0), 110.0], matrix=64)
    study = studies.study(source)
    assert not study.brain[-1].any()
    with_map, without = (studies.rgb(studies.one(study, index=i)) for i in (5, -1 % len(source)))
    letters = burn.word("no map in this slice", 15)
    assert find_grey(letters, without) > 0.9
    assert find_grey(letters, with_map) < 0.9


def find_grey(letters, rgb):
    shade = (rgb >= 100).all(axis=2) & (np.ptp(rgb, axis=2) == 0)
    return find(letters, np.where(shade[..., None], 255, 0))[1]


def test_lettering_hides_little_of_the_brain():
    """Most of the marks stand beside the head: at a field of view of 220 mm less than 3 % of the brain is covered."""
    study = studies.study(phantom.head(matrix=256))
    hidden = total = 0
    for r in write(study, lambda kind, name, index: kind == "sc"):
        brain = secondary_capture.enlarged(study.brain[r.index], 2)
        colours = {tuple(v) for v in RAINBOW.tolist()}
        pixels = studies.rgb(r.dataset)[brain]
        hidden += sum(tuple(v) not in colours for v in pixels[::50].tolist())
        total += len(pixels[::50])
    assert hidden / total < 0.03


def test_a_capture_is_what_its_module_asks_for():
    ds = studies.one(studies.small())
    assert (ds.Modality, ds.ConversionType) == ("OT", "WSD")
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("YES", "NO")
    assert (ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration) == (3, "RGB", 0)
    assert ds.pixel_array.shape == (512, 512, 3)
    assert (ds.SeriesDate, ds.SeriesTime, ds.ContentDate, ds.ContentTime) == (
        "20260302",
        "083000",
        "20260302",
        "083000",
    )


@pytest.mark.parametrize(
    ("row", "column", "letters"),
    [
        ((1, 0, 0), (0, 0.948, -0.317), ["L", "PF"]),
        ((-1, 0, 0), (0, 1, 0), ["R", "P"]),
        ((0, -1, 0), (0.9999, 0, 0.01), ["A", "L"]),
    ],
)
def test_patient_orientation_follows_the_directions(row, column, letters):
    assert plane.patient_orientation(np.array(row, float), np.array(column, float)) == letters
