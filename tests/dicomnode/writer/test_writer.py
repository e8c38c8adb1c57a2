"""What a study yields as a whole: order, identity, determinism, validity."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.writer import ALWAYS, OBJECTS, plan, result_uid, write
from dicomnode.writer.common import DISCLAIMER
from inference.maps import KINDS, MapKind
from tests import phantom
from tests.dciodvfy import unexpected, unused
from tests.dicomnode.writer import studies


@pytest.fixture
def study():
    return studies.small(kinds=("CBF", "Tmax"))


@pytest.fixture
def stroke():
    """A study that has every kind of object."""
    return studies.stroke(phantom.head(phantom.even(10, 14.0), matrix=64))


def test_a_destination_may_ask_for_every_kind_of_object():
    peer = {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.20", "port": 104}
    asking = config.parse({"destination": [peer | {"objects": [kind for kind in OBJECTS if kind != "note"]}]})
    assert {*asking.destination[0].objects, "note"} == set(OBJECTS)
    assert config.parse({"destination": [peer]}).destination[0].objects == ALWAYS
    with pytest.raises(config.ConfigError, match="objects"):
        config.parse({"destination": [peer | {"objects": ["sc", "gsps"]}]})


def test_only_what_is_asked_for_is_made(stroke):
    assert {kind for kind, _, _ in plan(stroke, OBJECTS)} == set(OBJECTS)
    for kind in OBJECTS:
        assert {r.kind for r in write(stroke, lambda kind, name, index: index == 0, kinds=(kind,))} == {kind}
    assert {kind for kind, _, _ in plan(stroke)} == {"sc", "pm"}


def test_captures_come_first_and_then_the_parametric_maps(study):
    rendered = [(r.kind, r.map, r.index) for r in write(study)]
    captures = [("sc", name, i) for name in ("CBF", "Tmax") for i in range(10)]
    assert rendered == [*captures, ("pm", "CBF", 0), ("pm", "Tmax", 0)]
    assert rendered == plan(study)


def test_a_resumed_job_renders_only_what_it_lacks(study):
    lacking = {("sc", "Tmax", 3), ("pm", "CBF", 0)}
    rendered = list(write(study, lambda *item: item in lacking))
    assert {(r.kind, r.map, r.index) for r in rendered} == lacking
    whole = {(r.kind, r.map, r.index): studies.saved(r.dataset) for r in write(study)}
    assert all(studies.saved(r.dataset) == whole[r.kind, r.map, r.index] for r in rendered)


def test_a_second_rendering_has_the_same_bytes(stroke):
    first, second = ([studies.saved(r.dataset) for r in write(stroke, kinds=OBJECTS)] for _ in range(2))
    assert first == second


def test_uids_follow_from_job_kind_map_and_index(stroke):
    for r in write(stroke, kinds=OBJECTS):
        ds = r.dataset
        assert ds.SOPInstanceUID == result_uid("job", r.kind, r.map, r.index) == ds.file_meta.MediaStorageSOPInstanceUID
        assert ds.SeriesInstanceUID == result_uid("job", r.kind, r.map, "series")
        assert ds.SOPInstanceUID.is_valid
        assert ds.SOPInstanceUID.startswith("2.25.")
    assert result_uid("job", "sc", "Tmax", 3) == "2.25.111975080356006981435579669477533589172"


def test_uids_are_unique_and_another_job_has_others(study):
    uids = [r.dataset.SOPInstanceUID for of in (study, replace(study, job_key="other")) for r in write(of)]
    assert len(set(uids)) == len(uids) == 44


def test_changing_one_data_set_leaves_its_siblings_alone(study):
    first, second = (r.dataset for r in write(study, lambda kind, name, i: (kind, name) == ("sc", "CBF") and i < 2))
    first.PatientName = "Changed"
    first.ContributingEquipmentSequence[1].Manufacturer = "Changed"
    assert second.PatientName == "Phantom^Asymmetric"
    assert second.ContributingEquipmentSequence[1].Manufacturer != "Changed"


def test_changing_a_parametric_map_leaves_the_next_alone(study):
    for r in write(study, lambda kind, name, index: kind == "pm"):
        node = r.dataset.ContributingEquipmentSequence[1]
        assert node.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
        node.PurposeOfReferenceCodeSequence[0].CodeMeaning = "Changed"


def test_without_a_frame_of_reference_there_is_nothing_that_needs_one():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        del ds.FrameOfReferenceUID
    study = studies.stroke(source)
    assert not {"pm", "ct", "seg"} & {kind for kind, _, _ in plan(study, OBJECTS)}
    rendered = [r.dataset for r in write(study)]
    assert len(rendered) == len(plan(study)) == 20
    assert all("FrameOfReferenceUID" not in ds and "ImagePositionPatient" in ds for ds in rendered)


def test_a_matrix_that_web_viewers_cannot_read_gets_no_parametric_map():
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=63))
    assert {kind for kind, _, _ in plan(study)} == {"sc"}


def test_a_further_kind_is_one_more_row(monkeypatch):
    percent = ("%", "percent")
    extraction = ("126392", "Oxygen Extraction Fraction")
    oef = MapKind("OEF", "Oxygen extraction fraction", "%", percent, extraction, extraction, 100.0)
    monkeypatch.setitem(KINDS, "OEF", oef)
    study = studies.small(kinds=("OEF",))
    capture, parametric = studies.one(study, name="OEF"), studies.one(study, "pm", name="OEF")
    assert capture.SeriesDescription == "SYNTHETIC OEF sim-trained (NCCT-AI)"
    assert (capture.SeriesNumber, parametric.SeriesNumber) == (9006, 9106)
    mapping = parametric.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.MeasurementUnitsCodeSequence[0].CodeValue) == (100.0, "%")


def test_every_object_says_that_it_is_synthetic(stroke):
    for r in write(stroke, kinds=OBJECTS):
        ds = r.dataset
        assert ds.SyntheticData == "YES"
        assert ds.SeriesDescription.startswith(f"SYNTHETIC {r.map} ")
        words = (ds.get(k) for k in ("ContentDescription", "DerivationDescription", "DocumentTitle"))
        said = next((text for text in words if text), "") or ds.to_json()
        assert DISCLAIMER in said or said.startswith("SYNTHETIC")


def variants():
    """Studies that differ in what a validator could stumble over."""
    source = phantom.head(phantom.even(10, 14.0), matrix=64, tilt_degrees=18.0)
    yield studies.stroke(source, revision=2, supersedes=1, simulated_input=True)
    yield studies.study(phantom.head(phantom.even(10, 14.0), matrix=512))
    relative = replace(studies.MANIFEST, units="relative", training_domain="clinical")
    yield studies.small(kinds=KINDS, manifest=relative, warnings=("INCOMPLETE SERIES",))
    bare = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in bare:
        del ds.FrameOfReferenceUID, ds.SliceThickness, ds.BodyPartExamined, ds.PatientAge
    yield studies.study(bare)
    lossy = phantom.head([-60, -50, -45, -30, -10, 0, 5, 20, 40, 60], matrix=64, patient_position="FFP")
    for ds in lossy:
        ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 12
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    yield studies.study(lossy)


def test_dciodvfy_says_only_what_the_list_allows(tmp_path: Path):
    files = {kind: [] for kind in OBJECTS}
    for number, study in enumerate(variants()):
        for r in write(study, lambda kind, name, i: kind not in studies.PER_SLICE or i == 5, OBJECTS):
            path = tmp_path / f"{number}-{r.kind}-{r.map}.dcm"
            path.write_bytes(studies.saved(r.dataset))
            files[r.kind].append(path)
            assert not unexpected(r.kind, path)
    assert {kind: unused(kind, paths) for kind, paths in files.items()} == {kind: set() for kind in OBJECTS}


def test_numbers_of_series_are_their_own(stroke):
    numbers = {r.dataset.SeriesInstanceUID: r.dataset.SeriesNumber for r in write(stroke, kinds=OBJECTS)}
    assert len(set(numbers.values())) == len(numbers)
    assert min(numbers.values()) > 9000
