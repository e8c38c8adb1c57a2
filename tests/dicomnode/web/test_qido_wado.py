"""dicomnode.web.qido and wado over real HTTP, read with dicomweb-client, pydicom and DCMTK."""

import io
import json
import subprocess
from io import BytesIO

import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ParametricMapStorage, SecondaryCaptureImageStorage

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Held
from dicomnode.roles import Role
from tests.dicomnode.arrivals import part10
from tests.dicomnode.web.place import Place, computed, head_ct, parts_of
from tests.tools import program

JSON, DICOM = "application/dicom+json", 'multipart/related; type="application/dicom"'
OCTETS = 'multipart/related; type="application/octet-stream"'


@pytest.fixture(scope="module")
def study(slices: list[Dataset]) -> str:
    return str(slices[0].StudyInstanceUID)


def held(place: Place, study: str, sop_class: str) -> list[Held]:
    return [each for each in bookkeeping.find_held(place.books, study) if each.sop_class_uid == sop_class]


def path_of(each: Held) -> str:
    return f"/studies/{each.study_instance_uid}/series/{each.series_instance_uid}/instances/{each.sop_instance_uid}"


def test_a_study_is_found_by_each_key_that_the_books_hold(place: Place, study: str):
    for key, value in (
        ("StudyInstanceUID", study),
        ("PatientID", "P1"),
        ("PatientID", "P*"),
        ("PatientName", "muster*"),
        ("PatientName", "Muster"),
        ("00100010", "Must?r^Eva"),
        ("AccessionNumber", "A1"),
        ("StudyDate", "20260302"),
        ("StudyDate", "20260101-20260401"),
        ("StudyDate", "20260302-"),
        ("ModalitiesInStudy", "SEG"),
    ):
        found = place.get("/studies", accept=JSON, **{key: value})
        assert found.status_code == 200, (key, value, found.text)
        assert [item["0020000D"]["Value"] for item in found.json()] == [[study]]
    for key, value in (
        ("PatientID", "P"),
        ("PatientName", "%"),
        ("PatientName", "' OR 1=1 --"),
        ("AccessionNumber", "A_"),
        ("StudyDate", "20260303-"),
        ("StudyDate", "-20260301"),
        ("ModalitiesInStudy", "MR"),
        ("ModalitiesInStudy", "CT;DROP"),
    ):
        assert place.get("/studies", **{key: value}).status_code == 204, (key, value)


def test_what_a_search_says_of_a_study(place: Place, study: str):
    (item,) = place.get("/studies", includefield="Manufacturer").json()
    ds = Dataset.from_json(item)
    assert (str(ds.PatientName), ds.PatientID, ds.AccessionNumber, ds.StudyDate) == (
        "Muster^Eva",
        "P1",
        "A1",
        "20260302",
    )
    assert sorted(ds.ModalitiesInStudy) == ["CT", "DOC", "OT", "SEG"]  # derived CT and captures; nothing received
    results = bookkeeping.find_held(place.books, study)
    assert ds.NumberOfStudyRelatedInstances == len(results)
    assert ds.NumberOfStudyRelatedSeries == len({each.series_instance_uid for each in results})
    assert ds.Manufacturer
    assert ds.RetrieveURL == f"{place.dicomweb}/studies/{study}"


def test_what_is_not_matched_is_said_and_what_is_no_attribute_is_refused(place: Place):
    answer = place.get("/studies", PatientSex="F")
    assert answer.status_code == 200
    assert "PatientSex" in answer.headers["Warning"]
    assert place.get("/studies", Nonsense="1").status_code == 400
    assert place.get("/studies", accept="text/html").status_code == 406
    assert place.get("/studies", limit="0").status_code == 422


def test_pages_of_a_search(place: Place, study: str):
    seen = []
    for offset in range(0, 1000, 7):
        answer = place.get(f"/studies/{study}/instances", limit=7, offset=offset)
        if answer.status_code == 204:
            break
        seen += [item["00080018"]["Value"][0] for item in answer.json()]
    assert sorted(seen) == sorted(each.sop_instance_uid for each in bookkeeping.find_held(place.books, study))


