"""Every kind of object to two Orthancs, by C-STORE and by STOW-RS; then again, and then with a slice that came late.

What comes back is read with dicomweb-client and compared with the files in the spool, byte for byte.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage, ParametricMapStorage, SegmentationStorage

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Result
from dicomnode.demo import free_port
from tests.tools import data, missing
from tests.walks.node import Node, Orthanc, dicomnode, wait_for

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
OBJECTS = ["sc", "pm", "ct", "seg", "mosaic", "pdf", "sr"]
HEAD = "ct_ge_hispeed_tilt"
SLICES, MAPS = 28, 5


@dataclass(frozen=True)
class Walk:
    """A node that sends everything to each of its archives."""

    node: Node
    archives: tuple[Orthanc, ...]
    study: str

    def results(self) -> list[Result]:
        """What the newest job has written to be sent; the report in the older class only waits to be asked for."""
        story = self.node.story(self.study)
        assert story is not None
        written = bookkeeping.results(self.node.books, story.jobs[-1].id)
        return [result for result in written if result.kind != "sr-comprehensive"]

    def written(self, result: Result) -> Path:
        return self.node.settings.node.data_dir / result.path

    def done(self, revision: int) -> None:
        """Wait for the job of this revision."""

        def jobs() -> Sequence[bookkeeping.Job]:
            story = self.node.story(self.study)
            return story.jobs if story else []

        wait_for(lambda: any(job.revision == revision for job in jobs()), f"revision {revision}")
        self.node.ends(self.study, "DONE")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    if not PLUGIN.exists():
        missing("the DICOMweb plug-in of Orthanc is not installed")
    folder, first = tmp_path_factory.mktemp("walk"), sorted(data(HEAD).glob("*.dcm"))[0]
    with ExitStack() as stack:
        archives = tuple(
            stack.enter_context(
                Orthanc(folder / name, free_port(), free_port(), plugins=(str(PLUGIN),), overwrites=True).running()
            )
            for name in ("dimse", "web")
        )
        Node.init(folder / "node", "--source", "STORESCU@127.0.0.1")
        path = folder / "node" / "node.toml"
        dimse, web = archives
        addresses = (
            f'ae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {dimse.dicom_port}',
            f'stow_url = "http://127.0.0.1:{web.http_port}/dicom-web"',
        )
        rest = f"objects = {json.dumps(OBJECTS)}\nrejection_note = true\n"
        tables = [
            f'\n[[destination]]\nname = "{archive.folder.name}"\n{address}\n{rest}'
            for archive, address in zip(archives, addresses, strict=True)
        ]
        path.write_text(re.sub(r"(?ms)^\[\[destination\]\].*?(?=^\[)", "", path.read_text()) + "".join(tables))
        node = Node.at(path.parent)
        with node.up():
            yield Walk(node, archives, str(dcmread(first).StudyInstanceUID))


def retrieved(archive: Orthanc, study: str) -> dict[str, Dataset]:
    """All of the study that the archive gives out over WADO-RS, by SOP Instance UID."""
    client = DICOMwebClient(f"http://127.0.0.1:{archive.http_port}/dicom-web")
    return {str(ds.SOPInstanceUID): ds for ds in client.retrieve_study(study)}


def uploads(archive: Orthanc) -> dict[str, tuple[str, str]]:
    """SOP Instance UID -> Orthanc's id of the instance, and of the file in which it keeps the last upload."""
    held = json.loads(archive.get("/instances?expand"))
    return {each["MainDicomTags"]["SOPInstanceUID"]: (each["ID"], each["FileUuid"]) for each in held}


def stored(archive: Orthanc) -> dict[str, bytes]:
    """SOP Instance UID -> the data set as it was uploaded."""
    return {uid: data_set(archive.get(f"/instances/{name}/file")) for uid, (name, _) in uploads(archive).items()}


def data_set(file: bytes) -> bytes:
    """What follows the file meta information."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def of_class(instances: dict[str, Dataset], uid: str) -> list[Dataset]:
    return [ds for ds in instances.values() if ds.SOPClassUID == uid]


@pytest.mark.slow  # two minutes; tests/dicomnode/writer and tests/viewers look at each object
def test_every_object_comes_back_from_both_archives_as_it_was_written(walk: Walk, tmp_path: Path):
    paths = sorted(data(HEAD).glob("*.dcm"))
    for path in paths[:-1]:
        (tmp_path / path.name).symlink_to(path)
    assert walk.node.send(tmp_path).returncode == 0
    walk.done(1)
    results = walk.results()
    slices = SLICES - 1
    counts = Counter(result.kind for result in results)
    assert counts["sc"] == counts["ct"] == slices * MAPS
    assert counts["pm"] == MAPS
    assert all(counts[kind] for kind in OBJECTS)
    for archive in walk.archives:
        back, kept = retrieved(archive, walk.study), stored(archive)
        assert set(back) == set(kept) == {result.sop_instance_uid for result in results}
        for result in results:
            file = walk.written(result).read_bytes()
            assert kept[result.sop_instance_uid] == data_set(file)
            read, ours = back[result.sop_instance_uid], dcmread(walk.written(result))
            assert read == ours
        assert len(of_class(back, ParametricMapStorage)) == MAPS
        assert of_class(back, SegmentationStorage)


@pytest.mark.slow  # as above; tests/dicomnode/test_resend.py resends
def test_resend_brings_the_same_bytes(walk: Walk):
    before = [(uploads(archive), stored(archive)) for archive in walk.archives]
    said = dicomnode("resend", walk.study, cwd=walk.node.folder).stdout
    assert said.count("again") == len(walk.archives)

    def uploaded_anew(archive: Orthanc, earlier: dict[str, tuple[str, str]]) -> Callable[[], bool]:
        return lambda: all(file != earlier[uid][1] for uid, (_, file) in uploads(archive).items())

    for archive, (earlier, content) in zip(walk.archives, before, strict=True):
        wait_for(uploaded_anew(archive, earlier), "everything a second time")
        assert stored(archive) == content
    walk.node.ends(walk.study, "DONE")


@pytest.mark.slow
def test_a_late_slice_makes_a_revision_that_takes_the_first_one_back(walk: Walk, tmp_path: Path):
    earlier = {result.sop_instance_uid for result in walk.results()}
    path = sorted(data(HEAD).glob("*.dcm"))[-1]
    (tmp_path / path.name).symlink_to(path)
    assert walk.node.send(tmp_path).returncode == 0
    walk.done(2)
    newer = {result.sop_instance_uid: result for result in walk.results()}
    assert Counter(result.kind for result in newer.values())["sc"] == SLICES * MAPS
    assert not earlier & set(newer)
    for archive in walk.archives:
        back = retrieved(archive, walk.study)
        assert set(back) == earlier | set(newer)
        (note,) = of_class(back, KeyObjectSelectionDocumentStorage)
        named = {
            str(item.ReferencedSOPInstanceUID)
            for series in note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert named == earlier
        for ds in (back[uid] for uid, result in newer.items() if result.kind == "ct"):
            assert "Revision 2, replaces revision 1." in ds.DerivationDescription
