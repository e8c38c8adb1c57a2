"""Segmentations, read back by highdicom and by dcmqi, against a head whose core and late tissue are known balls."""

import json
import subprocess
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk

from dicomnode.writer import plan, write
from inference import regions
from inference.maps import KINDS, PerfusionMap
from tests import phantom
from tests.dicomnode.writer import studies

POSITIONS = pytest.mark.parametrize("position", phantom.POSITIONS)
UNEQUAL = [-55, -51, -47, -43, -39, -35, -31, -27, -23, -20, -6, 1, 8, 15, 22, 29, 34, 41, 48, 55, 62]
LATE, LOW_CBF = "SYNTHETIC estimate Tmax > 6 s", "SYNTHETIC estimate low CBF, < 30 % and Tmax > 6 s"
BANDS = [f"SYNTHETIC estimate Tmax {extent}" for extent in ("4-6 s", "6-8 s", "> 10 s")]  # none at 8-10 s here

LEFT_UPPER, RIGHT_LOWER, LEFT_FRONT = (np.array(mark.centre) for mark in phantom.MARKS)
INSIDE = {  # segment -> marks that it holds: the left upper one is core at 10.8 s, the others have 5.4 and 7.2 s
    LATE: (LEFT_UPPER, LEFT_FRONT),
    LOW_CBF: (LEFT_UPPER,),
    BANDS[0]: (RIGHT_LOWER,),
    BANDS[1]: (LEFT_FRONT,),
    BANDS[2]: (LEFT_UPPER,),
}


def sources(position="HFS"):
    """Straight, tilted, unequally spaced, and foot to head in the file order."""
    yield phantom.head(matrix=128, patient_position=position)
    yield phantom.head(matrix=128, patient_position=position, tilt_degrees=18.0)
    yield phantom.head(UNEQUAL, matrix=128, patient_position=position, tilt_degrees=-12.0, head_to_foot=True)


def frames(ds):
    """(frames, rows, columns) bool, the bits as stored, least significant first (PS3.5 8.1.1)."""
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    return bits[: ds.NumberOfFrames * ds.Rows * ds.Columns].reshape(-1, ds.Rows, ds.Columns).astype(bool)


def number(group):
    return group.SegmentIdentificationSequence[0].ReferencedSegmentNumber


def place(group):
    return np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)


def holds(study, ds, segment, point):
    """Whether a segment holds a point of the patient (LPS mm) in the nearest slice, by the planes of the file."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row, column = orientation[:3], orientation[3:]
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    slices = study.volume.positions
    nearest = slices[np.abs((slices - point) @ np.cross(row, column)).argmin()]
    for stored, group in zip(frames(ds), ds.PerFrameFunctionalGroupsSequence, strict=True):
        if number(group) == segment and np.abs(place(group) - nearest).max() < 1e-3:
            offset = point - place(group)
            return stored[round(offset @ column / between_rows), round(offset @ row / between_columns)]
    return False


@POSITIONS
def test_segments_hold_their_marks_and_no_other_place(position):
    for source in sources(position):
        study = studies.stroke(source)
        for name in ("regions", "Tmax"):
            ds = studies.one(study, "seg", name=name)
            for segment in ds.SegmentSequence:
                for point in (LEFT_UPPER, RIGHT_LOWER, LEFT_FRONT, LEFT_UPPER * (-1, 1, 1), LEFT_UPPER * (1, 1, -1)):
                    expected = any(point is mark for mark in INSIDE[segment.SegmentLabel])
                    assert holds(study, ds, segment.SegmentNumber, point) == expected, segment.SegmentLabel


@POSITIONS
def test_frames_ascend_along_the_normal_and_name_their_slices(position):
    for source in sources(position):
        study = studies.stroke(source)
        places = {s.SOPInstanceUID: np.array(s.ImagePositionPatient, float) for s in study.source}
        for name in ("regions", "Tmax"):
            ds = studies.one(study, "seg", name=name)
            groups = ds.PerFrameFunctionalGroupsSequence
            for segment in {number(group) for group in groups}:
                offsets = [place(group) @ study.volume.normal for group in groups if number(group) == segment]
                assert (np.diff(offsets) > 0).all()
            values = [tuple(group.FrameContentSequence[0].DimensionIndexValues) for group in groups]
            assert values == sorted(values)
            for group in groups:
                (derivation,) = group.DerivationImageSequence
                (of,) = derivation.SourceImageSequence
                assert np.allclose(place(group), places[of.ReferencedSOPInstanceUID], rtol=0, atol=1e-4)
                assert derivation.DerivationDescription.startswith("SYNTHETIC, not acquired")


def test_the_voxels_are_those_of_the_regions_and_empty_frames_are_left_out():
    study = studies.stroke(phantom.head(UNEQUAL, matrix=128, tilt_degrees=9.0))
    each = regions.bands(study.maps[1].values, study.brain, regions.slice_voxel_ml(study.volume))
    expected = {
        "regions": {LATE: study.regions.hypoperfused, LOW_CBF: study.regions.core},
        "Tmax": dict(zip(BANDS, (each[0], each[1], each[3]), strict=True)),
    }
    for name, wanted in expected.items():
        ds = studies.one(study, "seg", name=name)
        assert [segment.SegmentLabel for segment in ds.SegmentSequence] == list(wanted)
        stored = frames(ds)
        for segment, where in enumerate(wanted.values(), start=1):
            mine = [i for i, group in enumerate(ds.PerFrameFunctionalGroupsSequence) if number(group) == segment]
            assert np.array_equal(stored[mine], where[where.any(axis=(1, 2))])


def test_highdicom_reads_the_volumes_of_the_regions(tmp_path: Path):
    study = studies.stroke()
    path = tmp_path / "seg.dcm"
    path.write_bytes(studies.saved(studies.one(study, "seg", name="regions")))
    segmentation = highdicom.seg.segread(path)
    assert segmentation.segmented_property_types == [segmentation.segmented_property_types[0]]
    volume = segmentation.get_volume(combine_segments=False)
    ml = volume.array.astype(bool).sum(axis=(0, 1, 2)) * abs(np.linalg.det(volume.affine[:3, :3])) / 1000.0
    assert ml == pytest.approx([study.regions.hypoperfused_ml, study.regions.core_ml], rel=1e-6)
    for point, expected in ((LEFT_UPPER, [1, 1]), (LEFT_FRONT, [1, 0])):
        index = np.round((np.linalg.inv(volume.affine) @ [*point, 1.0])[:3]).astype(int)
        assert list(volume.array[tuple(index)]) == expected


@POSITIONS
def test_dcmqi_finds_the_marks(position, tmp_path: Path):
    study = studies.stroke(phantom.head(matrix=128, patient_position=position))
    image, described = by_dcmqi(studies.saved(studies.one(study, "seg", name="Tmax")), tmp_path)
    labels = {item["SegmentLabel"]: item["labelID"] for group in described["segmentAttributes"] for item in group}
    for label, marks in INSIDE.items():
        for mark in marks if label in BANDS else ():
            assert image.GetPixel(image.TransformPhysicalPointToIndex(mark.tolist())) == labels[label]
    box = sitk.GetArrayFromImage(image)
    assert set(np.unique(box)) == {0, *labels.values()}


def by_dcmqi(file: bytes, folder: Path):
    """The image and the description that Slicer's reader makes of a segmentation."""
    (folder / "seg.dcm").write_bytes(file)
    program = next(
        f for f in distribution("dcmqi").files if f.name.split(".")[0] == "segimage2itkimage" and "bin" in f.parts
    )
    command = [program.locate(), "--inputDICOM", folder / "seg.dcm", "--outputDirectory", folder, "--prefix", "s"]
    subprocess.run([*command, "--mergeSegments"], check=True, capture_output=True)
    (nrrd,) = folder.glob("*.nrrd")
    (described,) = folder.glob("*.json")
    return sitk.ReadImage(str(nrrd)), json.loads(described.read_text())


