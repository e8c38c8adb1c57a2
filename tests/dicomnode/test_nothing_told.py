"""A patient whose name is marked goes the whole way, with all that can go wrong; nothing that is told has the mark."""

import io
import logging
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from pydicom import Dataset

from dicomnode import bookkeeping, delivery, logs, support
from dicomnode.alerts import Sender, Watch, webhook
from dicomnode.alerts.concerns import Look
from dicomnode.bookkeeping import ACTOR
from dicomnode.intake import Intake
from dicomnode.jobs import SeriesState, State
from dicomnode.roles import Role
from dicomnode.sweep import Sweep
from inference import weights
from inference.refusal import Refused
from tests.conftest import DATABASES
from tests.dicomnode.arrivals import arrive, peer
from tests.dicomnode.web.place import Place, computed, head_ct, serving
from tests.listeners import Hook
from tests.pacs import Pacs

MARK = "Marked"
ELEMENTS = {
    "PatientName": f"{MARK}^Eva",
    "PatientID": f"{MARK}-1",
    "AccessionNumber": f"{MARK}-2",
    "StudyDescription": MARK,
    "SeriesDescription": MARK,
    "ReferringPhysicianName": MARK,
    "InstitutionName": MARK,
}


class Rude(Pacs):
    """A PACS that refuses everything, and says the patient's name in its error comment."""

    def on_c_store(self, event) -> Dataset:
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xA900, ELEMENTS["PatientName"]
        return answer


@dataclass
class Told:
    """A node after the walk, its log, and what its webhook heard."""

    place: Place
    log: io.StringIO
    hook: Hook
    folder: Path


# Everything that is read by people and machines who may not read the patient's name. A new one belongs here.
SOURCES: dict[str, Callable[[Told], str]] = {
    "log": lambda told: told.log.getvalue(),
    "alerts": lambda told: repr(told.hook.posts) + repr(told.hook.headers),
    "metrics": lambda told: _get(told, "/metrics"),
    "health": lambda told: _get(told, "/health/ready") + _get(told, "/health/live"),
    "audit trail": lambda told: repr(list(bookkeeping.trail(told.place.books))),
    "support bundle": lambda told: _bundle(told),
}


def _get(told: Told, path: str) -> str:
    with told.place.authorised(Role.MONITOR) as session:
        return session.get(told.place.url + path, timeout=60).text


def _bundle(told: Told) -> str:
    (told.folder / "log").write_text(told.log.getvalue())
    path = told.folder / "b.zip"
    support.write(path, told.place.settings, told.place.books, told.folder / "log", datetime.now(UTC))
    with zipfile.ZipFile(path) as bundle:
        return "\n".join(bundle.read(name).decode() for name in bundle.namelist())


@contextmanager
def logging_to(stream: io.StringIO) -> Iterator[None]:
    """As a service does, for the time of a test."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level = root.handlers[:], root.level
    logs.configure(stream)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder, log = tmp_path_factory.mktemp("told"), io.StringIO()
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "objects": ["sc", "pm"]}
    with (
        DATABASES[request.param](folder) as url,
        Hook().running() as hook,
        Rude(ae_title="PACS").running() as pacs,
        logging_to(log),
        serving(
            folder,
            url,
            destination=[destination | {"port": pacs.port}],
            alerts={"webhook_url": hook.url, "away_minutes": 0, "apart_minutes": 0},
        ) as place,
    ):
        now = datetime.now(UTC)
        _maps_that_the_pacs_refuses(place, now)
        _series_that_are_refused(place, now)
        _work_that_breaks(place, now)
        _strangers(place)
        bookkeeping.note_away(place.books, "pacs", f"it says: {MARK}", lambda _: timedelta(minutes=1), now)
        later = now + timedelta(minutes=1)
        Watch(place.settings, place.books, ["webhook"]).once(Look.of(place.settings, place.books), later)
        assert Sender(place.settings, place.books, "webhook", webhook.send).once(later)
        yield Told(place, log, hook, folder)


def _maps_that_the_pacs_refuses(place: Place, now: datetime) -> None:
    job = computed(place, head_ct(**ELEMENTS))
    taken = bookkeeping.claim_sending(place.books, job.id, ACTOR, now)
    assert taken is not None
    with logs.about(job=job.id):
        delivery.run(taken, place.settings, place.books, place.spool)
    assert bookkeeping.get_job(place.books, job.id).state is State.FAILED


def _series_that_are_refused(place: Place, now: datetime) -> None:
    intake = Intake(place.books, place.spool)
    arrive(intake, _another(1, Modality="MR"), now, "A2")
    gone = _another(2)
    arrive(intake, gone, now, "A3")
    (series,) = (s for s in bookkeeping.receiving(place.books) if s.series_instance_uid == gone[0].SeriesInstanceUID)
    place.spool.path(series.instances[0].path).unlink()  # so that it cannot be read
    wide = replace(place.settings.completeness, give_up_seconds=0.0)
    settings, manifest = replace(place.settings, completeness=wide), weights.read(weights.shipped())
    Sweep(settings, place.books, place.spool, manifest, lambda *_: None, print).once(now + timedelta(minutes=2))
    with pytest.raises(Refused):
        intake.receive(MARK.encode() * 100, peer(now, "A4"), now)


def _another(number: int, **elements: str) -> list[Dataset]:
    """Another series of the same patient."""
    slices = head_ct(**ELEMENTS, **elements, SeriesInstanceUID=f"2.25.77{number}")
    for n, ds in enumerate(slices):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.77{number}.{n}"
    return slices


def _work_that_breaks(place: Place, now: datetime) -> None:
    """What a library may say of a value, at each of our edges."""
    for name in ("dicomnode.tasks", "pydicom", "pynetdicom.association", "highdicom"):
        try:
            float(ELEMENTS["PatientName"])
        except ValueError:
            logging.getLogger(name).exception("failed")


def _strangers(place: Place) -> None:
    bookkeeping.note_refusal(
        place.books, "association", "127.0.0.1", "unlisted-source", f"{MARK} at 127.0.0.1", datetime.now(UTC)
    )
    for path in (f"/study/{MARK}", f"/dicom-web/studies?PatientName={MARK}", f"/{MARK}%0a{MARK}"):
        requests.get(
            place.url + path, timeout=60, headers={"X-Patient": MARK}, auth=(MARK, MARK), allow_redirects=False
        )


def test_the_walk_went_wrong_as_it_should_and_the_books_know_the_patient(told: Told):
    """Else the others would prove nothing."""
    studies = bookkeeping.find_studies(told.place.books, ELEMENTS["AccessionNumber"])
    stories = [bookkeeping.story(told.place.books, uid) for uid in studies]
    assert ELEMENTS["PatientName"] in {story.study.patient_name for story in stories}
    assert MARK in repr([status for story in stories for _, _, _, status, _ in story.deliveries])  # the PACS's comment
    assert {series.state for story in stories for series in story.series} >= {
        SeriesState.SELECTED,
        SeriesState.REFUSED,
    }
    assert {each["kind"] for post in told.hook.posts for each in post["alerts"]} >= {"failed", "away"}


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_names_the_patient(told: Told, source: str):
    said = SOURCES[source](told)
    assert len(said) > 20
    assert MARK.lower() not in said.lower()
