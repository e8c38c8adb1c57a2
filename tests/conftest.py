"""What many tests share: books in both shapes, a spool, settings, a clock that stands still."""

import atexit
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from functools import partial
from pathlib import Path
from tempfile import gettempdir

import hypothesis
import psycopg
import pytest
from kombu import Connection
from kombu.exceptions import KombuError
from sqlalchemy import Pool, create_engine, event, text
from sqlalchemy.exc import OperationalError
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from dicomnode import bookkeeping, config
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.spool import Spool
from dicomnode.tasks import QUEUES
from tests.tools import missing

# A busy neighbour is not a failure; PERFUSION_EXAMPLES=1000 looks longer.
EXAMPLES = int(os.environ.get("PERFUSION_EXAMPLES", "40"))
hypothesis.settings.register_profile("shared machine", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("shared machine")

POSTGRESQL = os.environ.get("PERFUSION_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
RABBITMQ = os.environ.get("PERFUSION_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("PERFUSION_TEST_REDIS", "redis://127.0.0.1:6379/15")
WALKS = ("walks", "viewers")  # folders of tests
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in WALKS)


class FewWalks(LoadFileScheduling):
    """File by file, but the walks in two heaps: each starts a node of ten processes, so only two go on at once."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path.split("/")[-2] not in WALKS:
            return path
        self.heaps = getattr(self, "heaps", {})
        return f"walks {self.heaps.setdefault(path, len(self.heaps) % 2)}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FewWalks:
    """What shares the tests among processes."""
    return FewWalks(config, log)


_opened: list[psycopg.Connection] = []


@event.listens_for(Pool, "connect")
def _remember(connection: object, _record: object) -> None:
    if isinstance(connection, psycopg.Connection):
        _opened.append(connection)


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/books.db"


@contextmanager
def postgresql(_: Path) -> Iterator[str]:
    """An empty database of this process."""
    name = f"perfusion_test_{os.getpid()}"
    admin = create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}"))
    except OperationalError as error:
        missing(f"no PostgreSQL at {POSTGRESQL}: {error.orig}")
    yield POSTGRESQL.rsplit("/", 1)[0] + f"/{name}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
    while _opened:  # a test may leave its engine to the collector, which would complain in the middle of another test
        _opened.pop().close()


@contextmanager
def migrated_sqlite(folder: Path) -> Iterator[str]:
    """What `bookkeeping.migrate` makes, copied from what it made first in this process."""
    first = Path(gettempdir()) / f"perfusion-books-{os.getpid()}.db"
    if not first.exists():
        bookkeeping.migrate(f"sqlite:///{first}")
        atexit.register(first.unlink)
    with sqlite(folder) as url:
        shutil.copy(first, folder / "books.db")
        yield url


@contextmanager
def migrated_postgresql(folder: Path) -> Iterator[str]:
    """What `bookkeeping.migrate` makes."""
    with postgresql(folder) as url:
        bookkeeping.migrate(url)
        yield url


@contextmanager
def embedded() -> Iterator[str]:
    yield ""


@contextmanager
def served(url: str) -> Iterator[str]:
    """A broker that all test processes share: one at a time, and emptied before and after."""
    with (Path(gettempdir()) / "perfusion-test-broker.lock").open("w") as lock, Connection(url) as connection:
        flock(lock, LOCK_EX)
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except (OSError, KombuError) as error:
            missing(f"no broker at {url}: {error}")
        for end in (False, True):
            for queue in QUEUES:
                with suppress(*connection.channel_errors), connection.channel() as channel:  # it may not exist yet
                    channel.queue_purge(queue)
            if not end:
                yield url


DATABASES = {"sqlite": sqlite, "postgresql": postgresql}
MIGRATED = {"sqlite": migrated_sqlite, "postgresql": migrated_postgresql}
BROKERS = {"filesystem": embedded, "rabbitmq": partial(served, RABBITMQ), "redis": partial(served, REDIS)}


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "data").make()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A node with one source and one destination on the loopback; nothing listens there."""
    raw = {
        "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"], "lane": "stroke"}],
        "destination": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}],
    }
    return config.parse(raw, folder=tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def books_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each shape, with the tables of this version where the test asks for books."""
    with (MIGRATED if "books" in request.fixturenames else DATABASES)[request.param](tmp_path) as url:
        yield url


@pytest.fixture(params=["filesystem", "rabbitmq", pytest.param("redis", marks=pytest.mark.slow)])
def broker_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty broker of each kind; empty for the embedded one."""
    with BROKERS[request.param]() as url:
        yield url


@pytest.fixture(params=["embedded", "servers", pytest.param("redis", marks=pytest.mark.slow)])
def shape(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URL of empty books and of an empty broker, as node.toml has them: both empty for the embedded default."""
    books, broker = {"embedded": ("", ""), "servers": ("postgresql", "rabbitmq"), "redis": ("postgresql", "redis")}[
        request.param
    ]
    with ExitStack() as stack:
        yield (
            stack.enter_context(DATABASES[books](tmp_path)) if books else "",
            stack.enter_context(BROKERS[broker]()) if broker else "",
        )


@pytest.fixture
def books(books_url: str) -> Iterator[Books]:
    try:
        opened = bookkeeping.open_books(books_url)
    except bookkeeping.BooksOutdated:  # of a test that has a database of its own
        bookkeeping.migrate(books_url)
        opened = bookkeeping.open_books(books_url)
    yield opened
    opened.kw["bind"].dispose()
