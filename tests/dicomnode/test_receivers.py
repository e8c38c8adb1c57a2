"""dicomnode.receivers: several processes on one port, and what happens when one of them dies at the worst moment."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from dicomnode import bookkeeping, config, crashpoints
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.demo import free_port
from dicomnode.jobs import Lane
from dicomnode.receivers import Receivers
from dicomnode.recovery import recover
from dicomnode.scp.server import listening_socket
from dicomnode.spool import Spool
from dicomnode.up import stop_on_signals
from tests import phantom
from tests.dicomnode.arrivals import part10, peer
from tests.dicomnode.test_bookkeeping import received

RECEIVE = [name for name in crashpoints.POINTS if name.startswith("receive.")]


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(12), matrix=32)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    raw = {
        "listen": {"host": "127.0.0.1", "port": free_port(), "processes": 2, "keep_free_gib": 0.0},
        "source": [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}],
    }
    parsed = config.parse(raw, folder=tmp_path)
    bookkeeping.migrate(parsed.books_url)
    Spool(parsed.node.data_dir).make()
    return parsed


def serve(settings: Settings) -> None:
    Receivers(settings, listening_socket(settings.listen.host, settings.listen.port)).run(stop_on_signals())


@contextmanager
def running(settings: Settings) -> Iterator[int]:
    """What `dicomnode listen` does after start-up, in a process of its own; its process id."""
    process = multiprocessing.get_context("fork").Process(target=serve, args=(settings,))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while len(children(process.pid)) < settings.listen.processes and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.join(60)
        assert process.exitcode == 0
        process.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def send(settings: Settings, datasets) -> list[str]:
    """Send what one association takes; the UIDs of those that were acknowledged."""
    ae = AE("CT1")
    ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = 20
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", settings.listen.port, ae_title="DICOMNODE")
    acknowledged = []
    with suppress(RuntimeError):  # the association has gone
        for ds in datasets:
            if assoc.send_c_store(ds).get("Status") != 0x0000:
                break
            acknowledged.append(ds.SOPInstanceUID)
    if assoc.is_established:
        assoc.release()
    return acknowledged


def stored(settings: Settings) -> list[str]:
    """After a start-up: the UIDs in the books, each with its whole file, and no file besides."""
    books, spool = bookkeeping.open_books(settings.books_url), Spool(settings.node.data_dir)
    recover(books, spool, Lane.ROUTINE, datetime.now(UTC))
    instances = [i for series in bookkeeping.receiving(books) for i in series.instances]
    files = {i.path: str(dcmread(spool.path(i.path)).SOPInstanceUID) for i in instances}
    assert set(spool.received()) == set(files)
    assert list((spool.root / "tmp").iterdir()) == []
    bookkeeping.close(books)
    return sorted(files.values())


@pytest.mark.parametrize("point", RECEIVE)
def test_a_receiver_killed_at_any_point_loses_nothing_acknowledged_and_doubles_nothing(
    settings: Settings, head, point, monkeypatch
):
    monkeypatch.setenv(crashpoints.ENVIRONMENT, f"{point}@3")
    acknowledged: set[str] = set()
    with running(settings) as pid:
        begun = children(pid)
        deadline = time.monotonic() + 120
        while len(acknowledged) < len(head) and time.monotonic() < deadline:
            acknowledged.update(send(settings, [ds for ds in head if ds.SOPInstanceUID not in acknowledged]))
        assert children(pid) != begun, "no receiver was killed"
    assert len(acknowledged) == len(head)
    assert stored(settings) == sorted(ds.SOPInstanceUID for ds in head)


def test_recovery_that_is_killed_is_taken_up_again(settings: Settings, head, monkeypatch):
    spool = Spool(settings.node.data_dir)
    for ds in head[:3]:
        with spool.part() as part:
            part.write(part10(ds))
            part.keep()
    monkeypatch.setenv(crashpoints.ENVIRONMENT, "recover.filed@2")
    process = multiprocessing.get_context("fork").Process(target=stored, args=(settings,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.delenv(crashpoints.ENVIRONMENT)
    assert stored(settings) == sorted(ds.SOPInstanceUID for ds in head[:3])


def test_the_port_is_served_while_a_receiver_is_started_again(settings: Settings, head):
    with running(settings) as pid:
        first, second = children(pid)
        os.kill(first, signal.SIGKILL)
        assert len(send(settings, head)) == len(head)
        deadline = time.monotonic() + 60
        while len(set(children(pid)) - {first}) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second in children(pid)
        assert len(children(pid)) == 2
    assert len(stored(settings)) == len(head)


def test_a_receiver_releases_what_its_predecessor_left_open_and_nobody_elses(settings: Settings, now: datetime):
    books = bookkeeping.open_books(settings.books_url)
    for n, association in enumerate(("A-1", "B-2", "C-11")):
        bookkeeping.note_instance(books, received(n), peer(now, association), now)
    assert bookkeeping.release_all(books, now, "-1") == 1
    assert bookkeeping.receiving(books)[0].open_associations == 2
    bookkeeping.close(books)


def test_no_receiver_outlives_the_process_that_started_it(settings: Settings):
    process = multiprocessing.get_context("fork").Process(target=serve, args=(settings,))
    process.start()
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    left = children(process.pid)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_a_crash_point_is_nothing_unless_it_is_named(monkeypatch):
    for name in crashpoints.POINTS:
        crashpoint(name)
    monkeypatch.setenv(crashpoints.ENVIRONMENT, "another")
    crashpoints.arm()
    for name in crashpoints.POINTS:
        crashpoint(name)
    monkeypatch.undo()
    crashpoints.arm()
    with pytest.raises(KeyError):
        crashpoint("unlisted")
