"""Real head CT by DCMTK storescu through a running node into a running Orthanc, read back with other tools."""

import json
import re
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping
from dicomnode.demo import free_port
from dicomnode.roles import Role
from inference.maps import KINDS
from tests.dciodvfy import allowed, unexpected
from tests.dicomnode.web.browser import chromium, find, logged_in, same_document, watched
from tests.dicomnode.web.place import HASH, NAMES
from tests.tools import data
from tests.walks.node import Node, Orthanc, dicomnode, wait_for


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", free_port(), free_port()).running() as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[Node]:
    destination = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
    made = Node.init(tmp_path_factory.mktemp("node"), "--source", "STORESCU@127.0.0.1", "--destination", destination)
    made = made.with_web()
    with made.up():
        yield made


@pytest.fixture(scope="module")
def ge_head() -> list[Dataset]:
    return [dcmread(path) for path in sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))]


@pytest.fixture(scope="module")
def plastic() -> list[Dataset]:
    with zipfile.ZipFile(data("ct_philips_phantom/ct_philips_phantom_5mm.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        return [dcmread(BytesIO(archive.read(name))) for name in names]


def save(slices: list[Dataset], folder: Path) -> Path:
    folder.mkdir()
    for n, ds in enumerate(slices):
        ds.save_as(folder / f"{n:03d}.dcm", enforce_file_format=True)
    return folder


def renamed(slices: list[Dataset], suffix: str, **elements: object) -> list[Dataset]:
    """The same images as another study."""
    copies = deepcopy(slices)
    for ds in copies:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(ds, keyword, getattr(ds, keyword)[:-2] + suffix)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return copies


def blank_text(slices: list[Dataset]) -> None:
    """Empty every text element that is not needed to file the instance."""
    for ds in slices:
        for element in list(ds):
            if element.VR in ("LO", "SH", "PN", "LT", "ST", "UT") and not element.is_empty:
                ds[element.tag].value = ""
        ds.BodyPartExamined = ""


def test_the_real_head_comes_back_as_ten_series_in_its_study(node: Node, orthanc: Orthanc, ge_head, tmp_path: Path):
    study = ge_head[0].StudyInstanceUID
    assert node.send(data("ct_ge_hispeed_tilt")).returncode == 0
    node.ends(study, "DONE")

    series = orthanc.series(study)
    captures = {name: ids for name, ids in series.items() if len(ids) == 28}
    parametric = {name: ids for name, ids in series.items() if len(ids) == 1}
    assert len(series) == 10
    for found in (captures, parametric):
        assert sorted(name.split()[1] for name in found) == sorted(KINDS)
        assert all(name.startswith("SYNTHETIC") and "sim-trained" in name for name in found)

    source = {_place(ds): ds for ds in ge_head}
    for name, ids in captures.items():
        paths = orthanc.files(ids, tmp_path / name.split()[1])
        assert all(unexpected("sc", path) == allowed("deidentified") for path in paths)
        files = [dcmread(path) for path in paths]
        assert {_place(ds) for ds in files} == set(source)
        for ds in files:
            _same_plane(ds.ImagePositionPatient, ds.ImageOrientationPatient, source[_place(ds)])
    for name, ids in parametric.items():
        (path,) = orthanc.files(ids, tmp_path / f"pm-{name.split()[1]}")
        assert unexpected("pm", path) == allowed("deidentified")
        ds = dcmread(path)
        orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
        positions = [f.PlanePositionSequence[0].ImagePositionPatient for f in ds.PerFrameFunctionalGroupsSequence]
        assert len(positions) == 28
        for position in positions:
            _same_plane(position, orientation, source[round(float(position[2]), 1)])


def _place(ds: Dataset) -> float:
    return round(float(ds.ImagePositionPatient[2]), 1)


def _same_plane(position, orientation, source: Dataset) -> None:
    assert np.abs(np.array(position, float) - np.array(source.ImagePositionPatient, float)).max() <= 1e-4
    assert np.abs(np.array(orientation, float) - np.array(source.ImageOrientationPatient, float)).max() <= 1e-4


def test_the_history_tells_the_time_from_the_last_slice_to_the_last_map(node: Node, ge_head):
    said = dicomnode("explain", ge_head[0].StudyInstanceUID, cwd=node.folder).stdout
    print(said)
    found = re.search(r"From the last slice to the last confirmation: ([0-9.]+) s", said)
    assert found
    assert float(found[1]) > 2.0  # the quiet time is in it
    for word in ("RECEIVING", "SELECTED", "complete by geometry", "PROCESSING", "SENDING", "DONE", "0x0000: stored"):
        assert word in said


def test_the_same_series_again_is_the_same_job(node: Node, orthanc: Orthanc, ge_head):
    before = orthanc.series(ge_head[0].StudyInstanceUID)
    assert node.send(data("ct_ge_hispeed_tilt")).returncode == 0
    node.ends(ge_head[0].StudyInstanceUID, "DONE")
    story = node.story(ge_head[0].StudyInstanceUID)
    assert story is not None
    assert len(story.jobs) == 1
    assert orthanc.series(ge_head[0].StudyInstanceUID) == before


def test_the_plastic_phantom_is_refused_and_explain_says_why(node: Node, orthanc: Orthanc, plastic, tmp_path: Path):
    study = plastic[0].StudyInstanceUID
    assert node.send(save(plastic, tmp_path / "plastic")).returncode == 0
    node.ends(study, "REJECTED")
    said = dicomnode("explain", study, cwd=node.folder).stdout
    assert "REJECTED: phantom: " in said
    assert "this is a phantom" in said
    assert "What to do (phantom)" in said
    assert orthanc.series(study) == {}


def test_the_plastic_phantom_is_known_by_its_image_alone(node: Node, plastic, tmp_path: Path):
    disguised = renamed(plastic, "77")
    blank_text(disguised)
    for ds in disguised:
        ds.PatientID = "DISGUISED"
        ds.RescaleIntercept = float(ds.RescaleIntercept) + 5
    assert node.send(save(disguised, tmp_path / "disguised")).returncode == 0
    node.ends(disguised[0].StudyInstanceUID, "REJECTED")
    story = node.story(disguised[0].StudyInstanceUID)
    assert story is not None
    assert story.jobs[0].reason_code == "phantom"


def test_a_head_is_followed_in_the_browser_while_it_runs_and_sent_at_another_ratio(
    node: Node, orthanc: Orthanc, ge_head, tmp_path: Path
):
    """As a physician does it. The head is real and named as phantoms are, and is none."""
    named = {"PatientName": "PLASTIC", "PatientID": "PLASTIC", "StudyDescription": "PHANTOM"}
    head = renamed(ge_head, "78", AccessionNumber="WALK78", **named)
    study, last = head[0].StudyInstanceUID, head.pop(len(head) // 2)
    anybody = Role.ADMINISTRATOR  # whom `doctor` wants to be there
    bookkeeping.add_account(node.books, NAMES[anybody], anybody, HASH, datetime.now(UTC), "test")
    with chromium() as browser, logged_in(browser, node.address, anybody) as person, watched(person) as page:
        page.goto("/")
        assert node.send(save(head, tmp_path / "all_but_one")).returncode == 0
        find(page, "WALK78")
        story, finished = page.locator(".story"), page.get_by_role("link", name="See the maps of revision 1")
        expect(story).to_contain_text("RECEIVING")
        assert not same_document(page)
        assert "PROCESSING" not in (story.text_content() or "")  # the slice that lacks keeps it waiting
        assert finished.count() == 0
        assert node.send(save([last], tmp_path / "the_last")).returncode == 0
        for state in ("QUEUED -> PROCESSING", "PROCESSING -> SENDING", "SENDING -> DONE"):
            expect(story).to_contain_text(state)
        expect(finished).to_be_visible()
        assert same_document(page)
        before = orthanc.series(study)
        assert len(before) == 10

        finished.click()
        page.wait_for_selector("#pilo[data-ready=yes]")
        page.get_by_label("Perfusion information ratio").focus()
        for _ in range(25):
            page.keyboard.press("ArrowRight")
        page.wait_for_selector("#pilo[data-percent='75']")
        page.get_by_role("button", name="Send to PACS").click()
        expect(page.locator("#status")).to_contain_text("Captures at ratio 0.75, without unit, go to orthanc")
        page.get_by_role("link", name="The timeline of the study").click()
        expect(story).to_contain_text("captures at ratio 0.75 ASKED FOR: for orthanc (by administrator)")
        expect(story).to_contain_text("captures at ratio 0.75 WRITTEN: 140 files written")
        wait_for(lambda: sum(map(len, orthanc.series(study).values())) == 145 + 140, "the captures at Orthanc")

    new = {name: ids for name, ids in orthanc.series(study).items() if name not in before}
    assert sorted(name.split()[1] for name in new) == sorted(KINDS)
    for name, ids in new.items():
        assert name.startswith("SYNTHETIC ") and "ratio 0.75 no unit" in name and "sim-trained" in name
        assert len(ids) == 28
        modality = json.loads(orthanc.get(f"/instances/{ids[0]}/series"))["MainDicomTags"]["Modality"]
        classes = {orthanc.get(f"/instances/{id}/metadata/SopClassUid").decode() for id in ids}
        assert (modality, classes) == ("OT", {SecondaryCaptureImageStorage})  # and no quantitative object
    print(dicomnode("explain", study, cwd=node.folder).stdout)  # a worker that is warm


@pytest.mark.parametrize(
    ("suffix", "slices", "elements", "code"),
    [
        ("81", 6, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ("82", 28, {"Modality": "PT"}, "wrong-modality"),
        ("83", 28, {"ContrastBolusAgent": "Iomeprol"}, "contrast"),
    ],
)
def test_what_is_not_for_us_is_refused_in_words(node: Node, ge_head, tmp_path: Path, suffix, slices, elements, code):
    others = renamed(ge_head[:slices], suffix, **elements)
    assert node.send(save(others, tmp_path / code)).returncode == 0
    node.ends(others[0].StudyInstanceUID, "REFUSED")
    assert f"REFUSED: {code}: " in dicomnode("explain", others[0].StudyInstanceUID, cwd=node.folder).stdout


def test_an_unlisted_sender_is_rejected_and_status_says_what_to_do(node: Node):
    sent = node.send(data("ct_ge_hispeed_tilt"), calling="STRANGER")
    assert sent.returncode != 0
    assert "Calling AE Title Not Recognized" in sent.stderr + sent.stdout
    status = dicomnode("status", cwd=node.folder).stdout
    assert "unlisted-source: STRANGER at 127.0.0.1 is not a [[source]] in node.toml; add it there" in status


def test_doctor_finds_a_running_node_fit(node: Node):
    said = dicomnode("doctor", cwd=node.folder, check=False)
    assert said.returncode == 0, said.stdout
    assert "answers C-ECHO" in said.stdout
    assert "held by our listener" in said.stdout
