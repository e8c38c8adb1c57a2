"""Opening the books, and the few habits every statement shares."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Executable, create_engine, event, insert, make_url, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from dicomnode.bookkeeping.tables import Base, History

Books = sessionmaker[Session]
BooksAway = DBAPIError  # the database did not answer; the caller refuses or retries, nothing is lost

INSERT: dict[str, Any] = {"sqlite": sqlite_insert, "postgresql": postgresql_insert}
# libpq: seconds to connect, and milliseconds until a server that acknowledges no byte any more counts as gone.
PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 15000, "keepalives_idle": 15, "keepalives_interval": 5}
COURTESY, GLANCE = 1.0, 0.0005  # seconds to wait for one's turn, and between two looks
ADDITION = insert(History)
ACTOR = f"{socket.gethostname()}:{os.getpid()}"


class BooksOutdated(Exception):
    """The tables are not those of this version of the node."""


def open_books(url: str) -> Books:
    """The books at this SQLAlchemy URL; raises BooksOutdated unless `migrate` has been run."""
    engine = _engine(url)
    with engine.connect() as connection:
        found, needed = _revision(connection), _script(url).get_current_head()
    if found != needed:
        engine.dispose()
        raise BooksOutdated(
            f"the books at {make_url(url).render_as_string()} are at revision {found}, this version needs {needed}; "
            "run `dicomnode migrate`"
        )
    return sessionmaker(engine, expire_on_commit=False)


def close(books: Books) -> None:
    """Let go of the connections; the next statement makes new ones. To be done before a fork."""
    books.kw["bind"].dispose()


def migrate(url: str, to: str = "head") -> None:
    """Bring the tables to this version, making them where there are none; or to another revision, up or down.

    Raises LookupError where there is no such revision.
    """
    database = make_url(url).database
    if url.startswith("sqlite") and database:
        Path(database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = _engine(url)
    with engine.connect() as connection:
        _begin_exclusively(connection)
        config = _alembic(url)
        config.attributes["connection"] = connection
        if _is_below(url, to, _revision(connection)):
            command.downgrade(config, to)
        else:
            command.upgrade(config, to)
        connection.commit()
    engine.dispose()


@contextmanager
def writing(books: Books) -> Iterator[Session]:
    """A transaction that may write: on SQLite it takes the one write lock at once, so it cannot fail half-way."""
    with books.begin() as session:
        _begin_exclusively(session.connection())
        yield session


@contextmanager
def writing_rows(books: Books) -> Iterator[Connection]:
    """The same past the ORM, for what is said so often that its session would cost more than the rows."""
    with books.kw["bind"].begin() as connection:
        _begin_exclusively(connection)
        yield connection


@contextmanager
def turn(books: Books) -> Iterator[None]:
    """Wait for one's turn among processes that write all the time.

    SQLite lets those who wait sleep for up to 100 ms at a time; here the next one begins half a millisecond later.
    It is a courtesy: what keeps transactions apart is SQLite's own lock, so nobody waits here for ever.
    """
    url = books.kw["bind"].url
    if url.get_backend_name() != "sqlite" or not url.database:
        yield
        return
    descriptor = os.open(f"{url.database}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + COURTESY
        while not _is_mine(descriptor) and time.monotonic() < deadline:
            time.sleep(GLANCE)
        yield
    finally:
        os.close(descriptor)


def _is_mine(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def reading(books: Books) -> Iterator[Session]:
    """A session that only reads."""
    with books() as session:
        yield session


def add(to: Session | Connection, table: type[Base], returning: Any, **values: Any) -> Any:
    """Insert a row unless it stands there already; a column of it if it is new, else None. One atomic statement."""
    connection = connection_of(to)
    return connection.scalar(_insertion(connection.dialect.name, table, returning), values)


@cache
def _insertion(dialect: str, table: type[Base], returning: Any) -> Executable:
    insertion: Executable = INSERT[dialect](table.__table__).on_conflict_do_nothing().returning(returning)
    return insertion


def connection_of(to: Session | Connection) -> Connection:
    """The connection that a transaction goes over."""
    return to if isinstance(to, Connection) else to.connection()


def note(
    to: Session | Connection,
    subject: str,
    subject_id: str,
    at: datetime,
    before: object,
    after: object,
    why: str,
    actor: str = ACTOR,
) -> None:
    """Add one line to the history; actor: the account of a person, else this process."""
    states = {"before": None if before is None else str(before), "after": str(after)}
    connection_of(to).execute(
        ADDITION, {"subject": subject, "subject_id": subject_id, "at": at, **states, "why": why, "actor": actor}
    )


def _engine(url: str) -> Engine:
    server = make_url(url).get_backend_name() == "postgresql"
    # hide_parameters: errors reach the log, patients must not. A file does not go away between two statements.
    engine = create_engine(url, pool_pre_ping=server, hide_parameters=True, connect_args=PATIENCE if server else {})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `writing` says, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=15000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_exclusively(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.execute(text("BEGIN IMMEDIATE"))


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def _script(url: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic(url))


def _is_below(url: str, to: str, found: str | None) -> bool:
    order = [script.revision for script in _script(url).walk_revisions()][::-1]
    if to not in ("head", "base", *order):
        raise LookupError(f"there is no revision {to}; there are {', '.join(order)}")
    if to in ("head", "base") or found is None:
        return to == "base" and found is not None
    return order.index(to) < order.index(found)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
