"""The pages of a morning with virtual patients, on a running node; `make pictures` keeps pictures of them."""

from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicomnode import bookkeeping, data
from dicomnode.roles import Role
from tests.dicomnode.web.browser import PHONE, chromium, find, logged_in, watched
from tests.dicomnode.web.place import HASH, NAMES
from tests.documents import keep
from tests.pacs import Pacs
from tests.walks.node import Node, wait_for

pytestmark = pytest.mark.slow
DOES_NOT_MATCH = 0xA900  # PS3.4 Table B.2-1


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    with Pacs(ae_title="PACS", finds=True).running() as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[Node]:
    peers = ("--source", "STORESCU@127.0.0.1", "--destination", f"PACS@127.0.0.1:{pacs.port}")
    made = Node.init(tmp_path_factory.mktemp("morning"), *peers, "--demo").with_web()
    anybody = Role.ADMINISTRATOR
    bookkeeping.add_account(made.books, NAMES[anybody], anybody, HASH, datetime.now(UTC), "test")
    with made.up():
        yield made


def patient(n: int, **elements: object) -> list[Dataset]:
    """The virtual patient of the demo as another study."""
    slices = deepcopy([dcmread(path) for path in data.ncct()])
    study, series = generate_uid(), generate_uid()
    for ds in slices:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.PatientID, ds.PatientName, ds.AccessionNumber = f"VSIM-{n}", f"VSIM^{n}", f"VSIM-{n:04d}"
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return slices


def send(node: Node, folder: Path, slices: list[Dataset]) -> str:
    folder = folder / slices[0].AccessionNumber
    folder.mkdir()
    for n, ds in enumerate(slices):
        ds.save_as(folder / f"{n:03d}.dcm", enforce_file_format=True)
    assert node.send(folder, "-xt").returncode == 0
    return str(slices[0].StudyInstanceUID)


def test_a_morning(node: Node, pacs: Pacs, tmp_path: Path):
    for n in (1, 2, 3):
        node.ends(send(node, tmp_path, patient(n)), "DONE")
    node.ends(send(node, tmp_path, patient(4, ContrastBolusAgent="Iomeprol")), "REFUSED")
    node.ends(send(node, tmp_path, patient(5, Modality="PT")), "REFUSED")
    pacs.answer = lambda n: DOES_NOT_MATCH
    node.ends(send(node, tmp_path, patient(6)), "FAILED")
    pacs.answer = lambda n: 0x0000
    with (
        chromium() as browser,
        logged_in(browser, node.address, Role.ADMINISTRATOR) as person,
        watched(person) as page,
    ):
        page.goto("/")
        studies = [send(node, tmp_path, patient(n)) for n in (7, 8, 9)]
        wait_for(lambda: "PROCESSING" in map(node.state, studies), "a worker")
        expect(page.locator(".tiles")).to_contain_text("PROCESSING")
        expect(page.locator("[data-live=list] .PROCESSING").first).to_be_visible()
        keep(page, "web-studies")
        find(page, "VSIM-0003")
        expect(page.locator(".story")).to_contain_text("From the last slice to the last confirmation")
        keep(page, "web-study")
        find(page, "VSIM-0006")
        expect(page.get_by_role("button", name="Retry")).to_be_visible()
        keep(page, "web-failed")
        phone(page)
        for study in studies:
            node.ends(study, "DONE")


def phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.goto("/?show=all")
    expect(page.get_by_role("cell", name="VSIM-0006")).to_be_visible()
    keep(page, "web-phone")
