"""A PACS, a web server and a browser on a loopback of their own, and a study to look at."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, sync_playwright
from pydicom import dcmread

from dicomnode import sender
from dicomnode.config import Destination
from dicomnode.demo import free_port
from tests.tools import missing, program
from tests.viewers import objects
from tests.viewers.network import loopback_only
from tests.viewers.objects import Shown
from tests.viewers.site import serving
from tests.walks.node import Orthanc

OHIF = Path(__file__).parents[2] / "build" / "ohif-3.13.2"
PLUGINS = [Path("/usr/share/orthanc/plugins") / f"libOrthanc{name}.so" for name in ("DicomWeb", "WebViewer")]
CHROMIUM = ["--no-sandbox", "--disable-dev-shm-usage", "--ignore-gpu-blocklist"]
PATIENCE = 180_000  # milliseconds, for a machine with busy neighbours
SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The study, made once even where several processes test."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "viewers"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            objects.make(folder)
            (folder / "made").touch()
    return objects.read(folder)


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """Without the rest of the network, where the kernel lets us."""
    with loopback_only():
        yield


@pytest.fixture(scope="module")
def orthanc(alone: None, shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A PACS that holds the study, sent there as the node sends."""
    for plugin in PLUGINS:
        if not plugin.exists():
            missing(f"no {plugin}; scripts/debian-packages.sh installs it")
    folder = tmp_path_factory.mktemp("pacs") / "orthanc"
    made = Orthanc(folder, free_port(), free_port(), plugins=tuple(str(plugin) for plugin in PLUGINS))
    with made.running() as running:
        to = Destination(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=running.dicom_port)
        files = [sender.File(path, dcmread(path, stop_before_pixels=True).SOPClassUID) for path in shown.files]
        assert [str(status) for status in sender.send(files, to, "DICOMNODE")] == ["0"] * len(files)
        yield running


@pytest.fixture(scope="module")
def site(alone: None, orthanc: Orthanc) -> Iterator[str]:
    """The address of OHIF."""
    if not (OHIF / "index.html").exists():
        missing(f"no OHIF in {OHIF}; scripts/ohif.sh fetches it")
    with serving(OHIF, orthanc.http_port) as address:
        yield address


@pytest.fixture(scope="module")
def browser(alone: None) -> Iterator[BrowserContext]:
    """A browser whose pages share what they have fetched, and nothing else."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM + SOFTWARE_GL)
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE)
        yield context
        chromium.close()
