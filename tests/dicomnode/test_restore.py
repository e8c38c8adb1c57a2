"""The restore drill of the administrator's guide: books first, then the spool; what was undelivered is delivered."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import create_engine, text

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.intake import Intake
from dicomnode.jobs import Lane, State
from dicomnode.recovery import recover
from dicomnode.spool import Spool
from tests import phantom
from tests.conftest import POSTGRESQL
from tests.dicomnode.arrivals import arrive
from tests.dicomnode.deliveries import finished_job
from tests.dicomnode.test_delivery import run
from tests.pacs import Pacs
from tests.tools import program


def command(*words: str) -> None:
    subprocess.run([program(words[0]), *words[1:]], check=True, capture_output=True)


def back_up_books(url: str, backup: Path) -> None:
    """As the guide says, while the node runs."""
    if url.startswith("sqlite"):
        command("sqlite3", url.removeprefix("sqlite:///"), f".backup '{backup}'")
    else:
        command("pg_dump", "--format=custom", f"--file={backup}", url.replace("+psycopg", ""))


@contextmanager
def restored_books(url: str, backup: Path, folder: Path) -> Iterator[str]:
    """On a clean machine."""
    if url.startswith("sqlite"):
        command("cp", str(backup), str(folder / "books.db"))
        yield f"sqlite:///{folder}/books.db"
        return
    name = f"perfusion_restored_{os.getpid()}"
    admin = create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    clean = POSTGRESQL.rsplit("/", 1)[0] + f"/{name}"
    command("pg_restore", "--no-owner", f"--dbname={clean.replace('+psycopg', '')}", str(backup))
    yield clean
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_every_undelivered_study_is_delivered_after_a_restore(
    books: Books, books_url: str, spool: Spool, settings: Settings, tmp_path: Path, now: datetime
):
    job = finished_job(books, spool, now)
    (tmp_path / "backup").mkdir()
    back_up_books(books_url, tmp_path / "backup" / "books")
    late = phantom.head(phantom.even(12), matrix=16)[:2]
    arrive(Intake(books, spool), late, now, "A9")  # between the copy of the books and that of the spool
    command("cp", "-a", f"{spool.root}/in", f"{spool.root}/results", f"{spool.root}/quarantine", f"{tmp_path}/backup")
    command("rm", "-r", str(spool.root))

    clean = Spool(tmp_path / "clean").make()
    command("cp", "-a", *(f"{tmp_path}/backup/{name}" for name in ("in", "results", "quarantine")), str(clean.root))
    with restored_books(books_url, tmp_path / "backup" / "books", tmp_path / "clean") as url:
        bookkeeping.migrate(url)  # nothing to do, unless the version is newer than the backup
        again = bookkeeping.open_books(url)
        found = recover(again, clean, Lane.STROKE, now)
        assert found.recorded == 2  # what the books did not know yet
        assert bookkeeping.to_send(again, ["pacs"], now + timedelta(minutes=5)) == [job]
        with Pacs().running() as pacs:
            assert run(job, pacs, settings, again, clean, now + timedelta(minutes=5)) is State.DONE
        assert len(pacs.received) == 3
        assert bookkeeping.verify(again).broken == ""
        assert bookkeeping.find_studies(again, late[0].StudyInstanceUID)
        bookkeeping.close(again)
