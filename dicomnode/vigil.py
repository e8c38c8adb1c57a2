"""A worker's signs of life: the loop of its main process turns, and so does Python in the process that computes."""

import mmap
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from dicomnode import notify


class Sign:
    """When a process was last alive, in memory that it shares with those it forks and that fork it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def give(self) -> None:
        """Now."""
        struct.pack_into("d", self._page, 0, time.monotonic())

    def is_fresh(self, seconds: float) -> bool:
        """True where it was given, and so many seconds ago at most."""
        at: float = struct.unpack_from("d", self._page)[0]
        return at > 0 and time.monotonic() - at <= seconds


@dataclass(slots=True)
class Vigil:
    """The signs of one worker. A computation that hangs while Python turns is ended by the time limit of its task."""

    computing: Sign = field(default_factory=Sign)
    loop: Sign = field(default_factory=Sign)

    def begin(self) -> None:
        """In the process that computes, once it is warm."""
        threading.Thread(target=self._turn, name="vigil", daemon=True).start()

    def keep(self, consumer: Any) -> None:
        """In the main process, once Celery's consumer has its broker: tell the service manager from now on."""
        threading.Thread(target=self._tell, args=(consumer,), name="vigil", daemon=True).start()

    def _turn(self) -> None:
        while True:
            self.computing.give()
            time.sleep(notify.fresh() / 8)

    def _tell(self, consumer: Any) -> None:
        pulse, fresh = notify.Pulse(), notify.fresh()
        while True:
            consumer.call_soon(self.loop.give)
            time.sleep(fresh / 8)
            # While the broker is away the loop stands still, and to start again would cost the job under way.
            if self.computing.is_fresh(fresh) and (consumer.connection is None or self.loop.is_fresh(fresh)):
                pulse.beat()
