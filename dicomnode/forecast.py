"""When will the disk be full? From free bytes seen a minute apart, whoever it is that fills it."""

import shutil
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

APART, WINDOW, ENOUGH = timedelta(minutes=1), timedelta(hours=24), timedelta(minutes=5)


@dataclass(slots=True)
class Forecast:
    """Free bytes of the spool's file system over time. keep_free: bytes at which receiving stops."""

    root: Path
    keep_free: int
    _seen: deque[tuple[datetime, int]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, now: datetime) -> int:
        """The free bytes now, remembered once a minute."""
        free = shutil.disk_usage(self.root).free
        with self._lock:
            if not self._seen or now - self._seen[-1][0] >= APART:
                self._seen.append((now, free))
            while now - self._seen[0][0] > WINDOW:
                self._seen.popleft()
        return free

    def hours_left(self, free: int, now: datetime) -> float | None:
        """Hours until nothing more is received at the rate seen; None before five minutes, infinite at no rate."""
        with self._lock:
            since, then = self._seen[0] if self._seen else (now, free)
        if now - since < ENOUGH:
            return None
        lost = then - free
        room = max(0, free - self.keep_free)
        return room / lost * (now - since).total_seconds() / 3600 if lost > 0 else float("inf")
