"""The demo: a scanner, this node and a small receiving PACS on the loopback, over real associations."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Verification

from dicomnode import bookkeeping, config, explain, settings_file
from dicomnode.contact_sheet import contact_sheet
from dicomnode.jobs import State

PATIENCE = 300.0  # seconds for the whole walk, which takes 20 on an idle machine
ENDED = (State.DONE, State.FAILED, State.REJECTED)
Say = Callable[[str], None]


class DemoFailed(Exception):
    """The walk did not reach the PACS; the message says where it ended."""


@dataclass(frozen=True, slots=True)
class Pacs:
    """A receiving PACS that keeps every instance as a file, named by series and instance number."""

    folder: Path
    port: int

    def on_c_store(self, event: evt.Event) -> int:
        """Keep one instance."""
        ds = event.dataset
        name = f"{int(ds.get('SeriesNumber') or 0):04d}-{int(ds.get('InstanceNumber') or 0):04d}.dcm"
        (self.folder / name).write_bytes(event.encoded_dataset())
        return 0x0000

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen while the block runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE("DEMOPACS")
        ae.supported_contexts = [*AllStoragePresentationContexts, build_context(Verification)]
        server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.on_c_store)]
        )
        try:
            yield
        finally:
            server.shutdown()


def run(files: Sequence[Path], out: Path, say: Say) -> None:
    """Send the files through a node; leaves out/pacs/*.dcm and out/contact-sheet.png. Raises DemoFailed."""
    slices = read(files)
    pacs = Pacs(out / "pacs", free_port())
    with tempfile.TemporaryDirectory(prefix="dicomnode-demo-") as folder, pacs.running():
        settings_path = _settings(Path(folder), pacs.port)
        settings = config.load(settings_path)
        bookkeeping.migrate(settings.books_url)
        with _node(settings_path, out / "node.log"):
            _wait_for_listener(settings)
            say(f"The node listens on port {settings.listen.port}, the PACS on port {pacs.port}.")
            send(slices, settings)
            say(f"Sent {len(slices)} instances as DEMOSCANNER. Waiting for the maps.")
            story = _wait_for_end(settings, slices[0].StudyInstanceUID)
        for line in explain.tell(bookkeeping.open_books(settings.books_url), slices[0].StudyInstanceUID):
            say(line)
        if story is not State.DONE:
            raise DemoFailed(f"the job ended {story}; the log is {out / 'node.log'}")
    received = [dcmread(path) for path in sorted(pacs.folder.glob("*.dcm"))]
    contact_sheet(slices, received).save(out / "contact-sheet.png")
    for line in holdings(received):
        say(line)
    say(f"Open {out / 'contact-sheet.png'}, or the DICOM files in {pacs.folder}.")


def read(files: Sequence[Path]) -> list[Dataset]:
    """The DICOM files among these; others are passed over. Raises DemoFailed where there is none."""
    found: list[Dataset] = []
    for path in files:
        try:
            found.append(dcmread(path))
        except (InvalidDicomError, IsADirectoryError):
            continue
    if not found:
        raise DemoFailed("there is no DICOM file to send; name a folder that holds a head CT with --input")
    return found


def send(slices: Sequence[Dataset], settings: config.Settings) -> None:
    """As the scanner: one association, one C-STORE for each instance."""
    ae = AE("DEMOSCANNER")
    for pair in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in slices}:
        ae.add_requested_context(*pair)
    assoc = ae.associate("127.0.0.1", settings.listen.port, ae_title=settings.node.ae_title)
    if not assoc.is_established:
        raise DemoFailed("the node did not accept the association")
    for ds in slices:
        status = assoc.send_c_store(ds)
        if status.get("Status") != 0x0000:
            raise DemoFailed(f"the node refused instance {ds.SOPInstanceUID}: {status}")
    assoc.release()


def holdings(received: Sequence[Dataset]) -> Iterator[str]:
    """What the PACS holds: one line for each series."""
    yield "The receiving PACS now holds:"
    series = Counter((int(ds.SeriesNumber), ds.Modality, ds.SOPClassUID.name, ds.SeriesDescription) for ds in received)
    for (number, modality, sop_class, description), count in sorted(series.items()):
        yield f"  {number} {modality} {count:4d} x {sop_class}: {description}"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settings(folder: Path, pacs_port: int) -> Path:
    text = settings_file.render(
        [settings_file.peer("DEMOSCANNER@127.0.0.1")],
        [settings_file.peer(f"DEMOPACS@127.0.0.1:{pacs_port}")],
        port=free_port(),
        simulated=True,
    )
    path = folder / "node.toml"
    path.write_text(text.replace('host = "0.0.0.0"', 'host = "127.0.0.1"'), encoding="utf-8")
    return path


@contextmanager
def _node(settings_path: Path, log: Path) -> Iterator[None]:
    environment = {**os.environ, config.ENVIRONMENT: str(settings_path)}
    with log.open("wb") as file:
        node = subprocess.Popen([sys.executable, "-m", "dicomnode", "up"], env=environment, stdout=file, stderr=file)
        try:
            yield
        finally:
            node.terminate()
            node.wait()


def _wait_for_listener(settings: config.Settings) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", settings.listen.port)) == 0:
                return
        time.sleep(0.1)
    raise DemoFailed(f"the node did not listen within {PATIENCE:.0f} s")


def _wait_for_end(settings: config.Settings, study_instance_uid: str) -> State:
    books = bookkeeping.open_books(settings.books_url)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if bookkeeping.find_studies(books, study_instance_uid):
            story = bookkeeping.story(books, study_instance_uid)
            refused = [s.reason for s in story.series if s.state == "REFUSED"]
            if refused:
                raise DemoFailed(f"the series was refused: {refused[0]}")
            if story.jobs and story.jobs[-1].state in ENDED:
                return story.jobs[-1].state
        time.sleep(0.1)
    raise DemoFailed(f"no maps within {PATIENCE:.0f} s")
