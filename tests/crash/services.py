"""Processes under supervision, as systemd would have them: killed, they are started again (Restart=always)."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from dicomnode.demo import free_port
from tests.tools import missing
from tests.walks.node import wait_for

MARK = "PERFUSION_CRASH_SERVICE"  # in the environment of all that a service starts: what a control group is to systemd
RESTART_SEC, TIMEOUT_STOP_SEC = 2.0, 30.0  # systemd/perfusion-node.service
READY = 180.0  # seconds a server may take to answer


@dataclass
class Service:
    """One command, started again whenever it ends; what is left of it is ended first (KillMode=control-group)."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0
    _main: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _mark(self) -> str:
        return f"{MARK}={self.folder}/{self.name}"

    @contextmanager
    def running(self) -> Iterator["Service"]:
        """Supervised until the block ends; then everything of it has ended."""
        self._thread = threading.Thread(target=self._supervise, name=f"supervisor of {self.name}")
        self._thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """End it and all that belongs to it; nothing is started again."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def processes(self, *words: str) -> list[int]:
        """Process ids of all that belongs to it and has these words in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and self._owns(entry, words):
                found.append(int(entry.name))
        return sorted(found)

    def mains(self, *words: str) -> list[int]:
        """Those of them that were not forked from another of them."""
        found = self.processes(*words)
        return [pid for pid in found if parent_of(pid) not in found]

    def _owns(self, entry: Path, words: Sequence[str]) -> bool:
        try:
            if self._mark.encode() not in (entry / "environ").read_bytes().split(b"\0"):
                return False
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
        return bool(command) and all(word in command for word in words)  # a zombie has no command line

    def _supervise(self) -> None:
        environment = {**os.environ, **self.environment, MARK: f"{self.folder}/{self.name}"}
        while not self._stop.is_set():
            with self.log.open("ab") as log:
                self._main = subprocess.Popen(
                    self.command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            self.starts += 1
            while self._main.poll() is None and not self._stop.wait(0.05):
                pass
            self._end_all()
            self._stop.wait(RESTART_SEC)

    def _end_all(self) -> None:
        deadline = time.monotonic() + TIMEOUT_STOP_SEC
        if self._main and self._main.poll() is None:
            self._main.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._main.wait(TIMEOUT_STOP_SEC)
        _signal(self.processes(), signal.SIGTERM)
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        _signal(self.processes(), signal.SIGKILL)
        if self._main:
            self._main.wait()


def kill(pids: Sequence[int]) -> None:
    """SIGKILL, to all of them at once."""
    _signal(pids, signal.SIGKILL)


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def parent_of(pid: int) -> int | None:
    """Process id of the parent; None where the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def answers(port: int) -> bool:
    """Something listens on this port of the loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@contextmanager
def postgresql() -> Iterator[tuple[Service, str]]:
    """A PostgreSQL server of our own, with its SQLAlchemy URL; skips where it is not installed."""
    folder, port = Path(mkdtemp(prefix="perfusion-postgresql-")), free_port()
    binaries = _newest("/usr/lib/postgresql", "bin/postgres").parent
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    try:
        if user:  # PostgreSQL does not run as root
            shutil.chown(folder, "postgres", "postgres")
        initdb = [str(binaries / "initdb"), "--pgdata", str(folder / "books"), "--username=postgres", "--auth=trust"]
        more = ["--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*user, *initdb, *more], check=True, capture_output=True, cwd="/")
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", str(port)]
        command = [*user, str(binaries / "postgres"), "-D", str(folder / "books"), *listen]
        with Service("database", command, folder).running() as service:
            wait_for(lambda: answers(port), "PostgreSQL", READY)
            yield service, f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder)


@contextmanager
def rabbitmq() -> Iterator[tuple[Service, str]]:
    """A RabbitMQ server of our own, with its AMQP URL; skips where it is not installed."""
    folder, port = Path(mkdtemp(prefix="perfusion-rabbitmq-")), free_port()
    for name in ("env", "plugins", "rabbitmq.conf"):
        (folder / name).touch()
    (folder / "plugins").write_text("[].\n")
    environment = {
        "RUNNING_UNDER_SYSTEMD": "true",  # no shell around it
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"perfusion{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    command = [str(_newest("/usr/lib/rabbitmq", "bin/rabbitmq-server"))]
    try:
        with Service("broker", command, folder, environment).running() as service:
            wait_for(lambda: answers(port), "RabbitMQ", READY)
            yield service, f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        shutil.rmtree(folder)


def _newest(root: str, program: str) -> Path:
    found = sorted([*Path(root).glob(program), *Path(root).glob(f"*/{program}")])
    if not found:
        missing(f"no {program} under {root}; scripts/debian-packages.sh installs it")
    return found[-1]
