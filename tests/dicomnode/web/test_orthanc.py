"""Orthanc's DICOMweb plug-in as our client: it stores here, searches here, and retrieves from here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from pydicom import Dataset

from dicomnode import bookkeeping
from dicomnode.demo import free_port
from dicomnode.roles import Role
from tests.dicomnode.arrivals import only_series, part10
from tests.dicomnode.web.place import Place, serving
from tests.tools import missing
from tests.walks.node import Orthanc

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextmanager
def orthanc(folder: Path, place: Place) -> Iterator[Orthanc]:
    """Orthanc, which knows us as "in" with a sender's token and as "out" with a viewer's."""
    if not PLUGIN.exists():
        missing(f"no {PLUGIN}; scripts/debian-packages.sh installs it")
    servers = {
        name: {"Url": place.dicomweb, "HttpHeaders": {"Authorization": f"Bearer {place.tokens[role]}"}}
        for name, role in (("in", Role.SENDER), ("out", Role.VIEWER))
    }
    more = {"DicomWeb": {"Enable": True, "Servers": servers}}
    made = Orthanc(folder, free_port(), free_port(), plugins=(str(PLUGIN),), more=more)
    with made.running() as running:
        yield running


def post(pacs: Orthanc, path: str, content: bytes | dict) -> dict | list:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    with urlopen(Request(f"http://127.0.0.1:{pacs.http_port}{path}", body), timeout=120) as response:
        return json.loads(response.read() or b"null")


def test_orthanc_stores_here(tmp_path: Path, slices: list[Dataset]):
    with serving(tmp_path / "node") as place, orthanc(tmp_path / "orthanc", place) as pacs:
        study = {post(pacs, "/instances", part10(ds))["ParentStudy"] for ds in slices}
        post(pacs, "/dicom-web/servers/in/stow", {"Resources": list(study), "Synchronous": True})
        series = only_series(place.books)
        assert {i.sop_instance_uid for i in series.instances} == {ds.SOPInstanceUID for ds in slices}


def test_orthanc_searches_and_retrieves_here(place: Place, tmp_path: Path, slices: list[Dataset]):
    study = str(slices[0].StudyInstanceUID)
    with orthanc(tmp_path / "orthanc", place) as pacs:
        found = post(pacs, "/dicom-web/servers/out/qido", {"Uri": "/studies", "Arguments": {"PatientID": "P1"}})
        assert study in json.dumps(found)
        resources = {"Resources": [{"Study": study}], "Synchronous": True}
        post(pacs, "/dicom-web/servers/out/retrieve", resources)
        held = {instance for ids in pacs.series(study).values() for instance in ids}
        uids = {json.loads(pacs.get(f"/instances/{i}"))["MainDicomTags"]["SOPInstanceUID"] for i in held}
        assert uids == {each.sop_instance_uid for each in bookkeeping.find_held(place.books, study)}