def test_what_was_received_is_shown_to_operators_only(place: Place, study: str, slices: list[Dataset]):
    source = slices[0]
    path = f"/studies/{study}/series/{source.SeriesInstanceUID}"
    instance = f"{path}/instances/{source.SOPInstanceUID}"
    for role, expected in ((Role.VIEWER, 404), (Role.OPERATOR, 200), (Role.ADMINISTRATOR, 200)):
        for where in (path, instance, f"{path}/metadata", f"{instance}/frames/1", f"{instance}/rendered"):
            assert place.get(where, role).status_code == expected, (role, where)
        found = place.get(f"{path}/instances", role)
        assert found.status_code == (200 if expected == 200 else 204)
    (item,) = place.get("/studies", Role.OPERATOR).json()
    (ours,) = place.get("/studies", Role.VIEWER).json()
    count = "00201208"
    assert item[count]["Value"][0] - ours[count]["Value"][0] == len(slices)


def test_dicomweb_client_searches_and_retrieves_everything(place: Place, study: str):
    with place.authorised(Role.VIEWER) as session:
        client = DICOMwebClient(place.dicomweb, session=session)
        assert [found["0020000D"]["Value"] for found in client.search_for_studies()] == [[study]]
        modalities = [Dataset.from_json(each).Modality for each in client.search_for_series(study)]
        assert sorted(set(modalities)) == ["CT", "DOC", "OT", "SEG"]
        everything = bookkeeping.find_held(place.books, study)
        retrieved = client.retrieve_study(study)
        assert {ds.SOPInstanceUID for ds in retrieved} == {each.sop_instance_uid for each in everything}
        metadata = client.retrieve_study_metadata(study)
        assert len(metadata) == len(everything)
        (pm, *_) = held(place, study, ParametricMapStorage)
        uids = (study, pm.series_instance_uid, pm.sop_instance_uid)
        whole = client.retrieve_instance(*uids)
        frames = client.retrieve_instance_frames(*uids, frame_numbers=[1, 3])
        stored = np.frombuffer(whole.FloatPixelData, "<f4").reshape(whole.NumberOfFrames, -1)
        assert [np.frombuffer(frame, "<f4").tolist() for frame in frames] == [stored[0].tolist(), stored[2].tolist()]


def test_files_come_byte_for_byte(place: Place, study: str):
    for each in bookkeeping.find_held(place.books, study)[::7]:
        content = place.spool.path(each.path).read_bytes()
        assert parts_of(place.get(path_of(each), accept=DICOM)) == [content]
        single = place.get(path_of(each), accept="application/dicom")
        assert (single.headers["Content-Type"], single.content) == ("application/dicom", content)


