"""What many tests share: books in both shapes, a spool, settings, a clock that stands still."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from dicomnode import bookkeeping, config
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.spool import Spool
from tests.tools import missing

hypothesis.settings.register_profile("shared machine", deadline=None)  # a busy neighbour is not a failure
hypothesis.settings.load_profile("shared machine")

POSTGRESQL = os.environ.get("PERFUSION_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


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
    """An empty database of each shape."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/books.db"
        return
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


@pytest.fixture
def books(books_url: str) -> Iterator[Books]:
    bookkeeping.migrate(books_url)
    opened = bookkeeping.open_books(books_url)
    yield opened
    opened.kw["bind"].dispose()
