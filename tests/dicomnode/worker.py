"""Real workers over a real broker whose computation is a word: what a study's accession number says is done.

`python -m tests.dicomnode.worker NODE_TOML QUEUES` is one of them; `Workers` starts and ends them for a test.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from dicomnode import bookkeeping, config, tasks
from dicomnode.bookkeeping import Books, Order, Peer
from dicomnode.jobs import Lane
from dicomnode.up import end_with_parent
from tests.dicomnode.test_bookkeeping import received, result

LEASE, HEARTBEAT = timedelta(seconds=3), timedelta(seconds=0.5)
SOFT, HARD = 3.0, 5.0  # seconds


def run(job: bookkeeping.Job, *given: object) -> int:
    """In place of pipeline.run."""
    deed, _, more = accession_number(job).partition(" ")
    *_, ahead = given
    if deed == "ahead":
        made_ahead(tasks.desk().settings.node.data_dir).write_text(ahead() if ahead else "nothing")
    if deed == "copy":
        copy(job)
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "hang":
        time.sleep(3600)
    if deed == "stuck":  # as a library that never comes back to Python
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        time.sleep(3600)
    if deed == "full":
        raise OSError(28, "No space left on device")
    time.sleep(float(more or 0))
    return 0


def compute(instances: Sequence[bookkeeping.Instance], *_: object) -> str:
    """In place of pipeline.compute."""
    made_ahead(tasks.desk().settings.node.data_dir).write_text("begun")
    return "of " + " ".join(instance.sop_instance_uid for instance in instances)


def load(_: object) -> None:
    """In place of pipeline.engine."""
    time.sleep(float(os.environ.get("SECONDS_TO_START", "0")))


def made_ahead(data_dir: Path) -> Path:
    """Where a job tells what had been computed before it was one."""
    return data_dir / "ahead.txt"


def copy(job: bookkeeping.Job) -> None:
    """A result that is the input, as the pipeline reads and writes them."""
    at = tasks.desk()
    (source,) = bookkeeping.inputs(at.books, job.id)
    with at.spool.result(job.id, "sc-CBF-001.dcm") as (path, file):
        file.write(at.spool.path(source.path).read_bytes())
    at.spool.settle(job.id)
    row = result(job.id)
    row.sop_instance_uid, row.path = f"2.25.{int(sha256(job.id.encode()).hexdigest()[:16], 16)}", path
    bookkeeping.note_results(at.books, bookkeeping.ACTOR, [row], [], present())


def accession_number(job: bookkeeping.Job) -> str:
    return bookkeeping.story(tasks.desk().books, job.study).study.accession_number


def open_job(books: Books, name: str, lane: Lane, deed: str, now: datetime) -> str:
    """A queued job of a study of its own; the deed is what its worker does."""
    peer = arrive(books, name, lane, deed, now)
    instances = instances_of(books, name)
    order = Order(f"k{name}", f"1.1.{name}", f"1.2.{name}", "ncct", "torch", instances, "geometry", "whole")
    job_id = bookkeeping.open_job(books, order, now, now)
    assert job_id is not None
    bookkeeping.release(books, peer.association, now)  # not before: a sweep that runs would judge the series
    return job_id


def instances_of(books: Books, name: str) -> tuple[int, ...]:
    (series,) = (s for s in bookkeeping.receiving(books) if s.series_instance_uid == f"1.2.{name}")
    return tuple(i.id for i in series.instances)


def arrive(books: Books, name: str, lane: Lane, deed: str, now: datetime) -> Peer:
    """An instance of a series of its own, over an association that stays open."""
    peer = Peer(f"A-{name}", "CT1", "127.0.0.1", now, lane)
    uids = {"study_instance_uid": f"1.1.{name}", "series_instance_uid": f"1.2.{name}", "accession_number": deed}
    instance = received(0, sop_instance_uid=f"1.3.{name}", path=f"in/{name}.dcm", **uids)
    bookkeeping.note_instance(books, instance, peer, now)
    return peer


@dataclass
class Workers:
    """Workers of one node, with the log of all of them in its folder."""

    path: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *queues: str, command: Sequence[str] = (), path: Path | None = None) -> subprocess.Popen[bytes]:
        """One worker. command: what starts it in surroundings of its own."""
        whole = [*command, sys.executable, "-m", "tests.dicomnode.worker", str(path or self.path), ",".join(queues)]
        with (self.path.parent / "workers.log").open("ab") as log:
            process = subprocess.Popen(whole, stdout=log, stderr=log, process_group=0, preexec_fn=end_with_parent)
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """The worker and the process that computes for it, at once and without a word."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @contextmanager
    def __call__(self) -> Iterator["Workers"]:
        try:
            yield self
        finally:
            for process in self.running:
                if process.poll() is None:
                    self.kill(process)


def present() -> datetime:
    return datetime.now(UTC)


def main(path: str, queues: str) -> None:
    os.environ[config.ENVIRONMENT] = path
    bookkeeping.jobs.LEASE, bookkeeping.HEARTBEAT = LEASE, HEARTBEAT
    stand_in = ModuleType("dicomnode.pipeline")  # torch takes seconds to import, and computes nothing here
    stand_in.run, stand_in.compute, stand_in.engine = run, compute, load
    sys.modules["dicomnode.pipeline"] = stand_in
    tasks.configure(config.load(Path(path)))
    tasks.process.soft_time_limit, tasks.process.time_limit = SOFT, HARD
    tasks.work(queues.split(","))


if __name__ == "__main__":
    main(*sys.argv[1:])