def test_dcmtk_reads_what_is_retrieved(place: Place, study: str, tmp_path):
    for number, part in enumerate(parts_of(place.get(f"/studies/{study}", accept=DICOM))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(part)
    found = subprocess.run([program("dcmftest"), *map(str, tmp_path.iterdir())], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_metadata_is_that_of_the_file_without_its_pixels(place: Place, study: str):
    for each in bookkeeping.find_held(place.books, study):
        answer = place.get(path_of(each) + "/metadata", accept=JSON)
        assert answer.headers["Content-Type"] == JSON
        (found,) = json.loads(answer.text, parse_constant=pytest.fail)  # NaN is no JSON
        ds = dcmread(place.spool.path(each.path))
        assert found["00080018"]["Value"] == [each.sop_instance_uid]
        bulk = {tag: value["BulkDataURI"] for tag, value in found.items() if "BulkDataURI" in value}
        assert {int(tag, 16) for tag in found} == {int(element.tag) for element in ds}
        for tag, address in bulk.items():
            assert address.startswith(place.dicomweb)
            given = place.get(address.removeprefix(place.dicomweb), accept="application/octet-stream")
            assert given.content == ds[int(tag, 16)].value


def test_frames_and_pictures_of_captures_derived_ct_and_maps(place: Place, study: str):
    capture = held(place, study, SecondaryCaptureImageStorage)[4]
    rgb = dcmread(place.spool.path(capture.path)).pixel_array
    assert parts_of(place.get(path_of(capture) + "/frames/1", accept=OCTETS)) == [rgb.tobytes()]
    with Image.open(io.BytesIO(place.get(path_of(capture) + "/rendered", accept="image/png").content)) as picture:
        assert np.array_equal(np.asarray(picture), rgb)

    derived = held(place, study, CTImageStorage)[4]
    ds = dcmread(place.spool.path(derived.path))
    low, high = ds.WindowCenter - ds.WindowWidth / 2, ds.WindowCenter + ds.WindowWidth / 2
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    expected = ((values - low) / (high - low)).clip(0, 1) * 255
    with Image.open(
        io.BytesIO(place.get(path_of(derived) + "/frames/1/rendered", accept="image/png").content)
    ) as drawn:
        assert np.abs(np.asarray(drawn, float) - expected).max() <= 1

    pm = held(place, study, ParametricMapStorage)[0]
    jpeg = place.get(path_of(pm) + "/frames/5/rendered", accept="image/jpeg")
    assert jpeg.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(jpeg.content)) as picture:
        assert picture.size == (ds.Columns, ds.Rows)
        assert np.ptp(np.asarray(picture)) > 20
    wide = place.get(path_of(pm) + "/rendered", accept="image/png", window="0,1000000,LINEAR_EXACT")
    with Image.open(io.BytesIO(wide.content)) as picture:
        assert np.ptp(np.asarray(picture)) <= 1


@pytest.mark.parametrize(
    ("rest", "accept", "status"),
    [
        ("/frames/0", OCTETS, 404),
        ("/frames/999", OCTETS, 404),
        ("/frames/1,,2", OCTETS, 400),
        ("/frames/-1", OCTETS, 400),
        ("/frames/x", OCTETS, 400),
        ("/frames/1", "image/jp2", 406),
        ("/frames/1", OCTETS + "; transfer-syntax=1.2.840.10008.1.2.4.90", 406),
        ("/rendered", "video/mp4", 406),
        ("/rendered?window=a,b", "image/png", 400),
        ("/rendered?window=nan,1", "image/png", 400),
        ("/rendered?window=1,0", "image/png", 400),
        ("/bulkdata/zz", OCTETS, 400),
        ("/bulkdata/00100010", OCTETS, 404),
        ("", DICOM + "; transfer-syntax=1.2.840.10008.1.2.4.90", 406),
        ("", "text/plain", 406),
        ("/../../../../../../etc/passwd", "*/*", 404),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(place: Place, study: str, rest, accept, status):
    response = place.get(path_of(held(place, study, CTImageStorage)[0]) + rest, accept=accept)
    assert response.status_code == status
    assert response.json()["detail"]


def test_segments_and_documents_have_no_picture(place: Place, study: str):
    for each in bookkeeping.find_held(place.books, study):
        if each.kind in ("seg", "pdf"):
            assert place.get(path_of(each) + "/rendered").status_code in (404, 406)


def test_a_file_that_has_gone_is_said_to_be_gone(empty: Place):

    computed(empty, head_ct(), ("sc",))
    study = str(head_ct()[0].StudyInstanceUID)
    (first, *_) = bookkeeping.find_held(empty.books, study)
    empty.spool.path(first.path).unlink()
    assert empty.get(path_of(first)).status_code == 410
    assert empty.get(f"/studies/{study}").status_code == 410  # never a study with a hole in it
    assert empty.get("/studies").status_code == 200


def test_instances_stored_here_read_back_as_they_came(empty: Place):

    part = part10(head_ct()[0])
    assert empty.store([part]).status_code == 200
    ds = dcmread(BytesIO(part))
    answer = empty.get(f"/studies/{ds.StudyInstanceUID}", Role.OPERATOR, DICOM)
    assert parts_of(answer) == [part]
