"""Parametric maps, read back by pydicom, highdicom and the reader of Slicer (dcmqi), against a head of known marks.

dcmqi takes frame i for slice i along the normal, as OHIF does, so it stands in for that viewer here.
"""

import json
import subprocess
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk

from dicomnode.writer import burn, write
from dicomnode.writer.air import WORD
from inference.maps import KINDS, PerfusionMap
from tests import phantom
from tests.dicomnode.writer import studies

POSITIONS = pytest.mark.parametrize("position", phantom.POSITIONS)
UNEQUAL = [-55, -51, -47, -43, -39, -35, -31, -27, -23, -20, -6, 1, 8, 15, 22, 29, 34, 41, 48, 55, 62]


def frames(ds):
    """(frames, rows, columns) float32 as stored, without pydicom's decoder."""
    return np.frombuffer(ds.FloatPixelData, np.float32).reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)


def slope(ds):
    return ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].RealWorldValueSlope


def planes(ds):
    """(frames, 3) positions, and the directions of rows and columns."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    groups = ds.PerFrameFunctionalGroupsSequence
    positions = np.array([g.PlanePositionSequence[0].ImagePositionPatient for g in groups], float)
    return positions, orientation[:3], orientation[3:]


def at(ds, point):
    """The physical value at a point in patient space (LPS mm), by the planes that the file states."""
    positions, row, column = planes(ds)
    normal = np.cross(row, column)
    frame = int(np.abs((positions - point) @ normal).argmin())
    between_rows, between_columns = map(
        float, ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    )
    offset = np.array(point) - positions[frame]
    r, c = round(offset @ column / between_rows), round(offset @ row / between_columns)
    return frames(ds)[frame, r, c] * slope(ds)


def sources(position="HFS"):
    """Straight, tilted, unequally spaced, and foot to head in the file order."""
    yield phantom.head(matrix=128, patient_position=position)
    yield phantom.head(matrix=128, patient_position=position, tilt_degrees=18.0)
    yield phantom.head(UNEQUAL, matrix=128, patient_position=position, tilt_degrees=-12.0, head_to_foot=True)


@POSITIONS
def test_marks_are_found_at_their_places_in_the_patient(position):
    for source in sources(position):
        study = studies.study(source)
        ds = studies.one(study, "pm")
        for point, value in studies.marked():
            assert at(ds, point) == pytest.approx(value, abs=1e-5)


@POSITIONS
def test_frames_ascend_along_the_normal_with_their_pixels_and_references(position):
    for source in sources(position):
        study = studies.study(source)
        ds = studies.one(study, "pm")
        positions, row, column = planes(ds)
        assert (np.diff(positions @ np.cross(row, column)) > 0).all()
        assert np.allclose(positions, study.volume.positions, rtol=0, atol=1e-4)
        assert np.allclose(
            [row, column], [study.volume.row_direction, study.volume.column_direction], rtol=0, atol=1e-4
        )
        groups = ds.PerFrameFunctionalGroupsSequence
        assert [g.FrameContentSequence[0].DimensionIndexValues for g in groups] == list(range(1, len(groups) + 1))
        derivations = [g.DerivationImageSequence[0] for g in groups]
        referenced = [d.SourceImageSequence[0].ReferencedSOPInstanceUID for d in derivations]
        assert referenced == [of.SOPInstanceUID for of in study.source]
        assert all(
            d.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322" for d in derivations
        )
        assert all(d.SourceImageSequence[0].SpatialLocationsPreserved == "YES" for d in derivations)
        assert all(d.DerivationCodeSequence[0].CodeValue == "SYNPERF" for d in derivations)
        assert all(d.DerivationDescription.startswith("SYNTHETIC, not acquired") for d in derivations)


def test_stored_times_slope_is_the_map_outside_the_word():
    study = studies.study(kinds=KINDS)
    for perfusion_map in study.maps:
        ds = studies.one(study, "pm", name=perfusion_map.kind.name)
        brain = study.brain
        stored = frames(ds)
        assert np.allclose(stored[brain] * slope(ds), perfusion_map.values[brain], rtol=1e-6)
        assert set(np.unique(stored[~brain])) == {0.0, 1.0}  # air, and the word in it
        assert slope(ds) == perfusion_map.kind.ceiling
        assert stored.min() >= 0.0
        assert stored.max() <= 1.5
        assert np.isfinite(stored).all()


def test_the_values_given_are_left_alone():
    study = studies.small()
    before = study.maps[0].values.copy()
    studies.one(study, "pm")
    assert np.array_equal(study.maps[0].values, before)


@pytest.mark.parametrize(
    ("name", "quantity", "unit", "window"),
    [
        ("CBF", "126390", "ml/[100]g/min", "0-60 ml/100 g/min"),
        ("CBV", "126391", "ml/[100]g", "0-4 ml/100 g"),
        ("MTT", "113052", "s", "0-12 s"),
        ("TTP", "113069", "s", "0-25 s"),
        ("Tmax", "113084", "s", "0-12 s"),
    ],
)
def test_codes_units_and_window(name, quantity, unit, window):
    ds = studies.one(studies.small(kinds=KINDS), "pm", name=name)
    shared = ds.SharedFunctionalGroupsSequence[0]
    mapping, voi = shared.RealWorldValueMappingSequence[0], shared.FrameVOILUTSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
    assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == quantity
    assert mapping.LUTLabel == name
    assert (mapping.RealWorldValueIntercept, mapping.DoubleFloatRealWorldValueFirstValueMapped) == (0.0, 0.0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == 1.0
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (0.5, 1.0, "LINEAR_EXACT")
    assert voi.WindowCenterWidthExplanation == window


def test_relative_units_have_relative_codes():
    relative = replace(studies.MANIFEST, units="relative")
    study = studies.small(kinds=("CBF", "Tmax"), manifest=relative)
    found = {}
    for name in ("CBF", "Tmax"):
        ds = studies.one(study, "pm", name=name)
        mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        found[name] = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[arb'U]"
        assert ds.SeriesDescription == f"SYNTHETIC {name} sim-trained (NCCT-AI)"
    assert found == {"CBF": "126397", "Tmax": "113084"}


def test_values_above_the_ceiling_stay_within_the_mapped_range():
    study = studies.small()
    values = np.where(study.brain, 15.0, 0.0).astype(np.float32)
    ds = studies.one(replace(study, maps=[PerfusionMap(KINDS["Tmax"], values)]), "pm")
    mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == frames(ds).max() == 1.25


def test_what_viewers_ask_for():
    study = studies.small()
    ds = studies.one(study, "pm")
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == study.source[0].SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == len(study.source) == ds.NumberOfFrames
    anatomy = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert (anatomy.FrameLaterality, anatomy.AnatomicRegionSequence[0].CodeValue) == ("U", "12738006")
    assert (ds.Rows, ds.Columns) == (study.source[0].Rows, study.source[0].Columns)
    assert ds.ContentQualification == "RESEARCH"
    assert ds.FrameOfReferenceUID == study.frame_of_reference_uid
    assert ds.ContentLabel == "SYNTHETIC_TMAX"
    assert (
        (ds.ContentDate, ds.ContentTime) == (ds.InstanceCreationDate, ds.InstanceCreationTime) == ("20260302", "083000")
    )
    uid = ds.DimensionOrganizationSequence[0].DimensionOrganizationUID
    assert {index.DimensionOrganizationUID for index in ds.DimensionIndexSequence} == {uid}


def test_the_word_can_be_read_in_every_frame():
    """White on black, so the letters found are exactly the pixels of value 1 outside the brain."""
    study = studies.study(phantom.head(matrix=256, field_of_view=250.0))
    letters = burn.word(WORD, round(0.05 * 256))
    for stored, brain in zip(frames(studies.one(study, "pm")), study.brain, strict=True):
        rows, columns = np.nonzero((stored == 1.0) & ~brain)
        box = stored[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.array_equal(box == 1.0, letters)


@POSITIONS
def test_dcmqi_finds_the_marks(position, tmp_path: Path):
    study = studies.study(phantom.head(matrix=128, patient_position=position))
    image, described = by_dcmqi(studies.saved(studies.one(study, "pm")), tmp_path)
    for point, value in studies.marked():
        assert image.GetPixel(image.TransformPhysicalPointToIndex(point.tolist())) * 12.0 == pytest.approx(
            value, abs=1e-5
        )
    assert float(described["RealWorldValueSlope"]) == 12.0
    assert described["MeasurementUnitsCode"]["CodeValue"] == "s"
    assert described["QuantityValueCode"]["CodeValue"] == "113084"


def test_dcmqi_takes_tilted_and_unequal_frames_for_their_slices(tmp_path: Path):
    """It has no place for a tilt or for unequal steps, but slice i of what it reads must be slice i of the source."""
    study = studies.study(phantom.head(UNEQUAL, matrix=128, tilt_degrees=15.0))
    image, _ = by_dcmqi(studies.saved(studies.one(study, "pm")), tmp_path)
    read = sitk.GetArrayFromImage(image)
    assert np.allclose(read[study.brain] * 12.0, study.maps[0].values[study.brain], rtol=1e-6)


def by_dcmqi(file: bytes, folder: Path):
    """The image and the description that Slicer's reader makes of a parametric map."""
    (folder / "pm.dcm").write_bytes(file)
    program = next(
        f for f in distribution("dcmqi").files if f.name.split(".")[0] == "paramap2itkimage" and "bin" in f.parts
    )
    command = [program.locate(), "--inputDICOM", folder / "pm.dcm", "--outputDirectory", folder, "--prefix", "map"]
    subprocess.run(command, check=True, capture_output=True)
    (nrrd,) = folder.glob("*.nrrd")
    (described,) = folder.glob("*.json")
    return sitk.ReadImage(str(nrrd)), json.loads(described.read_text())


