"""A web service on a free port of the loopback, its books and spool, and people and programs that may use it."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from pydicom import Dataset, dcmread

from dicomnode import bookkeeping, config, passwords, pipeline
from dicomnode.bookkeeping import Books, Job
from dicomnode.config import Settings
from dicomnode.demo import free_port
from dicomnode.intake import Intake
from dicomnode.jobs import State
from dicomnode.roles import Role
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from dicomnode.web import server
from dicomnode.web.app import make
from inference import weights
from tests import phantom
from tests.dicomnode.arrivals import arrive, part10
from tests.dicomnode.writer import studies
from tests.walks.node import wait_for

PASSWORD = "correct horse battery"
HASH = passwords.hash_password(PASSWORD)  # once: it takes a while by design
NAMES = {role: role.value if role is not Role.SENDER else "CT1" for role in Role}


@dataclass
class Place:
    """A running service. tokens: a secret for each role."""

    settings: Settings
    books: Books
    spool: Spool
    url: str = ""
    tokens: dict[Role, str] = field(default_factory=dict)

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def routes(self) -> list[tuple[str, str, str]]:
        """Method, path and address of each route that the service has; addresses name what is there, if anything."""
        paths = make(server.site(self.settings, self.books)).openapi()["paths"]
        there = {"frames": "1", "tag": "7FE00010", **self._ids()}
        found = []
        for path, methods in paths.items():
            address = re.sub(r"{(\w+)}", lambda part: there.get(part[1], "1.2.3"), path)
            found += [(method.upper(), path, address) for method in methods]
        assert len(found) > 20
        return found

    def _ids(self) -> dict[str, str]:
        """The ids of one result, if there is any."""
        jobs = bookkeeping.recent_jobs(self.books, 1)
        if not jobs:
            return {}
        job, first = jobs[0][0], bookkeeping.find_held(self.books, jobs[0][0].study)[0]
        uids = {"study": job.study, "series": first.series_instance_uid, "instance": first.sop_instance_uid}
        return {"job": job.id, "id": bookkeeping.study_of(self.books, job.study).id, **uids}

    def token(self, role: Role, until: datetime | None = None) -> str:
        secret, now = passwords.new_secret(), datetime.now(UTC)
        until = until or now + timedelta(days=1)
        bookkeeping.add_access(
            self.books, passwords.digest(secret), NAMES[role], bookkeeping.TOKEN, "", until, now, "test"
        )
        return secret

    def authorised(self, role: Role) -> requests.Session:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.tokens[role]}"
        session.trust_env = False
        return session

    def get(self, path: str, role: Role = Role.VIEWER, accept: str = "", **params: Any) -> requests.Response:
        headers = {"Accept": accept} if accept else {}
        with self.authorised(role) as session:
            return session.get(self.dicomweb + path, headers=headers, params=params, timeout=60)

    def store(self, parts: list[bytes], path: str = "/studies", role: Role = Role.SENDER) -> requests.Response:
        body, content_type = multipart(parts)
        with self.authorised(role) as session:
            url, headers = self.dicomweb + path, {"Content-Type": content_type}
            return session.post(url, data=body, headers=headers, timeout=60)


def multipart(parts: list[bytes], media: str = "application/dicom") -> tuple[bytes, str]:
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {media}\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def parts_of(response: requests.Response) -> list[bytes]:
    boundary = b"--" + response.headers["Content-Type"].rsplit("boundary=", 1)[1].encode()
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in response.content.split(boundary)[1:-1]]


def settings_in(folder: Path, **more: Any) -> Settings:
    raw = {
        "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"], "lane": "stroke"}],
        "destination": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}],
        "completeness": {"quiet_seconds": 0},
        "listen": {"keep_free_gib": 0.0, "largest_instance_mib": 4},
        "web": {"port": free_port()},
    }
    return config.parse({**raw, **more}, folder=folder)


@contextmanager
def serving(folder: Path, url: str = "", **more: Any) -> Iterator[Place]:
    """The service with an account and a token for each role, until the block ends."""
    settings = settings_in(folder, **({"books": {"url": url}} if url else {}), **more)
    bookkeeping.migrate(settings.books_url)
    books, spool = bookkeeping.open_books(settings.books_url), Spool(settings.node.data_dir).make()
    place, now = Place(settings, books, spool), datetime.now(UTC)
    for role, name in NAMES.items():
        bookkeeping.add_account(books, name, role, HASH, now, "test")
        place.tokens[role] = place.token(role)
    running = server.server(settings, books)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        wait_for(lambda: running.started or not thread.is_alive(), "the web service")
        assert running.started
        scheme = "https" if settings.web.tls.certificate else "http"
        place.url = f"{scheme}://127.0.0.1:{settings.web.port}"
        yield place
    finally:
        running.should_exit = True
        thread.join()
        bookkeeping.close(books)


def head_ct(**elements: Any) -> list[Dataset]:
    """A small head with its own UIDs."""
    slices = phantom.head(phantom.even(14, 9.0), matrix=64, thickness=9.0)
    for ds in slices:
        ds.PatientName, ds.PatientID, ds.AccessionNumber, ds.StudyDate = "Muster^Eva", "P1", "A1", "20260302"
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return slices


def computed(place: Place, slices: list[Dataset], objects: tuple[str, ...] = ("sc", "pm")) -> Job:
    """Receive a head, open its job and write its results, without a network and without weights."""
    now, opened = datetime.now(UTC), list[str]()
    arrive(Intake(place.books, place.spool), slices, now, f"A{uuid4().hex}")
    manifest = weights.read(weights.shipped())
    Sweep(place.settings, place.books, place.spool, manifest, lambda job, lane: opened.append(job), print).once(now)
    (job_id,) = opened
    job = bookkeeping.claim(place.books, job_id, bookkeeping.ACTOR, now)
    assert job is not None
    finished = studies.stroke([_read(ds) for ds in slices], job_key=job.key)
    settings = config.parse(
        {
            "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}],
            "destination": [
                {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "objects": list(objects)}
            ],
        },
        folder=place.settings.node.data_dir.parent,
    )
    pipeline.keep(finished, job, settings, place.books, place.spool, lambda: None)
    bookkeeping.advance(place.books, job_id, bookkeeping.ACTOR, State.SENDING, "files written", now)
    return job


def looped(place: Place, slices: list[Dataset], manifest: weights.Manifest | None = None) -> Job:
    """Receive a head and let the whole pipeline make its maps; its results are in SENDING."""
    now, opened = datetime.now(UTC), list[str]()
    arrive(Intake(place.books, place.spool), slices, now, f"A{uuid4().hex}")
    of = manifest or weights.read(place.settings.weights_folder)
    Sweep(place.settings, place.books, place.spool, of, lambda job, lane: opened.append(job), print).once(now)
    (job_id,) = opened
    job = bookkeeping.claim(place.books, job_id, bookkeeping.ACTOR, now)
    assert job is not None
    pipeline.run(job, place.settings, place.books, place.spool)
    bookkeeping.advance(place.books, job_id, bookkeeping.ACTOR, State.SENDING, "files written", now)
    return bookkeeping.get_job(place.books, job_id)


def _read(ds: Dataset) -> Dataset:
    return dcmread(BytesIO(part10(ds)))
