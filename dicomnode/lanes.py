"""Who goes first at the senders: strokes, and routine often enough."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from dicomnode.jobs import Lane

TURN = 30.0  # seconds; within so many a routine job has a turn, however many strokes wait


@dataclass(slots=True)
class Turns:
    """The turns at one sender. A job that makes room is offered again by the sweep.

    clock: monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    last: float = float("-inf")

    def has(self, lane: Lane, stroke_waits: Callable[[], bool]) -> bool:
        """True where a job of this lane may be sent now."""
        if lane is Lane.STROKE:
            return True
        now = self.clock()
        if now - self.last < TURN and stroke_waits():
            return False
        self.last = now
        return True
