"""A running listener over each data path, and who associates with it."""

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset

from dicomnode import bookkeeping, config
from dicomnode.demo import free_port
from dicomnode.intake import Intake
from dicomnode.scp import Listener
from dicomnode.spool import Spool
from tests import phantom
from tests.tools import program

Start = Callable[..., Listener]


@pytest.fixture(scope="session")
def empty_books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "books.db"
    bookkeeping.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def start(tmp_path: Path, spool: Spool, empty_books: Path) -> Iterator[Start]:
    """Start a listener; the arguments are keys of [listen], and `tls`."""
    shutil.copy(empty_books, tmp_path)
    books = bookkeeping.open_books(f"sqlite:///{tmp_path}/books.db")
    started: list[Listener] = []

    def begin(tls=None, **listen) -> Listener:
        raw = {
            "listen": {"host": "127.0.0.1", "port": free_port(), "keep_free_gib": 0.0, **listen},
            "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"], "lane": "stroke"}],
        }
        listener = Listener(config.parse(raw, folder=tmp_path), Intake(books, spool), tls=tls)
        listener.start()
        started.append(listener)
        return listener

    yield begin
    for listener in started:
        listener.shutdown()
    books.kw["bind"].dispose()


@pytest.fixture(params=["direct", "stock"])
def listener(start: Start, request: pytest.FixtureRequest) -> Listener:
    """Both data paths must pass the same tests."""
    return start(data_path=request.param)


@pytest.fixture
def direct(start: Start) -> Listener:
    return start(data_path="direct")


@pytest.fixture(scope="session")
def head() -> list[Dataset]:
    return phantom.head(phantom.even(12), matrix=32)


def limited(listener: Listener, **listen) -> None:
    """Change [listen] under a listener that runs; associations to come are held to it."""
    changed = replace(listener.settings, listen=replace(listener.settings.listen, **listen))
    object.__setattr__(listener, "settings", changed)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's side, over a certificate of their own."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
