"""A running node as an administrator runs it, and a running Orthanc, for walks from scanner to PACS."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from dicomnode import bookkeeping, config
from dicomnode.bookkeeping import Books, StudyStory
from dicomnode.config import Settings
from dicomnode.demo import free_port
from dicomnode.jobs import State
from tests.tools import program
from tests.walks.discretion import assert_nobody_is_named

PATIENCE = 120.0
ENDED = {State.DONE, State.REJECTED, State.FAILED}


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {patience:.0f} s")
        time.sleep(0.02)


def dicomnode(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command, as typed into a terminal."""
    command = [sys.executable, "-m", "dicomnode", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != config.ENVIRONMENT}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=check)


@dataclass(frozen=True)
class Node:
    """A node whose node.toml lies in `folder`."""

    folder: Path
    settings: Settings
    books: Books

    @classmethod
    def init(cls, folder: Path, *arguments: str, **urls: str) -> "Node":
        """`dicomnode init`, and a free port in place of the usual one.

        urls: of `books` and `broker`; without them the node has its embedded ones.
        """
        folder.mkdir(parents=True, exist_ok=True)
        dicomnode("init", *arguments, cwd=folder)
        path = folder / "node.toml"
        text = path.read_text().replace("port = 11112", f"port = {free_port()}").replace('"0.0.0.0"', '"127.0.0.1"')
        for section, url in urls.items():
            text, changed = re.subn(rf'(?ms)(^\[{section}\].*?^url = )""', rf'\1"{url}"', text)
            assert changed == 1, f"node.toml has no [{section}] url"
        path.write_text(text)
        dicomnode("migrate", cwd=folder)
        return cls.at(folder)

    @classmethod
    def at(cls, folder: Path) -> "Node":
        """The node whose node.toml lies there, with the settings it has now."""
        settings = config.load(folder / "node.toml")
        return cls(folder, settings, bookkeeping.open_books(settings.books_url))

    def with_web(self, *, enabled: bool = True) -> "Node":
        """The same node whose web service has a free port; enabled: `up` runs it too."""
        path = self.folder / "node.toml"
        text = path.read_text().replace("port = 8080", f"port = {free_port()}")
        path.write_text(re.sub("enabled = false", f"enabled = {str(enabled).lower()}", text))
        bookkeeping.close(self.books)
        return Node.at(self.folder)

    @property
    def address(self) -> str:
        """Of its web service."""
        return f"http://127.0.0.1:{self.settings.web.port}"

    def serves(self) -> bool:
        """True once the web service answers."""
        try:
            with urlopen(f"{self.address}/health/ready", timeout=10):
                return True
        except OSError:
            return False

    @contextmanager
    def up(self) -> Iterator[subprocess.Popen[bytes]]:
        """`dicomnode up` until the block ends, ready to receive."""
        with (self.folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "dicomnode", "up"]
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(self.listens, "the listener")
            if self.settings.web.enabled:
                wait_for(self.serves, "the web service")
            yield process
            assert_nobody_is_named(self.folder / "node.log", self.books)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            self.books.kw["bind"].dispose()

    def listens(self) -> bool:
        ports = ["127.0.0.1", str(self.settings.listen.port)]
        command = [program("echoscu"), "-aet", "STORESCU", "-aec", "DICOMNODE", *ports]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def send(self, folder: Path, *options: str, calling: str = "STORESCU") -> subprocess.CompletedProcess[str]:
        """DCMTK storescu, as a scanner would; the option -xt offers JPEG-LS."""
        where = ["127.0.0.1", str(self.settings.listen.port), str(folder)]
        command = [program("storescu"), *("-aet", calling, "-aec", "DICOMNODE", "+sd", "+r"), *options, *where]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def story(self, study_instance_uid: str) -> StudyStory | None:
        known = bookkeeping.find_studies(self.books, study_instance_uid)
        return bookkeeping.story(self.books, study_instance_uid) if known else None

    def state(self, study_instance_uid: str) -> str:
        """The state of the newest job, else of the newest series, else nothing."""
        story = self.story(study_instance_uid)
        if story is None:
            return ""
        return str(story.jobs[-1].state if story.jobs else story.series[-1].state)

    def ends(self, study_instance_uid: str, *states: str) -> None:
        """Wait until the study has ended, in one of these states."""
        ended = {str(state) for state in ENDED} | {"REFUSED"}
        wait_for(lambda: self.state(study_instance_uid) in ended, "the end of the study")
        story = self.story(study_instance_uid)
        assert self.state(study_instance_uid) in states, story and [j.reason for j in story.jobs]

    def processes(self, role: str) -> list[int]:
        """Process ids of the running services whose command line holds these words, children included."""
        found = subprocess.run(
            [program("pgrep"), "-f", f"dicomnode {role}"], capture_output=True, text=True, check=False
        )
        ours = [int(pid) for pid in found.stdout.split()]
        return [pid for pid in ours if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"{config.ENVIRONMENT}={self.folder / 'node.toml'}".encode() in environment


@dataclass(frozen=True)
class Orthanc:
    """A real PACS that knows nothing of how we write."""

    folder: Path
    dicom_port: int
    http_port: int
    node_port: int = 1
    plugins: tuple[str, ...] = ()
    overwrites: bool = False
    more: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator["Orthanc"]:
        """Orthanc takes instances from this machine only: it cannot be told to listen on the loopback alone."""
        self.folder.mkdir(parents=True)
        settings = {
            "Name": "PACS",
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"node": ["DICOMNODE", "127.0.0.1", self.node_port]},
            "DefaultEncoding": "Utf8",
            "OverwriteInstances": self.overwrites,
            "Plugins": list(self.plugins),
            **self.more,
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(settings))
        with (self.folder / "orthanc.log").open("wb") as log:
            environment = {**os.environ, "TCP_NODELAY": "1"}
            process = subprocess.Popen([program("Orthanc"), str(path)], stdout=log, stderr=log, env=environment)
        try:
            wait_for(self._answers, "Orthanc", 30)
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}") as response:
            return bytes(response.read())

    def series(self, study_instance_uid: str) -> dict[str, list[str]]:
        """Series Description -> Orthanc ids of the instances of one study."""
        expanded = json.loads(self.get("/series?expand"))
        mine = {s["ID"] for s in json.loads(self.get("/studies?expand")) if _uid(s) == study_instance_uid}
        return {s["MainDicomTags"]["SeriesDescription"]: s["Instances"] for s in expanded if s["ParentStudy"] in mine}

    def files(self, instances: Sequence[str], folder: Path) -> list[Path]:
        """The instances as files, as the PACS gives them out."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for instance in instances:
            path = folder / f"{instance}.dcm"
            path.write_bytes(self.get(f"/instances/{instance}/file"))
            paths.append(path)
        return paths

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except OSError:
            return False


def _uid(study: dict[str, dict[str, str]]) -> str:
    return study["MainDicomTags"]["StudyInstanceUID"]
