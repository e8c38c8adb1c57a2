"""Room on the disk: receiving stops before the results of what has been received no longer fit."""

import errno
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

RESERVE = 4  # the file given up to make room is this part of what is to stay free


class NoRoom(OSError):
    """The disk is too full to receive more."""


@dataclass(slots=True)
class Room:
    """The free bytes of the spool's file system, and a file that is given up when they run out.

    keep_free: bytes; below them nothing is received.
    """

    root: Path
    keep_free: int
    _full: bool = field(default=False)

    def check(self) -> None:
        """Raise NoRoom where an instance must be refused before it is read; the log tells when that begins and ends."""
        free = shutil.disk_usage(self.root).free
        full = free < self.keep_free
        if full != self._full:
            self._full = full
            words = "too little: instances are refused with 0xA700" if full else "enough again"
            log.error("%.2f GiB free, %.2f GiB must stay free: %s", free / 2**30, self.keep_free / 2**30, words)
        if full:
            raise NoRoom(errno.ENOSPC, "the disk is too full to receive more")

    def look_after_reserve(self) -> None:
        """Give the reserve up where the disk is all but full, make it again where there is room."""
        reserve, size = self.root / "reserve", self.keep_free // RESERVE
        free = shutil.disk_usage(self.root).free
        if free < size and reserve.exists():
            reserve.unlink()
            log.error("the disk is all but full: %s is given up, so that results can still be written", reserve.name)
        elif size and free > self.keep_free + 2 * size and not reserve.exists():
            _allocate(reserve, size)


def _allocate(path: Path, size: int) -> None:
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        part.replace(path)
    except OSError as error:
        part.unlink()
        log.warning("no reserve could be made: %s", error.strerror)
    finally:
        os.close(descriptor)
