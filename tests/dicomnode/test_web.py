"""dicomnode.sender.web over real HTTP: a STOW-RS double that can misbehave, and a real Orthanc."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode import bookkeeping, config, confirmation, delivery, sender
from dicomnode.bookkeeping import ACTOR, Books
from dicomnode.config import ConfigError, Destination
from dicomnode.demo import free_port
from dicomnode.jobs import State
from dicomnode.sender import File, NotAdmitted, Stalled, Unreachable
from dicomnode.sender.part10 import meta
from dicomnode.spool import Spool
from tests.dicomnode.deliveries import finished_job, told
from tests.tools import missing
from tests.walks.node import Orthanc

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Archive:
    """What a STOW-RS peer was sent, and how it is to answer."""

    status: int = 200
    failed: dict[str, int] = field(default_factory=dict)
    silent_about: set[str] = field(default_factory=set)
    finds: bool = True
    hangs: bool = False
    parts: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Destination]:
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                archive.headers.append(dict(self.headers))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if archive.hangs:
                    time.sleep(1.0)
                    self.close_connection = True
                    return
                boundary = b"--" + self.headers["Content-Type"].rsplit("boundary=", 1)[1].encode()
                parts = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in body.split(boundary)[1:-1]]
                archive.parts += parts
                self._answer(archive.status, archive.response([_uid(part) for part in parts]))

            def do_GET(self) -> None:
                held = {_uid(part) for part in archive.parts} - set(archive.failed)
                found = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in held]
                status = 404 if not archive.finds else 200 if found else 204
                self._answer(status, json.dumps(found).encode() if status == 200 else b"")

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Destination("web", stow_url=f"http://127.0.0.1:{server.server_port}/dicom-web/")
        finally:
            server.shutdown()
            server.server_close()

    def response(self, uids: list[str]) -> bytes:
        def item(uid: str) -> dict:
            return {"00081155": {"vr": "UI", "Value": [uid]}}

        kept = [item(uid) for uid in uids if uid not in self.failed and uid not in self.silent_about]
        reasons = {uid: {"00081197": {"vr": "US", "Value": [reason]}} for uid, reason in self.failed.items()}
        lost = [item(uid) | reasons[uid] for uid in uids if uid in self.failed]
        return json.dumps({"00081199": {"vr": "SQ", "Value": kept}, "00081198": {"vr": "SQ", "Value": lost}}).encode()


def _uid(part: bytes) -> str:
    """(0008,0018) of a file, found by its bytes."""
    at = part.index(b"\x08\x00\x18\x00UI")
    length = int.from_bytes(part[at + 6 : at + 8], "little")
    return part[at + 8 : at + 8 + length].rstrip(b"\0").decode()


@pytest.fixture
def books_url(tmp_path: Path) -> str:
    """What is tested here does not depend on the shape of the books."""
    return f"sqlite:///{tmp_path}/books.db"


@pytest.fixture
def job_id(books: Books, spool: Spool, now) -> str:
    return finished_job(books, spool, now)


@pytest.fixture
def files(job_id, books: Books, spool: Spool) -> list[File]:
    return [File(spool.path(row.path), row.sop_class) for row in bookkeeping.results(books, job_id)]


def run(job_id: str, destination: Destination, settings, books: Books, spool: Spool) -> State:
    object.__setattr__(settings, "destination", (destination,))
    if not at_web(books):
        bookkeeping.resend(books, job_id, [("web", frozenset({"sc"}))], datetime.now(UTC))
    job = bookkeeping.claim_sending(books, job_id, ACTOR, datetime.now(UTC))
    assert job is not None
    delivery.run(job, settings, books, spool)
    bookkeeping.let_go(books, job_id, ACTOR)
    return bookkeeping.get_job(books, job_id).state


def at_web(books: Books) -> list[tuple[str, str | None, int]]:
    return [(state, status, n) for where, state, status, n in told(books) if where == "web"]


def test_files_arrive_byte_for_byte_in_one_request_and_are_confirmed_by_qido(
    job_id, files, settings, books: Books, spool: Spool, monkeypatch
):
    monkeypatch.setenv("DICOMNODE_AUTHORIZATION_WEB", "Bearer of-the-site")
    archive = Archive()
    with archive.running() as destination:
        assert run(job_id, destination, settings, books, spool) is State.DONE
    assert archive.parts == [file.path.read_bytes() for file in files]
    assert len(archive.headers) == 1
    assert archive.headers[0]["Authorization"] == "Bearer of-the-site"
    assert at_web(books) == [("CONFIRMED", "confirmed by QIDO-RS", 3)]


def test_each_instance_has_the_status_that_the_response_gives_it(files):
    uids = [meta(file.path).sop_instance_uid for file in files]
    with Archive(status=202, failed={uids[0]: 0xA900}, silent_about={uids[1]}).running() as destination:
        answers = list(sender.send(files, destination, "DICOMNODE"))
    assert answers == [0xA900, 0x0110, 0x0000]
    assert "does not name the instance" in getattr(answers[1], "comment", "")


def test_without_qido_the_response_is_what_confirms_and_is_said_to_be(
    job_id, settings, books: Books, spool: Spool, monkeypatch
):
    monkeypatch.setattr(confirmation, "SILENCE", timedelta(seconds=-1))
    with Archive(finds=False).running() as destination:
        assert run(job_id, destination, settings, books, spool) is State.DONE
    ((state, words, _),) = at_web(books)
    assert state == "CONFIRMED"
    assert "STOW-RS response alone: it answers a QIDO-RS request with 404" in (words or "")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, NotAdmitted, "set the environment variable or credential DICOMNODE_AUTHORIZATION_WEB"),
        (404, NotAdmitted, "mend stow_url"),
        (503, Unreachable, "answers 503"),
    ],
)
def test_a_request_that_is_refused_says_what_to_do(files, status, error, words):
    with Archive(status=status).running() as destination, pytest.raises(error, match=words) as caught:
        list(sender.send(files, destination, "DICOMNODE"))
    assert isinstance(caught.value, NotAdmitted) is (error is NotAdmitted)


def test_a_peer_that_hangs_is_a_stall_and_one_that_is_not_there_is_away(files):
    with Archive(hangs=True).running() as destination, pytest.raises(Stalled) as stall:
        list(sender.send(files, destination, "DICOMNODE", 0.3))
    assert stall.value.timed_out
    with pytest.raises(Unreachable, match="is it running"):
        list(sender.send(files, Destination("web", stow_url=f"http://127.0.0.1:{free_port()}"), "DICOMNODE"))


def test_a_file_that_is_gone_is_blamed_and_no_other(job_id, files, settings, books: Books, spool: Spool):
    files[1].path.unlink()
    archive = Archive()
    with archive.running() as destination:
        assert run(job_id, destination, settings, books, spool) is State.FAILED
    assert {(state, n) for state, _, n in at_web(books)} == {("CONFIRMED", 2), ("DEAD", 1)}
    assert len(archive.parts) == 2


def test_a_real_orthanc_takes_and_confirms_by_dicomweb(job_id, files, settings, books: Books, spool, tmp_path: Path):
    if not PLUGIN.exists():
        missing("the DICOMweb plug-in of Orthanc is not installed")
    orthanc = Orthanc(tmp_path / "orthanc", free_port(), free_port(), plugins=(str(PLUGIN),))
    with orthanc.running():
        destination = Destination("web", stow_url=f"http://127.0.0.1:{orthanc.http_port}/dicom-web")
        assert run(job_id, destination, settings, books, spool) is State.DONE
        held = [dcmread(path) for path in orthanc.files(json.loads(orthanc.get("/instances")), tmp_path / "back")]
    assert at_web(books) == [("CONFIRMED", "confirmed by QIDO-RS", 3)]
    assert {ds.SOPInstanceUID for ds in held} == {meta(file.path).sop_instance_uid for file in files}


def test_a_destination_needs_an_address_of_one_kind():
    web = {"name": "web", "stow_url": "https://pacs.example/dicom-web"}
    assert config.parse({"destination": [web]}).destination[0].port == 0
    with pytest.raises(ConfigError, match="needs the key 'ae_title', or stow_url"):
        config.parse({"destination": [{"name": "pacs"}]})
    with pytest.raises(ConfigError, match="stow_url"):
        config.parse({"destination": [web | {"stow_url": "pacs.example/dicom-web"}]})
