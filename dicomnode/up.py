"""Everything in one process tree: start the services, start again what ends, stop them together."""

import ctypes
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode import config, notify

log = logging.getLogger(__name__)

# What a worker takes. One takes nothing but stroke, so that a routine series never keeps a stroke waiting.
WORKERS = {"stroke": "process.stroke", "routine": "process.stroke,process.routine", "deliver": "deliver"}
ROLES: tuple[tuple[str, ...], ...] = (
    ("listen",),
    ("sweep",),
    *(("work", "--queues", queues) for queues in WORKERS.values()),
)
PATIENCE = 10.0  # seconds a service has to end by itself
PAUSE = 1.0  # seconds before a service that ended is started again
LONGEST = 30.0  # seconds between two starts of a service that cannot
PR_SET_PDEATHSIG = 1
CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7), SCM_CREDENTIALS


class Ear:
    """Where the services of a tree report, as they would to systemd: its address, and when which process last did."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # Linux finds a free abstract address
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.address = "@" + self._socket.getsockname()[1:].decode()
        self._heard: dict[int, float] = {}
        threading.Thread(target=self._listen, name="ear", daemon=True).start()

    def _listen(self) -> None:
        while True:
            words, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
            for level, kind, content in extra:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid, user, _ = CREDENTIALS.unpack(content)
                    if user == os.getuid() and notify.ALIVE in words.decode().splitlines():
                        self._heard[pid] = time.monotonic()

    def has_heard(self, pid: int, within: float = math.inf) -> bool:
        """True where this process gave a sign of life, in the last so many seconds."""
        return time.monotonic() - self._heard.get(pid, -math.inf) < within


@dataclass(slots=True)
class Service:
    """A running service; falls: how often in a row it ended without a sign of life. again: when to start it again."""

    process: subprocess.Popen[bytes]
    falls: int = 0
    again: float | None = None

    def pause(self, lived: bool) -> float:
        """It has ended: seconds until it is started again, twice as many each time that it cannot even start."""
        self.falls = 0 if lived else self.falls + 1
        return min(LONGEST, PAUSE * 2 ** (self.falls - 1)) if self.falls else 0.0


@dataclass(slots=True)
class Tree:
    """The running services: those of ROLES, and more where the settings switch them on."""

    config_path: Path
    more: tuple[tuple[str, ...], ...] = ()
    running: dict[tuple[str, ...], Service] = field(default_factory=dict)
    ear: Ear = field(default_factory=Ear)

    def run(self, stop: threading.Event) -> None:
        """Keep every role running until told to stop; our own sign of life is that all of them give theirs."""
        pulse, fresh = notify.Pulse(), notify.fresh()
        for role in (*ROLES, *self.more):
            self.running[role] = Service(self._start(role))
        while not stop.wait(PAUSE):
            for role, service in self.running.items():
                if service.process.poll() is not None:
                    self._restart(role, service, time.monotonic())
            if all(self.ear.has_heard(service.process.pid, fresh) for service in self.running.values()):
                pulse.beat()
        notify.tell(notify.STOPPING)
        self._end()

    def _restart(self, role: tuple[str, ...], service: Service, now: float) -> None:
        if service.again is None:
            pause = service.pause(self.ear.has_heard(service.process.pid))
            service.again, code = now + pause, service.process.returncode
            log.error("%s ended with exit code %s; starting it again in %.0f s", " ".join(role), code, pause)
        if now >= service.again:
            service.process, service.again = self._start(role), None

    def _start(self, role: tuple[str, ...]) -> subprocess.Popen[bytes]:
        report = {notify.SOCKET: self.ear.address, notify.WATCHDOG: str(int(2e6 * notify.fresh()))}
        environment = {**os.environ, **report, config.ENVIRONMENT: str(self.config_path)}
        environment.pop(notify.ALIVE_FILE, None)  # it is ours, and says that all of them are alive
        return subprocess.Popen([sys.executable, "-m", "dicomnode", *role], env=environment, preexec_fn=end_with_parent)

    def _end(self) -> None:
        for service in self.running.values():
            service.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for service in self.running.values():
            try:
                service.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()


def end_with_parent() -> None:
    """Linux sends this process SIGTERM when its parent dies, so that no orphan keeps the port (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
