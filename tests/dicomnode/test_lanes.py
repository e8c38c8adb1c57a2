"""Lanes: a stroke is never behind a routine backlog, and routine is never starved by strokes."""

import itertools
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection, Consumer
from sqlalchemy import event

from dicomnode import bookkeeping, tasks
from dicomnode.bookkeeping import Books
from dicomnode.jobs import Lane, State
from dicomnode.lanes import TURN, Turns
from dicomnode.up import ROLES
from tests.dicomnode.worker import open_job

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SWEEP = timedelta(seconds=1)
PATIENCE = 8  # seconds after which a job whose message was lost has been offered again
WORKERS = {role[2]: role[2].split(",") for role in ROLES if role[0] == "work" and role[2] != tasks.DELIVER}
STROKE_ONLY = "process.stroke"


@dataclass
class Study:
    """One study of the simulated day: when it comes, and what becomes of its computation and of its messages."""

    at: int
    lane: Lane
    seconds: int
    message_lost: bool
    deaths: int
    job_id: str = ""
    waits_since: int | None = None


@dataclass
class Worker:
    """A worker as Celery runs it: it takes a message of its queues only when it has nothing to do (prefetch 1)."""

    name: str
    connection: Connection
    handed: list[str] = field(default_factory=list)
    study: Study | None = None
    until: int = 0
    dies: bool = False
    channel: Any = None
    in_a_row: int = 0  # strokes taken since routine work last was waiting

    def __post_init__(self) -> None:
        self.channel = self.connection.channel()
        consumer = Consumer(self.channel, [tasks.app.amqp.queues[q] for q in WORKERS[self.name]], prefetch_count=1)
        consumer.register_callback(self._take)
        consumer.consume()

    def _take(self, body: str, message) -> None:
        self.handed.append(body)
        message.ack()

    def next_message(self) -> str | None:
        while not self.handed:
            try:
                self.connection.drain_events(timeout=0.001)
            except TimeoutError:  # on a busy machine also where messages wait
                if not any(self.channel._size(tasks.app.amqp.queues[name].name) for name in WORKERS[self.name]):
                    return None
        return self.handed.pop()


@dataclass
class Day:
    """The scheduler with its own statements, its own queues and kombu's own order of them; only time is ours."""

    books: Books
    studies: list[Study]
    now: int = 0

    def __post_init__(self) -> None:
        self.connection = Connection("memory://")
        self.channel = self.connection.channel()
        self.producer = self.connection.Producer(self.channel)
        for queue in tasks.QUEUES:
            tasks.app.amqp.queues[queue](self.channel).declare()
            self.channel.queue_purge(queue)
        self.workers = [Worker(name, Connection("memory://")) for name in WORKERS]
        self.by_id: dict[str, Study] = {}

    @property
    def clock(self) -> datetime:
        return BEGIN + timedelta(seconds=self.now)

    def run(self) -> None:
        while not self.ended():
            assert self.now < 2000, "some studies never end"
            self.arrivals()
            if self.now % 2 == 0:
                self.sweep()
            for worker in self.workers:
                self.work(worker)
            self.check()
            self.now += 1

    def ended(self) -> bool:
        under_way = {State.QUEUED, State.PROCESSING} & bookkeeping.counts(self.books)["jobs"].keys()
        return all(study.job_id for study in self.studies) and not under_way

    def arrivals(self) -> None:
        for n, study in enumerate(self.studies):
            if study.at == self.now:
                study.job_id = open_job(self.books, f"{n}", study.lane, "", self.clock)
                self.by_id[study.job_id], study.waits_since = study, self.now
                if not study.message_lost:
                    self.wake(study.job_id, study.lane)

    def wake(self, job_id: str, lane: Lane) -> None:
        queue = tasks.app.amqp.queues[tasks.PROCESS[lane]]
        self.producer.publish(job_id, exchange=queue.exchange, routing_key=queue.routing_key)

    def sweep(self) -> None:
        for job_id in bookkeeping.reap(self.books, self.clock):
            if bookkeeping.get_job(self.books, job_id).state is State.QUEUED:
                self.by_id[job_id].waits_since = self.now
        for lane in Lane:
            for job_id in bookkeeping.unclaimed(self.books, lane, self.clock):
                self.wake(job_id, lane)

    def work(self, worker: Worker) -> None:
        if worker.study and worker.until > self.now:
            if not worker.dies:
                bookkeeping.heartbeat(self.books, worker.study.job_id, worker.name, self.clock)
            return
        if worker.study:
            if not worker.dies:
                bookkeeping.advance(self.books, worker.study.job_id, worker.name, State.SENDING, "done", self.clock)
            worker.study = None
        while (job_id := worker.next_message()) is not None:
            if bookkeeping.claim(self.books, job_id, worker.name, self.clock):
                self.begin(worker, self.by_id[job_id])
                return

    def begin(self, worker: Worker, study: Study) -> None:
        waited = any(s.lane is Lane.ROUTINE and s.waits_since is not None for s in self.studies)
        worker.in_a_row = worker.in_a_row + 1 if study.lane is Lane.STROKE and waited else 0
        worker.dies = study.deaths > 0
        study.deaths -= 1
        study.waits_since, worker.study, worker.until = None, study, self.now + (1 if worker.dies else study.seconds)

    def check(self) -> None:
        """No worker is idle while a job that it may take waits longer than a lost message takes to be noticed."""
        for worker in self.workers:
            lanes = [lane for lane in Lane if tasks.PROCESS[lane] in WORKERS[worker.name]]
            late = [s for s in self.studies if s.waits_since is not None and self.now - s.waits_since > PATIENCE]
            idle = worker.study is None
            assert not (idle and any(s.lane in lanes for s in late)), (self.now, worker.name, late)
            assert worker.name != STROKE_ONLY or idle or worker.study.lane is Lane.STROKE
            assert worker.in_a_row <= PATIENCE, f"{worker.in_a_row} strokes in a row while routine work waited"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "books.db"
    bookkeeping.migrate(f"sqlite:///{path}")
    return path


