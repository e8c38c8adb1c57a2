"""Is the clock right? Compared with the database server's, and as the kernel knows it from its time service."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class _Timex(ctypes.Structure):
    """The head of struct timex of adjtimex(2), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """What is known of our clock. offset: seconds that it is ahead of the database server's; None of SQLite.

    synchronised: the kernel's word that a time service keeps it; no is also the answer where it cannot know, as in
    some containers. None where we may not ask, as in hardened units.
    """

    offset: float | None
    synchronised: bool | None


def look(books: Books, clock: Callable[[], datetime]) -> Clock:
    """Ask both; raises bookkeeping.BooksAway."""
    before = clock()
    theirs = bookkeeping.database_clock(books)
    after = clock()
    offset = None if theirs is None else (before + (after - before) / 2 - theirs).total_seconds()
    return Clock(offset, synchronised())


def synchronised() -> bool | None:
    """True where the kernel says that a time service keeps the clock, None where it does not say; asks only."""
    state = int(ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex())))
    return None if state == -1 else state != TIME_ERROR
