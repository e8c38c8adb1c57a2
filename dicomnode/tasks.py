"""The work queue. A message names a job, or what will be one, and may be lost or come twice. The door to Celery."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from kombu import Connection, Queue
from kombu.exceptions import KombuError

from dicomnode import bookkeeping, config, logs, notify, pulse
from dicomnode.bookkeeping import ACTOR, Books, LeaseLost
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import Lane, State
from dicomnode.lanes import Turns
from dicomnode.selftest import permit
from dicomnode.spool import Spool
from dicomnode.vigil import Vigil
from inference.refusal import Refused

if TYPE_CHECKING:
    from dicomnode.pipeline import Computed

log = logging.getLogger(__name__)

PROCESS = {lane: f"process.{lane}" for lane in Lane}
DELIVER = "deliver"
QUEUES = (*PROCESS.values(), DELIVER)
BROKER_PATIENCE = 5.0  # seconds
ENOUGH = 100  # messages; a queue that holds so many wakes its workers without more of them

# Seconds: at the first limit the job is told to end, at the second its process is killed. A study takes seconds on an
# idle machine. All are shorter than the half hour after which RabbitMQ takes a message back.
PROCESS_LIMITS = {"soft_time_limit": 600, "time_limit": 660}
DELIVER_LIMITS = {"soft_time_limit": 1500, "time_limit": 1560}

WARM = 180.0  # seconds in which a worker process must have its weights; Celery's own 4 are not enough on a busy machine
AWAITED, LOOK = 6.0, 0.05  # seconds that a job which was foretold may need to be opened; between two looks for it

# What a disk or its network says while it cannot serve us; it may mend without anybody looking at the job.
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT})

app = Celery("dicomnode")


def configure(settings: Settings) -> None:
    """Point Celery at the broker of the settings: the embedded one is a folder of the spool."""
    folder = settings.node.data_dir / "broker"
    app.conf.update(
        broker_url=settings.broker.url or "filesystem://",
        broker_transport_options={}
        if settings.broker.url
        else {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder),
            "polling_interval": 0.05,
        },
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_default_queue=PROCESS[Lane.ROUTINE],
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_proc_alive_timeout=WARM,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
    )


def find_broker(settings: Settings) -> str:
    """Why the broker takes no messages; empty where it does. Nothing is left there."""
    configure(settings)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_PATIENCE)
    except _away() as error:
        return f"{type(error).__name__}: {error}"
    return ""


def declare() -> None:
    """Make the queues before several workers start at once: the embedded broker's file of them is written unlocked."""
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            queue(connection.default_channel).declare()


def wake_process(job_id: str, lane: Lane) -> None:
    """Hint to the workers of a lane that this job waits."""
    _send(process, [job_id], PROCESS[lane])


def wake_render(job_id: str, lane: Lane) -> None:
    """Hint to the workers of a lane that captures of this job are asked for."""
    _send(render, [job_id], PROCESS[lane])


def wake_deliver(job_id: str) -> None:
    """Hint to the senders that this job has something to send."""
    _send(deliver, [job_id], DELIVER)


def foretell(key: str, instances: Sequence[int], lane: Lane) -> None:
    """Hint to the workers of a lane that these instances will soon be the job of this key."""
    _send(foresee, [key, list(instances)], PROCESS[lane])


def _send(task: Task, arguments: list[object], queue: str) -> None:
    try:  # over a connection of its own: after a broker or disk has failed, a kept one may be broken for good
        with app.connection_for_write() as connection:
            if waiting(connection, queue) < ENOUGH:
                task.apply_async(args=arguments, queue=queue, retry=False, connection=connection)
    except _away():
        log.warning("the broker is away; the sweep will offer job %s again", arguments[0])


def waiting(connection: Connection, queue: str) -> int:
    """How many messages a queue holds; a queue that is not there yet is made."""
    with connection.channel() as channel:
        return int(app.amqp.queues[queue](channel).queue_declare(channel=channel).message_count)


def _away() -> tuple[type[Exception], ...]:
    """What the client of this broker raises where the broker is away, stopping or out of room."""
    connection = app.connection_for_write()
    return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


