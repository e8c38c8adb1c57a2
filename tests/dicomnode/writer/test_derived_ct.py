"""Derived CT, read back by pydicom and SimpleITK, against a head of known marks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dicomnode.writer import burn, plan, write
from dicomnode.writer.air import WORD
from inference.maps import KINDS, PerfusionMap
from tests import phantom
from tests.dicomnode.writer import studies

UNEQUAL = [-55, -51, -47, -43, -39, -35, -31, -27, -23, -20, -6, 1, 8, 15, 22, 29, 34, 41, 48, 55, 62]


def images(study, name="Tmax"):
    """All images of one map, read back, in the order of the slices."""
    return [studies.read_back(r.dataset) for r in write(study, lambda _, of, index: of == name, kinds=("ct",))]


def physical(ds, dtype=np.uint16):
    """(rows, columns) in the unit of the map, without pydicom's decoder."""
    stored = np.frombuffer(ds.PixelData, dtype).reshape(ds.Rows, ds.Columns)
    return stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def at(found, point):
    """The physical value at a point in patient space (LPS mm), by the plane that the nearest image states."""
    orientation = np.array(found[0].ImageOrientationPatient, float)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    ds = min(found, key=lambda ds: abs((np.array(ds.ImagePositionPatient, float) - point) @ normal))
    offset = np.array(point) - np.array(ds.ImagePositionPatient, float)
    between_rows, between_columns = map(float, ds.PixelSpacing)
    return physical(ds)[round(offset @ column / between_rows), round(offset @ row / between_columns)]


@pytest.mark.parametrize("position", phantom.POSITIONS)
@pytest.mark.parametrize(("z", "tilt"), [(phantom.even(26), 0.0), (phantom.even(26), 18.0), (UNEQUAL, -12.0)])
def test_marks_are_found_at_their_places_in_the_patient(position, z, tilt):
    source = phantom.head(z, matrix=128, patient_position=position, tilt_degrees=tilt)
    found = images(studies.study(source))
    for point, value in studies.marked():
        assert at(found, point) == pytest.approx(value, abs=0.0003)  # half a step of 12 s / 20000


def test_values_are_the_map_to_half_a_step_outside_the_word():
    study = studies.study(kinds=KINDS)
    for perfusion_map in study.maps:
        ceiling, name = perfusion_map.kind.ceiling, perfusion_map.kind.name
        found = np.stack([physical(ds) for ds in images(study, name)])
        assert np.abs(found - perfusion_map.values)[study.brain].max() <= ceiling / 40_000 * 1.001
        assert set(np.unique(found[~study.brain]).round(6)) == {0.0, ceiling}  # air, and the word in it


def test_a_reader_that_takes_pixels_for_signed_reads_the_same():
    study = studies.small()
    values = np.where(study.brain, 100.0, 0.0).astype(np.float32)  # far above the ceiling of 12 s
    (ds, *_) = images(replace(study, maps=[PerfusionMap(KINDS["Tmax"], values)]))[5:]
    assert ds.PixelRepresentation == 0
    assert np.array_equal(physical(ds), physical(ds, np.int16))
    assert physical(ds).max() == pytest.approx(32_767 * 0.0006)


def test_simpleitk_reads_the_values_and_the_geometry(tmp_path: Path):
    study = studies.study(phantom.head(matrix=128))
    paths = []
    for index, ds in enumerate(images(study)):
        paths.append(str(tmp_path / f"{index:03d}.dcm"))
        Path(paths[-1]).write_bytes(studies.saved(ds))
    image = sitk.ReadImage(paths)
    assert np.allclose(image.GetSpacing(), (1.71875, 1.71875, 5.0))
    for point, value in studies.marked():
        read = image.GetPixel(image.TransformPhysicalPointToIndex(point.tolist()))
        assert read == pytest.approx(value, abs=0.0003)


@pytest.mark.parametrize(
    ("name", "quantity", "unit", "slope", "window"),
    [
        ("CBF", "126390", "ml/[100]g/min", 0.003, "0-60 ml/100 g/min"),
        ("CBV", "126391", "ml/[100]g", 0.0002, "0-4 ml/100 g"),
        ("TTP", "113069", "s", 0.00125, "0-25 s"),
        ("Tmax", "113084", "s", 0.0006, "0-12 s"),
    ],
)
def test_scale_codes_and_window(name, quantity, unit, slope, window):
    ds = studies.one(studies.small(kinds=KINDS), "ct", name=name)
    (mapping,) = ds.RealWorldValueMappingSequence
    ceiling = KINDS[name].ceiling
    assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (slope, 0, "US")
    assert "VOILUTFunction" not in ds  # OHIF shows nothing of an image that has one
    assert ds.WindowCenter - 0.5 - (ds.WindowWidth - 1) / 2 == 0  # PS3.3 C.11.2.1.2.1: black from here down
    assert ds.WindowCenter - 0.5 + (ds.WindowWidth - 1) / 2 == ceiling  # and white from here up
    assert ds.WindowCenterWidthExplanation == window
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (slope, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == quantity
    assert mapping["RealWorldValueFirstValueMapped"].VR == mapping["RealWorldValueLastValueMapped"].VR == "US"
    assert ds.SeriesDescription == f"SYNTHETIC {name} {window} CT sim-trained (NCCT-AI)"


def test_relative_units_have_relative_codes_and_no_range():
    ds = studies.one(
        studies.small(kinds=("CBF",), manifest=replace(studies.MANIFEST, units="relative")), "ct", name="CBF"
    )
    (mapping,) = ds.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[arb'U]"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "126397"
    assert ds.SeriesDescription == "SYNTHETIC CBF CT sim-trained (NCCT-AI)"
    assert ds.WindowCenterWidthExplanation == "low to high"


def test_each_image_names_its_slice():
    study = studies.study(phantom.head(UNEQUAL, matrix=64, tilt_degrees=9.0, head_to_foot=True))
    for ds, source in zip(images(study), study.source, strict=True):
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert ds.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
        assert np.allclose(ds.ImagePositionPatient, source.ImagePositionPatient, rtol=0, atol=1e-4)
        assert (ds.FrameOfReferenceUID, ds.Modality) == (source.FrameOfReferenceUID, "CT")
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert (ds.KVP, ds.PatientPosition) == (120, "HFS")


def test_what_the_source_does_not_say_is_empty():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        del ds.KVP, ds.AcquisitionNumber, ds.SliceThickness, ds.PatientPosition
    ds = studies.one(studies.study(source), "ct")
    assert all(ds[keyword].is_empty for keyword in ("KVP", "AcquisitionNumber", "SliceThickness", "PatientPosition"))


def test_the_word_can_be_read_in_every_image():
    study = studies.study(phantom.head(matrix=256, field_of_view=250.0))
    letters = burn.word(WORD, round(0.05 * 256))
    for ds, brain in zip(images(study), study.brain, strict=True):
        rows, columns = np.nonzero((physical(ds) > 0) & ~brain)
        box = physical(ds)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.array_equal(box > 0, letters)


def test_without_a_frame_of_reference_there_is_none():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        del ds.FrameOfReferenceUID
    assert plan(studies.study(source), ("ct",)) == []
