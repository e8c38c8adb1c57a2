"""The migrations, up and down with rows in every table, on SQLite and PostgreSQL: what both versions have stays."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, DateTime, Integer, MetaData, Table, create_engine, inspect, select

from dicomnode import bookkeeping
from dicomnode.bookkeeping.store import _script
from dicomnode.bookkeeping.tables import Base
from tests.walks.node import Node, dicomnode

ROWS = 3
Contents = dict[str, list[dict[str, Any]]]
REVISIONS = [script.revision for script in _script("sqlite://").walk_revisions()][::-1]


def fill(connection: Connection, tables: MetaData) -> None:
    """Rows in each table that has none yet, referring to one another as the tables say."""
    for table in tables.sorted_tables:
        if table.name != "alembic_version" and not connection.execute(select(table)).first():
            connection.execute(table.insert(), [row(table, i) for i in range(ROWS)])


def row(table: Table, i: int) -> dict[str, Any]:
    return {column.name: value(table, column, i) for column in table.columns}


def value(table: Table, column, i: int) -> Any:
    for key in column.foreign_keys:
        if key.column.table is table:
            return None
        return value(key.column.table, key.column, i)
    if isinstance(column.type, Integer):
        return i + 1
    if isinstance(column.type, DateTime):
        return datetime(2026, 3, 2, 9, i)
    return f"{i}{column.name}"[:16]


def contents(url: str) -> Contents:
    """All rows of all tables, after a few have been put into those that were empty."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        fill(connection, tables)
        found = {
            table.name: [
                dict(each) for each in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }
    engine.dispose()
    return found


def lost(before: Contents, after: Contents) -> list[str]:
    """What stood in both versions' columns and is not the same any more."""
    wrong = []
    for name in before.keys() & after.keys():
        shared = before[name][0].keys() & after[name][0].keys()
        was, has = ([{key: each[key] for key in shared} for each in rows[name]] for rows in (before, after))
        if was != has:
            wrong.append(f"{name}: {was} became {has}")
    return wrong


def test_every_migration_keeps_what_is_there_up_and_down_and_up_again(books_url: str):
    here: Contents = {}
    for revision in (*REVISIONS, *REVISIONS[-2::-1], REVISIONS[-1]):
        bookkeeping.migrate(books_url, revision)
        there = contents(books_url)
        assert lost(here, there) == [], revision
        assert all(len(rows) == ROWS for name, rows in there.items() if name != "audit_head")
        here = there
    engine = bookkeeping.open_books(books_url).kw["bind"]
    for table in Base.metadata.sorted_tables:
        assert {c["name"] for c in inspect(engine).get_columns(table.name)} == {c.name for c in table.columns}
        assert {i["name"] for i in inspect(engine).get_indexes(table.name)} >= {i.name for i in table.indexes}
    engine.dispose()
    bookkeeping.migrate(books_url, "base")
    engine = create_engine(books_url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()


def test_the_books_of_an_older_version_are_not_opened_and_the_command_goes_both_ways(tmp_path: Path):
    node = Node.init(tmp_path, "--source", "CT1@192.0.2.10")
    node.books.kw["bind"].dispose()
    assert "at revision 0005" in dicomnode("migrate", "--to", "0005", cwd=tmp_path).stdout
    with pytest.raises(bookkeeping.BooksOutdated, match="at revision 0005"):
        bookkeeping.open_books(node.settings.books_url)
    dicomnode("migrate", cwd=tmp_path)
    bookkeeping.open_books(node.settings.books_url).kw["bind"].dispose()
    failed = dicomnode("migrate", "--to", "9999", cwd=tmp_path, check=False)
    assert (failed.returncode, "there is no revision 9999" in failed.stderr) == (2, True)