def work(queues: list[str]) -> None:
    """Run one worker over these queues until it is told to stop; the first job finds the weights loaded."""
    # A thread that spins while it waits for one that was put aside costs ten times what it saves (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    vigil, computes = Vigil(), bool(set(queues) & set(PROCESS.values()))
    role = f"work {','.join(queues)}"

    def begin(**_: object) -> None:
        """In the process that computes and sends: the one that waits for messages may live while this one hangs."""
        if computes:
            warm()
        vigil.begin()
        pulse.keep(desk().books, role, threading.Event())

    setup_logging.connect(_keep_logging)
    worker_process_init.connect(begin, weak=False)
    worker_process_shutdown.connect(lambda **_: pulse.Pulse(desk().books, role).end(), weak=False)
    worker_ready.connect(lambda sender, **_: vigil.keep(sender), weak=False)
    worker_shutting_down.connect(lambda **_: notify.tell(notify.STOPPING), weak=False)
    options = ["worker", "--pool=prefork", "--concurrency=1", f"--queues={','.join(queues)}", "--loglevel=WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", f"--hostname={os.getpid()}@%h"]
    app.worker_main([*options, *quiet])


@dataclass(frozen=True, slots=True)
class Desk:
    """What a worker process keeps between jobs."""

    settings: Settings
    books: Books
    spool: Spool
    turns: Turns = field(default_factory=Turns)


@cache
def desk() -> Desk:
    """Opened once in each worker process."""
    settings = config.load(config.find(Path(os.environ[config.ENVIRONMENT])))
    return Desk(settings, bookkeeping.open_books(settings.books_url), Spool(settings.node.data_dir).make())


def _keep_logging(**_: object) -> None:
    """Celery sets up no logging of its own where somebody answers this."""


def warm() -> None:
    """Load the weights in the process that will compute."""
    from dicomnode import pipeline  # torch is imported in the worker only

    pipeline.engine(desk().settings)


@app.task(name="process", **PROCESS_LIMITS)
def process(job_id: str) -> None:
    """Do one job, if it still waits."""
    crashpoint("process.taken")
    _process(job_id)


@app.task(name="foresee", **PROCESS_LIMITS)
def foresee(key: str, instances: list[int]) -> None:
    """Compute what will be a job unless more slices come, and do the job once it is one."""
    from dicomnode import pipeline  # torch is imported in the worker only

    at = desk()
    if job_id := bookkeeping.job_of_key(at.books, key):
        _process(job_id)
        return
    with ThreadPoolExecutor(1, "ahead") as pool:
        ahead = pool.submit(pipeline.compute, bookkeeping.instances(at.books, instances), at.settings, at.spool)
        crashpoint("process.foreseen")
        if job_id := _awaited(at.books, key):
            _process(job_id, ahead.result)


def _awaited(books: Books, key: str) -> str | None:
    """The job of this key, as soon as it is opened; None where that does not happen in time."""
    deadline = time.monotonic() + AWAITED
    while (job_id := bookkeeping.job_of_key(books, key)) is None and time.monotonic() < deadline:
        time.sleep(LOOK)
    return job_id


@logs.of_job
def _process(job_id: str, ahead: "Callable[[], Computed] | None" = None) -> None:
    """Do one job, if it still waits. What can go wrong is decided here and nowhere else."""
    from dicomnode import pipeline  # torch is imported in the worker only

    at = desk()
    job = bookkeeping.claim(at.books, job_id, ACTOR, now())
    if job is None:
        return
    crashpoint("process.claimed")
    try:
        with held(at.books, job_id):
            settings = permit.for_study(at.settings, at.books, job.study, now())
            files = pipeline.run(job, settings, at.books, at.spool, partial(wake_deliver, job_id), ahead)
            crashpoint("process.written")
        bookkeeping.advance(at.books, job_id, ACTOR, State.SENDING, f"{files} files written", now())
    except LeaseLost as lost:
        log.warning("%s", lost)
    except Refused as refusal:
        bookkeeping.advance(at.books, job_id, ACTOR, State.REJECTED, refusal.sentence, now(), refusal.code)
    except (OSError, bookkeeping.BooksAway) as error:
        log.exception("job %s met a failing world", job_id)
        if isinstance(error, bookkeeping.BooksAway) or error.errno in PASSING:
            bookkeeping.put_off(at.books, job_id, ACTOR, f"{type(error).__name__}: {error}", now())
            return
        again = State.QUEUED if job.attempts < bookkeeping.ATTEMPTS else State.FAILED
        bookkeeping.advance(at.books, job_id, ACTOR, again, f"{type(error).__name__}: {error}", now())
    except SoftTimeLimitExceeded:
        why = (
            f"not computed within {process.soft_time_limit} s; `dicomnode retry {job_id}` if the machine was overloaded"
        )
        log.error("%s", why)
        bookkeeping.advance(at.books, job_id, ACTOR, State.FAILED, why, now())
    except Exception as error:  # the task boundary: our own mistake fails this job and no other
        log.exception("job %s failed", job_id)
        bookkeeping.advance(at.books, job_id, ACTOR, State.FAILED, f"{type(error).__name__}: {error}", now())
    else:
        crashpoint("process.moved")
        wake_deliver(job_id)


