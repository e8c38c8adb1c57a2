"""dicomnode.web.stow over real HTTP: kept byte for byte, each instance answered for itself, nothing whole in memory."""

import http.client
import json
from hashlib import sha256
from io import BytesIO

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from dicomnode import bookkeeping
from dicomnode.roles import Role
from tests import phantom
from tests.dicomnode.arrivals import only_series, part10
from tests.dicomnode.web.place import NAMES, PASSWORD, Place, head_ct, multipart, serving
from tests.walks.node import wait_for

REFERENCED, FAILED, OTHER, REASON = "00081199", "00081198", "0008119A", "00081197"


def kept(place: Place) -> list[bytes]:
    return [path.read_bytes() for path in (place.spool.root / "in").iterdir()]


def items(answer: dict, tag: str) -> list[dict]:
    return answer.get(tag, {}).get("Value", [])


def test_what_is_stored_is_kept_byte_for_byte_and_recorded_under_its_sender(empty: Place):
    parts = [part10(ds) for ds in head_ct()]
    response = empty.store(parts)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/dicom+json"
    stored = {item["00081155"]["Value"][0] for item in items(response.json(), REFERENCED)}
    assert stored == {str(dcmread(BytesIO(part)).SOPInstanceUID) for part in parts}
    assert sorted(map(sha256_of, kept(empty))) == sorted(map(sha256_of, parts))
    series = only_series(empty.books)
    assert {i.calling_ae_title for i in series.instances} == {"CT1"}
    assert series.open_associations == 0  # so that the quiet time begins
    study = bookkeeping.story(empty.books, series.study_instance_uid).study
    assert study.lane == "stroke"


def sha256_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def test_dicomweb_client_stores(empty: Place):
    with empty.authorised(Role.SENDER) as session:
        client = DICOMwebClient(empty.dicomweb, session=session)
        answer = client.store_instances([dcmread(BytesIO(part10(ds))) for ds in head_ct()[:3]])
    assert len(answer.ReferencedSOPSequence) == len(kept(empty)) == 3


def test_basic_authorization_will_do(empty: Place):
    body, content_type = multipart([part10(head_ct()[0])])
    with empty.authorised(Role.SENDER) as session:
        del session.headers["Authorization"]
        url, headers = empty.dicomweb + "/studies", {"Content-Type": content_type}
        answers = [
            session.post(url, data=body, headers=headers, auth=(NAMES[Role.SENDER], password), timeout=60).status_code
            for password in (PASSWORD, PASSWORD, "wrong")
        ]
    assert answers == [200, 200, 401]


def test_each_instance_is_answered_for_itself(empty: Place):
    good, torn = (part10(ds) for ds in head_ct()[:2])
    response = empty.store([good, torn[:-100], b"no DICOM at all"])
    assert response.status_code == 202
    assert len(items(response.json(), REFERENCED)) == 1
    others = [item[REASON]["Value"][0] for item in items(response.json(), OTHER)]
    assert others == [0xC000, 0xC000]
    assert len(list((empty.spool.root / "quarantine").iterdir())) == 2  # bytes kept, reason in the books


def test_nothing_stored_is_409(empty: Place):
    assert empty.store([b"no DICOM at all"]).status_code == 409


def test_an_instance_of_another_study_than_the_address_names_is_refused(empty: Place):
    first = head_ct()[0]
    assert empty.store([part10(first)], f"/studies/{first.StudyInstanceUID}").status_code == 200
    other = head_ct(StudyInstanceUID="2.25.99")[0]
    response = empty.store([part10(other)], f"/studies/{first.StudyInstanceUID}")
    assert response.status_code == 409
    assert [item[REASON]["Value"][0] for item in items(response.json(), FAILED)] == [0xA900]
    assert len(kept(empty)) == 1


