"""A node without its listener, for tests of workers and queues: books, queue, sweep, and the workers of a test."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomnode import bookkeeping, config, tasks
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.jobs import Lane, State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import weights
from tests.dicomnode.worker import Workers, open_job, present

PATIENCE = 120.0


@dataclass
class Site:
    """The jobs of one node, and who works on them."""

    settings: Settings
    path: Path
    books: Books
    workers: Workers

    def open(self, name: str, deed: str, lane: Lane = Lane.ROUTINE) -> str:
        job_id = open_job(self.books, name, lane, deed, present())
        tasks.wake_process(job_id, lane)
        return job_id

    def state(self, job_id: str) -> State:
        return bookkeeping.get_job(self.books, job_id).state

    def ended(self, *jobs: str) -> None:
        eventually(
            lambda: all(self.state(j) not in (State.QUEUED, State.PROCESSING) for j in jobs), "the end of the jobs"
        )

    def begun(self) -> list[str]:
        """The jobs in the order in which they were first begun."""
        found = {}
        for job, _ in bookkeeping.recent_jobs(self.books, 100):
            rows = bookkeeping.story(self.books, job.study).history
            found[job.id] = min((h.at for h in rows if h.after == State.PROCESSING), default=None)
        return sorted((job for job, at in found.items() if at), key=lambda job: found[job])


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE:.0f} s"
        time.sleep(0.05)


def node_toml(folder: Path, data_dir: Path, shape: tuple[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "node.toml"
    path.write_text(f'[node]\ndata_dir = "{data_dir}"\n[books]\nurl = "{shape[0]}"\n[broker]\nurl = "{shape[1]}"\n')
    return path


@contextmanager
def running(folder: Path, shape: tuple[str, str]) -> Iterator[Site]:
    path = node_toml(folder, folder / "data", shape)
    settings = config.load(path)
    spool = Spool(settings.node.data_dir).make()
    bookkeeping.migrate(settings.books_url)
    books, stop = bookkeeping.open_books(settings.books_url), threading.Event()
    tasks.configure(settings)
    tasks.declare()
    manifest = weights.read(weights.shipped())
    sweep = Sweep(settings, books, spool, manifest, tasks.wake_process, lambda job_id: None)
    thread = threading.Thread(target=sweep.run, args=(stop,))
    thread.start()
    try:
        with Workers(path)() as workers:
            yield Site(settings, path, books, workers)
    finally:
        stop.set()
        thread.join()
        bookkeeping.close(books)
        tasks.app.pool.force_close_all()
        tasks.app._after_fork()  # the next test has another broker
