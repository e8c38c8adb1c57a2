"""A node in one of its two shapes with all that it needs, under supervision and under load."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select

from dicomnode import bookkeeping, config, crashpoints
from dicomnode.bookkeeping import Books, BooksAway
from dicomnode.bookkeeping.tables import Commitment, History, Job, Series
from dicomnode.config import Settings
from dicomnode.jobs import SeriesState, State
from tests.crash import pacs
from tests.crash.senders import Scanner
from tests.crash.services import READY, Service, answers, postgresql, rabbitmq
from tests.walks.node import Node, wait_for

SHAPES = ("SQLite + filesystem", "PostgreSQL + RabbitMQ")
SCANNERS = 4
ENDED = (State.DONE, State.REJECTED, State.FAILED)


@dataclass
class Stage:
    """Everything that runs.

    orders: a folder of crash points to be taken. services: by name; "node" is ours. backlog: heads that it may have on
    their way.
    """

    shape: str
    settings: Settings
    books: Books
    orders: Path
    services: Mapping[str, Service]
    scanners: list[Scanner]
    taken_by_pacs: Path
    backlog: int

    @property
    def node(self) -> Service:
        return self.services["node"]

    def wants_head(self) -> bool:
        """True where the node has room for another head."""
        try:
            return len(self.unfinished()) < self.backlog
        except BooksAway:
            return False

    def unfinished(self) -> list[tuple[str, State, int]]:
        """Id, state and attempts of the jobs that have not ended."""
        with self.books() as session:
            rows = session.execute(select(Job.id, Job.state, Job.attempts).where(Job.state.not_in(ENDED)))
            return [(job_id, state, attempts) for job_id, state, attempts in rows]

    def at_rest(self) -> bool:
        """Nothing is received, computed, sent or asked for any more."""
        try:
            with self.books() as session:
                open_series = select(func.count()).where(Series.state == SeriesState.RECEIVING)
                asked = select(func.count()).where(Commitment.answered_at.is_(None))
                busy = [session.scalar(open_series), session.scalar(asked)]
        except BooksAway:
            return False
        return not any(busy) and not self.unfinished()

    def last(self, subject: str, after: str) -> datetime:
        """When something last came to this state."""
        with self.books() as session:
            moment = select(func.max(History.at)).where(History.subject == subject, History.after == after)
            return session.scalar(moment) or datetime.min.replace(tzinfo=UTC)


@contextmanager
def stage(shape: str, folder: Path, backlog: int) -> Iterator[Stage]:
    """A running node of this shape with its PACS; nothing is sent yet."""
    folder.mkdir()
    orders = folder / "orders"
    orders.mkdir()
    with ExitStack() as stack:
        port, taken = stack.enter_context(pacs.running(folder))
        services, urls = {}, {}
        if shape != SHAPES[0]:
            services["database"], urls["books"] = stack.enter_context(postgresql())
            services["broker"], urls["broker"] = stack.enter_context(rabbitmq())
        node = Node.init(
            folder / "node",
            *(word for n in range(SCANNERS) for word in ("--source", f"SCANNER{n}@127.0.0.1")),
            *("--destination", f"PACS@127.0.0.1:{port}"),
            **urls,
        )
        found = Stage(shape, node.settings, node.books, orders, services, [], taken, backlog)
        found.scanners = [Scanner(f"SCANNER{n}", node.settings.listen.port, found.wants_head) for n in range(SCANNERS)]
        path = node.folder / "node.toml"
        path.write_text(adapted(path.read_text(), found.scanners))
        environment = {crashpoints.ENVIRONMENT: str(orders), config.ENVIRONMENT: str(path)}
        command = [sys.executable, "-m", "dicomnode", "up"]
        services["node"] = stack.enter_context(Service("node", command, node.folder, environment).running())
        wait_for(lambda: answers(node.settings.listen.port), "the listener", READY)
        stack.callback(bookkeeping.close, node.books)
        yield found


def adapted(toml: str, scanners: list[Scanner]) -> str:
    """Small weights, a short quiet time, patience with heads in pieces, two lanes, ports for commitment reports."""
    for scanner in scanners:
        toml = toml.replace("commitment_port = 0\n", f"commitment_port = {scanner.commitment_port}\n", 1)
    for old, new in (
        ('weights = ""', 'weights = "ncct-untrained"'),
        ("quiet_seconds = 2.0", "quiet_seconds = 0.5"),
        ("give_up_seconds = 60.0", "give_up_seconds = 3600.0"),
        ("keep_free_gib = 1.0", "keep_free_gib = 0.0"),
    ):
        assert toml.count(old) == 1, f"node.toml has no line {old}"
        toml = toml.replace(old, new)
    head, *rest = toml.split('lane = "stroke"')
    lanes = ['lane = "stroke"', 'lane = "routine"']
    return head + "".join(lanes[n % 2] + part for n, part in enumerate(rest))