def test_what_each_segment_says():
    ds = studies.one(studies.stroke(), "seg", name="regions")
    late, core = ds.SegmentSequence
    assert (late.SegmentLabel, core.SegmentLabel) == (LATE, LOW_CBF)
    for segment in (late, core):
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert segment.SegmentDescription.endswith("synthetic estimate, not for treatment selection")
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ncct-virtual", "1")
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert studies.MANIFEST.sha256[:16] in algorithm.AlgorithmParameters
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "371863001"
        assert segment.AnatomicRegionSequence[0].CodeValue == "12738006"
    assert late.TrackingUID != core.TrackingUID
    assert list(late.RecommendedDisplayCIELabValue) != list(core.RecommendedDisplayCIELabValue)
    assert (ds.SegmentationType, ds.SegmentsOverlap, ds.Modality) == ("BINARY", "YES", "SEG")
    assert ds.SeriesDescription == "SYNTHETIC regions sim-trained (NCCT-AI)"
    assert "ContentCreatorName" in ds


def test_bands_do_not_overlap():
    assert studies.one(studies.stroke(), "seg").SegmentsOverlap == "NO"


def test_untrained_weights_are_named_in_each_segment():
    study = studies.stroke(manifest=replace(studies.MANIFEST, training_domain="untrained"))
    assert all("UNTRAINED" in segment.SegmentLabel for segment in studies.one(study, "seg").SegmentSequence)


def quick(study):
    """The study with nothing late in it."""
    values = np.where(study.brain, 2.0, 0.0).astype(np.float32)
    return replace(study, maps=[study.maps[0], PerfusionMap(KINDS["Tmax"], values)])


def test_a_head_without_late_tissue_has_no_segmentation():
    study = quick(studies.stroke())
    assert (study.regions.hypoperfused_ml, study.regions.core_ml) == (0.0, 0.0)
    assert plan(study, ("seg",)) == []
    assert list(write(study, kinds=("seg",))) == []


def test_a_head_without_core_has_one_region():
    study = studies.study(kinds=("CBF", "Tmax"))  # flow is high wherever tissue is late
    assert study.regions.core_ml == 0.0
    (segment,) = studies.one(study, "seg", name="regions").SegmentSequence
    assert segment.SegmentLabel == LATE


@pytest.mark.parametrize(
    "changes", [{"maps": ["Tmax"]}, {"maps": ["CBF"]}, {"manifest": replace(studies.MANIFEST, units="relative")}]
)
def test_maps_that_carry_no_thresholds_have_no_regions(changes):
    study = studies.stroke()
    kept = changes.get("maps", ["CBF", "Tmax"])
    study = replace(study, **changes | {"maps": [m for m in study.maps if m.kind.name in kept]})
    assert study.regions is None
    assert plan(study, ("seg",)) == []
