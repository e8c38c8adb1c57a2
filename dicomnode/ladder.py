"""What a destination is sent in place of what it refuses: one table, stepped down until a secondary capture stands.

Captures are the last step and have none below them: a destination that refuses those has got nothing, and the job fails
loudly. Each step is recorded; nothing is dropped in silence.
"""

from collections.abc import Iterable

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books
from dicomnode.config import Destination

LADDER: dict[str, tuple[str, ...]] = {  # kind of object -> what may stand in for it, the best first
    "pm": ("ct", "sc"),
    "ct": ("sc",),
    "seg": ("mosaic", "sc"),
    "sr": ("sr-comprehensive", "mosaic", "sc"),
    "sr-comprehensive": ("mosaic", "sc"),
    "pdf": ("mosaic", "sc"),
    "mosaic": ("sc",),
}
UNASKED = frozenset({"sc", "sr-comprehensive"})  # stand in wherever they can: they show no more than was asked for


def steps(destination: Destination) -> dict[str, tuple[str, ...]]:
    """The ladder of one destination: only what it may be sent."""
    allowed = UNASKED.union(destination.stand_ins, destination.objects)
    return {kind: tuple(step for step in below if step in allowed) for kind, below in LADDER.items()}


def stand_ins(books: Books, destinations: Iterable[Destination]) -> frozenset[str]:
    """The kinds to be made in case that a destination refuses what it is to get.

    What a destination took of the job before it will take again, so nothing stands in for that.
    """
    wanted: set[str] = set()
    for destination in destinations:
        taken, below = bookkeeping.taken(books, destination.name), steps(destination)
        wanted.update(step for kind in destination.objects if kind not in taken for step in below.get(kind, ()))
    return frozenset(wanted)
