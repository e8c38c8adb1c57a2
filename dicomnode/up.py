"""Everything in one process tree: start the services, start again what ends, stop them together."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode import config

log = logging.getLogger(__name__)

# One worker takes nothing but stroke, so that a routine series never keeps a stroke waiting.
ROLES: tuple[tuple[str, ...], ...] = (
    ("listen",),
    ("sweep",),
    ("work", "--queues", "process.stroke"),
    ("work", "--queues", "process.stroke,process.routine"),
    ("work", "--queues", "deliver"),
)
PATIENCE = 10.0  # seconds a service has to end by itself
PAUSE = 1.0  # seconds before a service that ended is started again
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Tree:
    """The running services: those of ROLES, and more where the settings switch them on."""

    config_path: Path
    more: tuple[tuple[str, ...], ...] = ()
    running: dict[tuple[str, ...], subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Keep every role running until told to stop."""
        for role in (*ROLES, *self.more):
            self.running[role] = self._start(role)
        while not stop.wait(PAUSE):
            for role, process in list(self.running.items()):
                if process.poll() is not None:
                    log.error("%s ended with exit code %s; starting it again", " ".join(role), process.returncode)
                    self.running[role] = self._start(role)
        self._end()

    def _start(self, role: tuple[str, ...]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, config.ENVIRONMENT: str(self.config_path)}
        return subprocess.Popen([sys.executable, "-m", "dicomnode", *role], env=environment, preexec_fn=end_with_parent)

    def _end(self) -> None:
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def end_with_parent() -> None:
    """Linux sends this process SIGTERM when its parent dies, so that no orphan keeps the port (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
