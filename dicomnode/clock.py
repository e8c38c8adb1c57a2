"""Has somebody set the clock? The books hold moments; leases and waits must survive a clock that jumps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

TOLERANCE = 2.0  # seconds; what time services correct slowly stays far below


@dataclass(slots=True)
class Watch:
    """Compares the clock with the time that has passed. monotonic: seconds, which nobody can set.

    A machine that slept has passed no time, so that for us its clock has jumped forward: its workers slept too.
    """

    monotonic: Callable[[], float] = time.monotonic
    _last: tuple[datetime, float] | None = field(default=None)

    def jump(self, now: datetime) -> float:
        """Seconds by which the clock has been set since it was last asked: forward above 0, back below; mostly 0."""
        passed, last = self.monotonic(), self._last
        self._last = now, passed
        if last is None:
            return 0.0
        jump = (now - last[0]).total_seconds() - (passed - last[1])
        return jump if abs(jump) > TOLERANCE else 0.0
