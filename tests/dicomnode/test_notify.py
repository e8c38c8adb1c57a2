"""dicomnode.notify: what services say to systemd, what it hands to them; each sign of life is of real progress."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from dicomnode import bookkeeping, config, notify
from dicomnode.demo import free_port
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import weights
from tests import phantom
from tests.dicomnode.manager import Manager, manager, stopped
from tests.dicomnode.workplace import running
from tests.walks.node import Node, wait_for


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def service(node: Node, *role: str, **options) -> Iterator[subprocess.Popen[bytes]]:
    with (node.folder / "service.log").open("ab") as log:
        command = [sys.executable, "-m", "dicomnode", *role]
        process = subprocess.Popen(command, cwd=node.folder, stdout=log, stderr=log, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.init(tmp_path / "node", "--source", "STORESCU@127.0.0.1")


@pytest.mark.parametrize("shape", ["path", "abstract"])
def test_ready_is_said_once_and_signs_of_life_not_too_often(tmp_path: Path, monkeypatch, shape: str):
    systemd = Manager(f"{tmp_path}/notify" if shape == "path" else f"@perfusion-test-{os.getpid()}", 3600)
    for key, value in systemd.environment.items():
        monkeypatch.setenv(key, value)
    pulse = notify.Pulse()
    for _ in range(5):
        pulse.beat()
    notify.tell(notify.STOPPING)
    wait_for(lambda: notify.STOPPING in systemd.heard, "the end")
    assert systemd.heard == [notify.READY, notify.ALIVE, notify.STOPPING]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/at/all"])
def test_without_a_service_manager_nothing_is_said_and_nothing_fails(monkeypatch, address: str):
    monkeypatch.setenv(notify.SOCKET, address)
    notify.tell(notify.READY)


def test_a_socket_meant_for_another_process_is_not_taken(monkeypatch):
    monkeypatch.setenv(notify.LISTEN_PID, str(os.getppid()))
    monkeypatch.setenv(notify.LISTEN_FDS, "1")
    assert notify.inherited_socket() is None
    assert notify.LISTEN_FDS not in os.environ


def test_secrets_come_from_the_environment_or_a_credential(tmp_path: Path, monkeypatch):
    (tmp_path / "node.toml").write_text('[books]\nurl = "sqlite:///in/the/file"\n')
    assert config.load(tmp_path / "node.toml").books_url == "sqlite:///in/the/file"
    (tmp_path / "DICOMNODE_BOOKS_URL").write_text("postgresql+psycopg://node:secret@db/books\n")
    (tmp_path / "DICOMNODE_BROKER_URL").write_text("amqp://node:secret@broker//\n")
    monkeypatch.setenv(notify.CREDENTIALS, str(tmp_path))
    settings = config.load(tmp_path / "node.toml")
    assert settings.books_url == "postgresql+psycopg://node:secret@db/books"
    assert settings.broker.url == "amqp://node:secret@broker//"
    monkeypatch.setenv("DICOMNODE_BOOKS_URL", "sqlite:///said/here")
    assert config.load(tmp_path / "node.toml").books_url == "sqlite:///said/here"


def test_the_listener_is_alive_while_every_receiver_accepts(node: Node, tmp_path: Path):
    with manager(tmp_path) as systemd, service(node, "listen", env={**os.environ, **systemd.environment}) as process:
        systemd.heard_first(notify.READY)
        assert node.listens()
        systemd.hears(notify.ALIVE)
        with stopped(children(process.pid)[-1]):
            systemd.hears_nothing()
        systemd.hears(notify.ALIVE)
        process.send_signal(signal.SIGTERM)
        systemd.hears_at_last(notify.STOPPING)
        assert process.wait(30) == 0


def test_the_sweep_is_alive_while_its_passes_are_completed(node: Node, tmp_path: Path, monkeypatch):
    with manager(tmp_path) as systemd:
        for key, value in systemd.environment.items():
            monkeypatch.setenv(key, value)
        stop, fails = threading.Event(), threading.Event()
        fails.set()
        once = Sweep.once

        def fragile(self, now):
            if fails.is_set():
                raise OSError("the disk is away")
            once(self, now)

        monkeypatch.setattr(Sweep, "once", fragile)
        spool, manifest = Spool(node.settings.node.data_dir), weights.read(weights.shipped())
        sweep = Sweep(node.settings, node.books, spool, manifest, lambda *_: None, lambda _: None)
        thread = threading.Thread(target=sweep.run, args=(stop,))
        thread.start()
        try:
            systemd.hears_nothing()
            assert systemd.heard == []
            fails.clear()
            systemd.hears(notify.ALIVE, 2)
            assert systemd.heard[0] == notify.READY
            fails.set()
            systemd.hears_nothing()
        finally:
            stop.set()
            thread.join()
        systemd.hears_at_last(notify.STOPPING)
        bookkeeping.close(node.books)


@pytest.mark.parametrize("broker_url", ["filesystem", pytest.param("rabbitmq", marks=pytest.mark.slow)], indirect=True)
def test_a_worker_is_alive_while_its_loop_and_its_computing_process_are(tmp_path: Path, broker_url: str):
    folder = tmp_path / "site"
    folder.mkdir()
    with running(folder, ("", broker_url)) as site, manager(tmp_path, 8.0) as systemd:
        environment = [f"{key}={value}" for key, value in systemd.environment.items()]
        worker = site.workers.start("process.routine", command=["env", *environment])
        systemd.heard_first(notify.READY)
        job = site.open("first", "wait 1")
        site.ended(job)
        systemd.hears(notify.ALIVE)
        (computing,) = children(worker.pid)[-1:]
        with stopped(computing):
            systemd.hears_nothing()
        systemd.hears(notify.ALIVE)
        with stopped(worker.pid):
            systemd.hears_nothing(after=0.5)  # nothing of it turns
        systemd.hears(notify.ALIVE)
        worker.terminate()
        systemd.hears_at_last(notify.STOPPING)


def test_the_web_service_is_alive_while_its_loop_turns(node: Node, tmp_path: Path):
    path = node.folder / "node.toml"
    path.write_text(path.read_text().replace("port = 8080", f"port = {free_port()}"))
    with manager(tmp_path) as systemd, service(node, "web", env={**os.environ, **systemd.environment}) as process:
        systemd.heard_first(notify.READY)
        systemd.hears(notify.ALIVE)
        with stopped(process.pid):
            systemd.hears_nothing(after=0.5)
        process.send_signal(signal.SIGTERM)
        systemd.hears_at_last(notify.STOPPING)


@pytest.mark.slow
def test_the_tree_is_alive_while_all_its_services_are(node: Node, tmp_path: Path):
    with manager(tmp_path, 20.0) as systemd, service(node, "up", env={**os.environ, **systemd.environment}):
        systemd.heard_first(notify.READY)
        assert node.listens()
        systemd.hears(notify.ALIVE)
        with stopped(node.processes("sweep")[0]):
            systemd.hears_nothing()
        systemd.hears(notify.ALIVE)


@contextmanager
def activated(node: Node, listening: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """`dicomnode listen` with the socket at descriptor 3, as systemd starts it."""
    command = ["sh", "-c", f"LISTEN_FDS=1 LISTEN_PID=$$ exec {sys.executable} -m dicomnode listen"]
    with (node.folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=node.folder,
            stdout=log,
            stderr=log,
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(listening.fileno(), 3),
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def store(node: Node, count: int) -> list[int]:
    """Statuses of C-STORE over one association; as many as were asked for only where it was accepted."""
    ae = AE("STORESCU")
    ae.acse_timeout = 100
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", node.settings.listen.port, ae_title="DICOMNODE")
    slices = phantom.head(phantom.even(count), matrix=32)
    statuses = [assoc.send_c_store(ds).Status for ds in slices] if assoc.is_established else []
    assoc.release()
    return statuses


def test_who_calls_while_the_listener_starts_again_is_served(node: Node):
    with socket.create_server(("127.0.0.1", node.settings.listen.port), backlog=128) as systemd:
        with activated(node, systemd):
            assert store(node, 2) == [0, 0]
        answers: list[list[int]] = []
        caller = threading.Thread(target=lambda: answers.append(store(node, 3)))
        caller.start()  # nobody accepts now
        with socket.create_connection(("127.0.0.1", node.settings.listen.port), timeout=5):
            pass
        assert answers == []
        with activated(node, systemd):
            caller.join(100)
    assert answers == [[0, 0, 0]]
    bookkeeping.close(node.books)


def test_a_socket_of_another_port_than_the_settings_name_is_refused_with_the_remedy(node: Node):
    with socket.create_server(("127.0.0.1", 0)) as systemd, activated(node, systemd) as process:
        assert process.wait(60) == 2
    assert "make them the same" in (node.folder / "service.log").read_text()