@POSITIONS
def test_highdicom_reads_the_geometry_and_the_values(position, tmp_path: Path):
    study = studies.study(phantom.head(matrix=128, patient_position=position))
    path = tmp_path / "pm.dcm"
    path.write_bytes(studies.saved(studies.one(study, "pm")))
    volume = highdicom.imread(path).get_volume(apply_real_world_transform=False, dtype=np.float32)
    for point, value in studies.marked():
        index = np.linalg.inv(volume.affine) @ [*point, 1.0]
        assert volume.array[tuple(np.round(index[:3]).astype(int))] * 12.0 == pytest.approx(value, abs=1e-5)


def test_highdicom_reads_tilted_frames(tmp_path: Path):
    study = studies.study(phantom.head(UNEQUAL, matrix=128, tilt_degrees=18.0))
    path = tmp_path / "pm.dcm"
    path.write_bytes(studies.saved(studies.one(study, "pm")))
    read = highdicom.imread(path).get_frames(apply_real_world_transform=False, apply_voi_transform=False)
    assert np.allclose(read[study.brain] * 12.0, study.maps[0].values[study.brain], rtol=1e-6)


def test_the_order_of_the_library_would_be_seen(monkeypatch):
    """The control: without the re-ordering the same file would carry the marks on other slices for such viewers."""
    study = studies.study(phantom.head(matrix=64))
    (rendered,) = write(study, lambda kind, name, index: kind == "pm")
    ascending = frames(rendered.dataset)
    monkeypatch.setattr("dicomnode.writer.parametric_map._order_frames", lambda ds, normal: None)
    (rendered,) = write(study, lambda kind, name, index: kind == "pm")
    assert np.array_equal(frames(rendered.dataset), ascending[::-1])