def test_what_is_no_storage_class_is_refused(empty: Place):
    ds = head_ct()[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.1"
    answer = empty.store([part10(ds)])
    assert (answer.status_code, items(answer.json(), FAILED)[0][REASON]["Value"]) == (409, [0x0122])


def test_an_instance_larger_than_allowed_costs_only_itself(empty: Place):
    big, good = head_ct()[:2]
    big.PixelData = bytes(5 * 2**20)
    response = empty.store([part10(big), part10(good)])
    assert response.status_code == 202
    assert [item[REASON]["Value"][0] for item in items(response.json(), OTHER)] == [0xA700]
    assert list((empty.spool.root / "tmp").iterdir()) == []


def test_the_same_instance_again_is_stored_and_kept_once(empty: Place):
    part = part10(head_ct()[0])
    assert [empty.store([part, part]).status_code, empty.store([part]).status_code] == [200, 200]
    assert len(kept(empty)) == 1


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/dicom", b"x", 415),
        ("multipart/related; type=application/dicom+json; boundary=b", b"--b--", 415),
        ("multipart/related; type=application/dicom", b"--b--", 400),
        ("multipart/related; boundary=" + "b" * 201, b"--b--", 400),
        ("multipart/related; boundary=b", b"", 400),
        ("multipart/related; boundary=b", b"something else", 400),
        ("multipart/related; boundary=b", b"--b--\r\n", 400),
        ("multipart/related; boundary=b", b"--b\r\nContent-Type: application/dicom\r\n\r\nhalf", 400),
        ("multipart/related; boundary=b", b"--b\r\n" + b"A" * 10000, 400),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_refused(empty: Place, content_type, body, status):
    with empty.authorised(Role.SENDER) as session:
        headers = {"Content-Type": content_type}
        response = session.post(empty.dicomweb + "/studies", data=body, headers=headers, timeout=60)
    assert response.status_code == status
    assert kept(empty) == list((empty.spool.root / "tmp").iterdir()) == []


def test_a_part_of_another_type_is_not_kept(empty: Place):
    body, content_type = multipart([part10(head_ct()[0])], "text/plain")
    with empty.authorised(Role.SENDER) as session:
        headers = {"Content-Type": content_type}
        response = session.post(empty.dicomweb + "/studies", data=body, headers=headers, timeout=60)
    assert (response.status_code, kept(empty)) == (409, [])


def test_a_sender_that_breaks_off_leaves_what_was_whole_and_nothing_else(empty: Place):
    parts = [part10(ds) for ds in phantom.head(phantom.even(4), matrix=512)]
    body, content_type = multipart(parts)
    connection = http.client.HTTPConnection("127.0.0.1", empty.settings.web.port)
    connection.putrequest("POST", "/dicom-web/studies")
    connection.putheader("Authorization", f"Bearer {empty.tokens[Role.SENDER]}")
    connection.putheader("Content-Type", content_type)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[: -len(parts[3]) // 2])
    wait_for(lambda: len(kept(empty)) >= 2, "the first instances")
    connection.close()
    wait_for(lambda: not list((empty.spool.root / "tmp").iterdir()), "the removal of the torn one")
    wait_for(lambda: [s.open_associations for s in bookkeeping.receiving(empty.books)] == [0], "the end of it all")
    assert set(kept(empty)) <= set(parts[:3])
    assert len(only_series(empty.books).instances) == len(kept(empty))


def test_a_full_disk_is_told_before_the_body_is_read(tmp_path):
    with serving(tmp_path, listen={"keep_free_gib": 1e9}) as place:
        response = place.store([part10(head_ct()[0])])
        assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
        assert kept(place) == []


@pytest.mark.parametrize(("role", "status"), [(role, 403) for role in Role if role is not Role.SENDER])
def test_only_senders_store(place: Place, role, status):
    assert place.store([b""], role=role).status_code == status


def test_a_sender_must_be_a_source_at_its_address(tmp_path):
    elsewhere = [{"ae_title": "CT1", "addresses": ["192.0.2.1"]}]
    with serving(tmp_path, source=elsewhere) as place:
        assert place.store([part10(head_ct()[0])]).status_code == 403
        ((code, why, *_),) = bookkeeping.refusals(
            place.books, "association", bookkeeping.accounts(place.books)[0][0].created_at
        )
        assert code == "unlisted-source"
        assert "CT1 at 127.0.0.1" in why


def test_answers_are_json_that_json_reads(empty: Place):
    assert json.loads(empty.store([part10(head_ct()[0])]).text)
