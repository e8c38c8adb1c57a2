"""The receivers that are compared, each started as its own users start it, with TCP_NODELAY=1 for all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.request import Request, urlopen

from dicomnode import header
from dicomnode.demo import free_port
from dicomnode.up import end_with_parent
from tests.tools import program
from tests.walks.node import Node, dicomnode, wait_for

CALLING = "DCMSEND"  # DCMTK's own name for itself


@dataclass(frozen=True)
class Receiver:
    """A running receiver.

    held: how many instances it holds now. digests: sha256 of the data sets it holds, where its files can be read.
    forget: counts from here. Nothing is deleted: ext4 looks long for an inode among those just deleted, and that would
    be measured with the next round. http_port: of its web service, where it has one; token: which that asks for.
    """

    name: str
    pid: int
    ae_title: str
    port: int
    held: Callable[[], int]
    digests: Callable[[], set[str]] | None
    forget: Callable[[], None]
    http_port: int = 0
    token: str = ""


@contextmanager
def node(folder: Path, module: str = "dicomnode", name: str = "node") -> Iterator[Receiver]:
    """Our listener with its SQLite books, as `dicomnode listen` runs it."""
    made = Node.init(folder, "--source", f"{CALLING}@127.0.0.1", "--source", "STORESCU@127.0.0.1")
    command, into = [sys.executable, "-m", module, "listen"], made.settings.node.data_dir / "in"
    with _started(command, folder, {"DICOMNODE_CONFIG": str(folder / "node.toml")}) as process:
        wait_for(made.listens, "the listener")
        port, ae_title = made.settings.listen.port, made.settings.node.ae_title
        files = _files(into)
        yield Receiver(name, process.pid, ae_title, port, lambda: len(files()), lambda: _digests(files()), _rid(files))
    made.books.kw["bind"].dispose()


@contextmanager
def plain(folder: Path) -> Iterator[Receiver]:
    """Our data path without fsync and without rows, which is what storescp does."""
    with node(folder, "tests.bench.plain", "node, no fsync, no books") as running:
        yield running


@contextmanager
def orthanc(folder: Path, plugins: Sequence[str] = ()) -> Iterator[Receiver]:
    """Orthanc with its defaults: SQLite, every file fsynced."""
    http, port = free_port(), free_port()
    folder.mkdir(parents=True)
    store = {"StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomAet": "ORTHANC", "Name": "BENCH"}
    ours = {"DicomPort": port, "HttpPort": http, "RemoteAccessAllowed": False, "Plugins": list(plugins)}
    (folder / "orthanc.json").write_text(json.dumps({**store, **ours, "DicomAlwaysAllowStore": True}))

    def ask(path: str, method: str = "GET") -> object:
        with urlopen(Request(f"http://127.0.0.1:{http}{path}", method=method), timeout=120) as response:
            return json.loads(response.read() or b"null")

    def answers() -> bool:
        try:
            return bool(ask("/system"))
        except OSError:
            return False

    forgotten = 0

    def held() -> int:
        return int(ask("/statistics")["CountInstances"]) - forgotten

    def forget() -> None:
        nonlocal forgotten
        forgotten += held()

    with _started([program("Orthanc"), str(folder / "orthanc.json")], folder) as process:
        wait_for(answers, "Orthanc")
        yield Receiver("Orthanc", process.pid, "ORTHANC", port, held, None, forget, http)


@contextmanager
def web(folder: Path) -> Iterator[Receiver]:
    """Our web service with its SQLite books, as `dicomnode web` runs it."""
    made, port = Node.init(folder, "--source", f"{CALLING}@127.0.0.1"), free_port()
    path = folder / "node.toml"
    path.write_text(path.read_text().replace("port = 8080", f"port = {port}"))
    dicomnode("account", "add", CALLING, "--role", "sender", "--token-only", cwd=folder)
    token = dicomnode("account", "token", CALLING, cwd=folder).stdout.strip()
    files = _files(made.settings.node.data_dir / "in")

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health/ready") as response:
                return bool(response.status == 200)
        except OSError:
            return False

    command = [sys.executable, "-m", "dicomnode", "web"]
    with _started(command, folder, {"DICOMNODE_CONFIG": str(path)}) as process:
        wait_for(answers, "the web service")
        held = lambda: len(files())  # noqa: E731
        yield Receiver("node", process.pid, "", 0, held, lambda: _digests(files()), _rid(files), port, token)
    made.books.kw["bind"].dispose()


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    """DCMTK storescp at its default PDU length of 16 KiB."""
    port, store = free_port(), folder / "store"
    store.mkdir(parents=True)
    command = [program("storescp"), "-q", "-aet", "STORESCP", "-od", str(store), str(port)]
    with _started(command, folder) as process:
        ports = ["-aec", "STORESCP", "127.0.0.1", str(port)]
        echo = lambda: subprocess.run([program("echoscu"), *ports], capture_output=True).returncode == 0  # noqa: E731
        wait_for(echo, "storescp")
        files = _files(store)
        yield Receiver("storescp", process.pid, "STORESCP", port, lambda: len(files()), None, _rid(files))


@contextmanager
def _started(command: Sequence[str], folder: Path, more: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "TCP_NODELAY": "1", **(more or {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=end_with_parent)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _files(folder: Path) -> Callable[[], list[Path]]:
    return lambda: [path for path in folder.iterdir() if path.is_file()]


def _rid(files: Callable[[], list[Path]]) -> Callable[[], None]:
    def forget() -> None:
        for path in files():
            gone = path.parent.with_name("gone")
            gone.mkdir(exist_ok=True)
            path.rename(gone / path.name)

    return forget


def _digests(paths: Sequence[Path]) -> set[str]:
    return {digest(path) for path in paths}


def digest(path: Path) -> str:
    """Of the data set of a file; the file meta information is the receiver's own."""
    content = path.read_bytes()
    return sha256(content[header.data_set_start(content) :]).hexdigest()
