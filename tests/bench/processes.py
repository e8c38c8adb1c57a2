"""What running processes cost, read from /proc (proc(5)), so that no library has to be installed for it."""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
USER_AND_SYSTEM = slice(11, 15)  # of the fields after the command's name: own seconds, and those of ended children


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(task).split():
            found += tree(int(child))
    return found


def cpu(pid: int) -> float:
    """Seconds of user and system time of a process tree."""
    return sum(map(_cpu, tree(pid)))


def memory(pid: int) -> float:
    """Megabytes of a process tree, what processes share counted once (PSS)."""
    return sum(map(_pss, tree(pid)))


def _cpu(pid: int) -> float:
    stat = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, stat[USER_AND_SYSTEM])) / TICK


def _pss(pid: int) -> float:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile


@dataclass
class Watch:
    """Watches a process tree while the `with` block runs: seconds of its time, its peak of memory, the wall clock."""

    pid: int
    seconds: float = 0.0
    wall: float = 0.0
    peak: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self.seconds, self.wall = cpu(self.pid), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.seconds = cpu(self.pid) - self.seconds
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.is_set():
            self.peak = max(self.peak, memory(self.pid))
            self._done.wait(0.25)
