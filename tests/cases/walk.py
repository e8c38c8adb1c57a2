"""A case through everything but the network and the engine: received, judged, computed, one capture written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
from pydicom import Dataset, dcmread

from dicomnode import bookkeeping, config, header, pipeline, tasks, writer
from dicomnode.bookkeeping import Books, Job
from dicomnode.intake import Intake
from dicomnode.jobs import NO_MAPS, SeriesState, State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import preprocess, quality, weights
from inference.refusal import Refused
from inference.volume import Volume
from tests.cases.case import Arrival, Case
from tests.conftest import NOW
from tests.dicomnode.arrivals import part10, peer

QUIET, TIMER = 2.5, 61.0  # seconds after the last instance at which the sweep looks
COMPUTED: dict[tuple[str, str], object] = {}  # many rows show the same head


class Copier:
    """In place of the engine: the map is the CT slice itself."""

    manifest = replace(weights.read(weights.shipped()), kinds=("Tmax",), smoothing={}, familiar="")

    mix = np.array([[1, 0, 0, 0, 0]], np.float32)

    def perfusion(self, planes: np.ndarray) -> np.ndarray:
        return planes[:, 1:2]

    def blend(self, perfusion: np.ndarray, planes: np.ndarray) -> np.ndarray:
        return perfusion


@dataclass
class Ended:
    """What became of a case.

    outcome: of every study; code and sentence of a refusal. warnings: of the newest maps. decided: seconds after the
    first instance. door: codes by which instances were refused before they were filed. slices: of the newest maps.
    """

    outcome: str = ""
    code: str = ""
    sentence: str = ""
    warnings: tuple[str, ...] = ()
    decided: float = 0.0
    door: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    revisions: int = 0
    slices: int = 0
    capture: Dataset | None = None


@dataclass
class Walk:
    """A node without network: its books, its sweep, its worker."""

    folder: Path
    books: Books
    sweep: Sweep
    woken: list[str]
    seen: list[str] = field(default_factory=list)  # Series Instance UID of each instance that was filed
    ended: Ended = field(default_factory=Ended)

    def of(self, case: Case) -> Ended:
        arrivals = case.arrivals()
        for number, arrival in enumerate(arrivals):
            self.receive(arrival, f"A{number}")
            following = arrivals[number + 1].at if number + 1 < len(arrivals) else float("inf")
            for late in (QUIET, QUIET + 1, TIMER):
                if arrival.at + late < following and (late < TIMER or bookkeeping.receiving(self.books)):
                    self.look(arrival.at + late)
        self.tell()
        return self.ended

    def receive(self, arrival: Arrival, association: str) -> None:
        at = moment(arrival.at)
        intake = Intake(self.books, self.sweep.spool)
        for instance in arrival.instances:
            file = instance if isinstance(instance, bytes) else part10(instance)
            try:
                intake.receive(file, peer(at, association), at)
                self.seen.append(header.read(file).elements["SeriesInstanceUID"])
            except Refused as refusal:
                self.ended.door.append(refusal.code)
        bookkeeping.release(self.books, association, at)

    def look(self, seconds: float) -> None:
        """One sweep, and the jobs that it opens."""
        self.sweep.once(moment(seconds))
        while self.woken:
            tasks.process(self.woken.pop(0))
        if not self.ended.decided and not bookkeeping.receiving(self.books):
            self.ended.decided = seconds

    def keep(self, study: writer.Study, job: Job, *_: object) -> int:
        """In place of writing all files: one capture, read again."""
        middle = len(study.source) // 2
        (rendered,) = writer.write(study, lambda kind, name, index: (kind, index) == ("sc", middle), ("sc",))
        stream = BytesIO()
        rendered.dataset.save_as(stream, enforce_file_format=True)
        self.ended.capture = dcmread(BytesIO(stream.getvalue()))
        self.ended.warnings, self.ended.slices = study.warnings, len(study.source)
        return 1

    def tell(self) -> None:
        """Gather the end of every study."""
        story = {uid: bookkeeping.story(self.books, uid) for uid in self.studies()}
        series = {s.series_instance_uid: s for each in story.values() for s in each.series}
        self.ended.states = [_state(series[uid]) for uid in dict.fromkeys(self.seen)]
        for each in story.values():
            jobs = [job for job in each.jobs if job.route != NO_MAPS]
            self.ended.revisions = max([self.ended.revisions, *(job.revision for job in jobs)])
            used = any(s.state is SeriesState.SELECTED for s in each.series)
            if used:
                newest = max(jobs, key=lambda job: job.revision)
                said = {State.SENDING: "PROCESS", State.REJECTED: "REFUSE"}.get(newest.state, str(newest.state))
                self._end(said, newest.reason_code, newest.reason)
            else:
                size = lambda s: each.instances[s.series_instance_uid][0]  # noqa: B023, E731
                largest = max(each.series, key=size)
                self._end(
                    "REFUSE" if largest.state is SeriesState.REFUSED else str(largest.state),
                    largest.reason_code,
                    largest.reason,
                )

    def _end(self, outcome: str, code: str | None, sentence: str | None) -> None:
        assert self.ended.outcome in ("", outcome), "the studies of a case end differently"
        self.ended.outcome, self.ended.code, self.ended.sentence = outcome, code or "", sentence or ""

    def studies(self) -> list[str]:
        series = dict.fromkeys(self.seen)
        return list(dict.fromkeys(study for uid in series for study in bookkeeping.find_studies(self.books, uid)))


def _state(series) -> str:
    return series.reason_code if series.state is SeriesState.REFUSED else series.state.value


def moment(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@contextmanager
def walking(folder: Path, empty: Path, case: Case) -> Iterator[Walk]:
    """A walk in an empty folder. empty: a database without rows."""
    (folder / "books.db").write_bytes(empty.read_bytes())
    peers = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "refusal_page": False}]
    settings = config.parse({"node": dict(case.node), "destination": peers}, folder=folder)
    books, spool = bookkeeping.open_books(f"sqlite:///{folder}/books.db"), Spool(folder / "data").make()
    woken: list[str] = []
    sweep = Sweep(
        settings, books, spool, Copier.manifest, lambda job_id, lane: woken.append(job_id), lambda job_id: None
    )
    walk = Walk(folder, books, sweep, woken)
    with (
        patch.object(tasks, "desk", lambda: tasks.Desk(settings, books, spool)),
        patch.object(tasks, "wake_deliver", lambda job_id: None),
        patch.object(pipeline, "engine", lambda settings: (Copier.manifest, Copier())),
        patch.object(pipeline, "keep", walk.keep),
        patch.object(preprocess, "prepare", once(preprocess.prepare)),
        patch.object(quality, "measure", once(quality.measure)),
    ):
        yield walk
    books.kw["bind"].dispose()


def once(of):
    """What depends on a volume alone is computed once for it in a run of the tests."""

    def remembered(volume: Volume, *others):
        arrays = (volume.hu, volume.positions.round(6), volume.row_direction, volume.column_direction)
        digest = sha256(repr(volume.pixel_spacing).encode())
        for array in arrays:
            digest.update(array.tobytes())
        key = of.__name__, digest.hexdigest()
        if key not in COMPUTED:
            COMPUTED[key] = of(volume, *others)
        return COMPUTED[key]

    return remembered