@app.task(name="render", **PROCESS_LIMITS)
@logs.of_job
def render(job_id: str) -> None:
    """Write the captures at other ratios that are asked for of one job, by who holds its lease."""
    from dicomnode import exploratory  # the writer's own imports, in the worker only

    at = desk()
    job = bookkeeping.claim_sending(at.books, job_id, ACTOR, now())
    if job is None:
        return  # it is being sent; the sweep offers it again
    try:
        with held(at.books, job_id):
            for asked in bookkeeping.take_renderings(at.books, job_id, now()):
                _render(at, asked, partial(exploratory.run, asked, job, at.settings, at.books, at.spool))
    except (LeaseLost, bookkeeping.BooksAway):
        log.warning("captures of job %s were not finished; the sweep offers them again", job_id, exc_info=True)
    finally:
        bookkeeping.let_go(at.books, job_id, ACTOR)
    wake_deliver(job_id)


def _render(at: Desk, asked: bookkeeping.Rendering, write: Callable[[], int]) -> None:
    try:
        bookkeeping.note_rendered(at.books, asked, f"{write()} files written", now())
    except (LeaseLost, bookkeeping.BooksAway):
        raise
    except OSError:
        log.exception("captures of job %s cannot be written for the moment", asked.job)
    except Exception as error:  # the task boundary, as above
        log.exception("captures of job %s cannot be written", asked.job)
        bookkeeping.drop_rendering(at.books, asked, f"{type(error).__name__}: {error}", now())


@app.task(name="deliver", **DELIVER_LIMITS)
@logs.of_job
def deliver(job_id: str) -> None:
    """Send what is due of one job, if only the first files of it, and close it when all required is confirmed."""
    from dicomnode import delivery  # the sender's own imports, in the worker only

    at = desk()
    crashpoint("deliver.taken")
    names = permit.names(at.settings, at.books, now())
    job = bookkeeping.claim_sending(at.books, job_id, ACTOR, now()) or bookkeeping.being_written(at.books, job_id)
    if job is None:
        return
    crashpoint("deliver.claimed")
    try:
        if at.turns.has(job.lane, lambda: bookkeeping.stroke_waits(at.books, names, now())):
            with held(at.books, job_id):
                settings = permit.for_study(at.settings, at.books, job.study, now())
                delivery.run(job, settings, at.books, at.spool)
    except LeaseLost as lost:
        log.warning("%s", lost)
    except bookkeeping.BooksAway:
        log.exception("the books went away while job %s was sent", job_id)
    except Exception as error:  # the task boundary, as above
        log.exception("sending job %s failed", job_id)
        if job.state is State.SENDING:
            bookkeeping.advance(at.books, job_id, ACTOR, State.FAILED, f"{type(error).__name__}: {error}", now())
    finally:
        bookkeeping.let_go(at.books, job_id, ACTOR)


@contextmanager
def held(books: Books, job_id: str) -> Iterator[None]:
    """Extend the lease in the background while the block runs."""
    done, about = threading.Event(), logs.carried()

    def beat() -> None:
        about()
        while not done.wait(bookkeeping.HEARTBEAT.total_seconds()):
            try:
                if not bookkeeping.heartbeat(books, job_id, ACTOR, now()):
                    return
            except bookkeeping.BooksAway:
                log.warning("the books did not take a heartbeat of job %s; the next one follows", job_id)

    thread = threading.Thread(target=beat, name=f"heartbeat of {job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
