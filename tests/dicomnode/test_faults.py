"""Faults of the world around us, each with its outcome: what has stopped costs the time that it was away, no more."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydicom import Dataset
from sqlalchemy.engine import make_url

from dicomnode import bookkeeping, config, tasks
from dicomnode.bookkeeping import Books
from dicomnode.demo import free_port
from dicomnode.intake import Intake
from dicomnode.jobs import Lane, State
from dicomnode.scp import Listener
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.scp.peers import associate, eventually
from tests.dicomnode.workplace import running
from tests.proxy import Proxy
from tests.tools import missing, program

OUT_OF_RESOURCES = 0xA700


@pytest.fixture(scope="module")
def head() -> list[Dataset]:
    return phantom.head(phantom.even(12), matrix=64)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    mount = [program("mount"), "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("no small disk can be mounted here (mount needs root)")
    try:
        yield folder
    finally:
        subprocess.run([program("umount"), "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run([program("mount"), "-o", f"remount,{how}", str(folder)], check=True)


@contextmanager
def listening(data_dir: Path, books: Books) -> Iterator[Listener]:
    raw = {
        "node": {"data_dir": str(data_dir)},
        "listen": {"host": "127.0.0.1", "port": free_port(), "keep_free_gib": 0.0},
        "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}],
    }
    listener = Listener(config.parse(raw), Intake(books, Spool(data_dir).make()))
    listener.start()
    try:
        yield listener
    finally:
        listener.shutdown()


def stored(books: Books) -> set[str]:
    return {i.sop_instance_uid for series in bookkeeping.receiving(books) for i in series.instances}


def statuses(listener: Listener, series: list[Dataset]) -> list[int | None]:
    assoc = associate(listener)
    answers = [assoc.send_c_store(ds).get("Status") for ds in series]
    assoc.release()
    return answers


# The disk


def test_a_full_disk_refuses_what_it_cannot_keep_and_takes_it_when_there_is_room(tmp_path: Path, books: Books, head):
    with small_disk(tmp_path / "disk", 4) as disk, listening(disk / "data", books) as listener:
        assert statuses(listener, head[:1]) == [0x0000]
        ballast = disk / "ballast"
        with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert statuses(listener, head[1:3]) == [OUT_OF_RESOURCES] * 2
        assert stored(books) == {head[0].SOPInstanceUID}
        assert len(list((disk / "data" / "in").iterdir())) == 1
        assert list((disk / "data" / "tmp").iterdir()) == []
        ballast.unlink()
        assert statuses(listener, head) == [0x0000] * len(head)
        assert stored(books) == {ds.SOPInstanceUID for ds in head}


def test_a_read_only_disk_refuses_and_takes_again_when_it_is_mended(tmp_path: Path, books: Books, head):
    with small_disk(tmp_path / "disk", 8) as disk, listening(disk / "data", books) as listener:
        remount(disk, "ro")
        assert statuses(listener, head[:2]) == [OUT_OF_RESOURCES] * 2
        assert stored(books) == set()
        remount(disk, "rw")
        assert statuses(listener, head) == [0x0000] * len(head)


@pytest.mark.parametrize("shape", ["embedded"], indirect=True)
def test_embedded_books_and_broker_on_a_full_disk_wait_for_room(tmp_path: Path, shape: tuple[str, str]):
    """Nothing can be recorded or handed on; when there is room, the job is computed without a hand."""
    with small_disk(tmp_path / "disk", 4) as disk, running(disk, shape) as site:
        first = site.open("first", "compute")
        ballast = disk / "ballast"
        with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        site.workers.start("process.routine")
        for _ in range(10):
            tasks.wake_process(first, Lane.ROUTINE)
        time.sleep(3)
        ballast.unlink()
        site.workers.start("process.routine")  # as its supervisor does: a worker cannot begin on a full disk
        site.ended(first)
        assert site.state(first) is State.SENDING


# The database


@pytest.fixture
def proxied(books_url: str, books: Books) -> Iterator[tuple[Proxy, Books]]:
    """The books on PostgreSQL behind a connection that can be cut."""
    url = make_url(books_url)
    with Proxy(url.port or 5432).running() as proxy:
        seen = bookkeeping.open_books(url.set(port=proxy.port).render_as_string(hide_password=False))
        yield proxy, seen
        bookkeeping.close(seen)


@pytest.mark.parametrize("books_url", ["postgresql"], indirect=True)
def test_a_database_that_stops_refuses_instances_and_loses_none(tmp_path: Path, proxied, books: Books, head):
    proxy, seen = proxied
    with listening(tmp_path / "data", seen) as listener:
        assert statuses(listener, head[:4]) == [0x0000] * 4
        proxy.cut()
        assert statuses(listener, head[4:6]) == [OUT_OF_RESOURCES] * 2
        proxy.restore()
        assert statuses(listener, head[4:]) == [0x0000] * (len(head) - 4)
        assert stored(books) == {ds.SOPInstanceUID for ds in head}
        assert len(list((tmp_path / "data" / "in").iterdir())) == len(head)
        assert eventually(lambda: bookkeeping.receiving(books)[0].open_associations <= 1)


@pytest.mark.parametrize("books_url", ["postgresql"], indirect=True)
def test_a_database_that_does_not_answer_at_connection_is_away_within_seconds(proxied):
    proxy, seen = proxied
    proxy.hang()
    bookkeeping.close(seen)
    began = time.monotonic()
    with pytest.raises(bookkeeping.BooksAway):
        bookkeeping.counts(seen)
    assert time.monotonic() - began < 60


# The broker


@pytest.mark.parametrize("shape", ["servers", pytest.param("redis", marks=pytest.mark.slow)], indirect=True)
def test_a_broker_that_stops_costs_the_time_that_it_is_away(tmp_path: Path, shape: tuple[str, str]):
    """New jobs are recorded meanwhile; sweep and worker find their way back by themselves."""
    url = urlsplit(shape[1])
    with Proxy(url.port or 5672).running() as proxy:
        through = shape[1].replace(f":{url.port}", f":{proxy.port}")
        with running(tmp_path / "site", (shape[0], through)) as site:
            site.workers.start("process.routine")
            before = site.open("before", "compute")
            site.ended(before)
            proxy.cut()
            during = [site.open(f"during{n}", "compute") for n in range(3)]
            proxy.restore()
            after = site.open("after", "compute")
            site.ended(*during, after)
            assert {site.state(job) for job in (*during, after)} == {State.SENDING}