STUDIES = st.lists(
    st.builds(
        Study,
        at=st.integers(0, 20),
        lane=st.sampled_from(Lane),
        seconds=st.integers(1, 12),
        message_lost=st.booleans(),
        deaths=st.sampled_from([0, 0, 0, 0, 1, 3]),
    ),
    min_size=1,
    max_size=14,
)
NUMBERS = itertools.count()


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(studies=STUDIES)
def test_whatever_comes_both_lanes_are_served_and_everything_ends(studies, empty: Path, tmp_path: Path):
    """Every stroke is taken by the worker kept for strokes, or sooner; routine is taken between strokes."""
    path = tmp_path / f"{next(NUMBERS)}.db"
    shutil.copy(empty, path)
    books = bookkeeping.open_books(f"sqlite:///{path}")
    event.listen(books.kw["bind"], "checkout", lambda connection, *_: connection.execute("PRAGMA synchronous=OFF"))
    poison = {id(study): study.deaths >= bookkeeping.ATTEMPTS for study in studies}
    day = Day(books, studies)
    day.run()
    for study in studies:
        job = bookkeeping.get_job(books, study.job_id)
        assert job.state is (State.FAILED if poison[id(study)] else State.SENDING), job.reason
        assert job.state is State.SENDING or "vanished in attempt 3 of 3" in (job.reason or "")
    bookkeeping.close(books)


def test_a_routine_job_makes_room_at_the_sender_but_not_for_ever():
    moments = iter([0.0, 1.0, 2.0, TURN - 0.1, TURN, TURN + 0.1])
    turns = Turns(clock=lambda: next(moments))
    waits = [True, True, False, True, True, True]
    given_ = [turns.has(Lane.ROUTINE, lambda stroke=stroke: stroke) for stroke in waits]
    assert given_ == [True, False, True, False, False, False]
    assert turns.last == 2.0


def test_a_stroke_never_makes_room():
    turns = Turns(clock=lambda: 0.0)
    assert all(turns.has(Lane.STROKE, lambda: True) for _ in range(3))


@given(st.lists(st.tuples(st.sampled_from(Lane), st.floats(0.01, 20)), min_size=1, max_size=60))
def test_under_a_flood_of_strokes_routine_has_one_turn_in_thirty_seconds(offers):
    now, served = 0.0, []
    turns = Turns(clock=lambda: now)
    for lane, seconds in offers:
        now += seconds
        if turns.has(lane, lambda: True) and lane is Lane.ROUTINE:
            served.append(now)
        elif lane is Lane.ROUTINE:
            assert now - served[-1] < TURN  # it is turned away only where another had its turn
    assert all(b - a >= TURN for a, b in itertools.pairwise(served))
