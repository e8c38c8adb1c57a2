"""What comes often is told once in a while, with how often it came."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

OTHERS = ("others",)  # stands for whatever is new in a period that has brought too much


@dataclass(slots=True)
class Lately:
    """Which keys were told within the last period. most: keys of one period, so that strangers cannot fill a table."""

    period: timedelta
    most: int = 100
    _told: dict[Hashable, tuple[datetime, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, key: Hashable, now: datetime) -> int:
        """How often the key has come since it was told; 0 where it was told within the period, and is now counted."""
        with self._lock:
            if key not in self._told and len(self._told) >= self.most:
                self._forget(now)
                key = key if len(self._told) < self.most else OTHERS
            told, count = self._told.get(key, (None, 0))
            if told is not None and told <= now < told + self.period:
                self._told[key] = told, count + 1
                return 0
            self._told[key] = now, 0
            return count + 1

    def _forget(self, now: datetime) -> None:
        self._told = {key: seen for key, seen in self._told.items() if seen[0] <= now < seen[0] + self.period}
