"""What the disk no longer has to hold is removed: by age, and by space where it runs out. Never what is undelivered.

The mark in the books comes first and is committed, then the files go: after a crash in between, files lie there that
the books call removed, and the next start of the listener removes them. The other way round, the books would promise
files that are gone.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicomnode import bookkeeping
from dicomnode.bookkeeping import ACTOR, Books, Kind
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

PERIOD = 60.0  # seconds between two passes
BATCH = 10  # studies of one pass by age: a disk that syncs receives goes on receiving
YOUNGEST = timedelta(days=1)  # nothing newer is removed by itself: pages and late slices still come


@dataclass(frozen=True, slots=True)
class Keeper:
    """Removes what [retention] no longer wants kept. free: bytes of room on the spool's disk."""

    settings: Settings
    books: Books
    spool: Spool
    free: Callable[[], int]

    def run(self, stop: threading.Event) -> None:
        """Look now and then until told to stop."""
        while not stop.wait(PERIOD):
            try:
                self.once(datetime.now(UTC), stop)
            except Exception:  # an edge: the loop must outlive a database that is away
                log.exception("nothing could be removed; the next look follows")

    def once(self, now: datetime, stop: threading.Event | None = None) -> int:
        """One look: by age, then by space; how many studies lost files."""
        wanted = self.settings.retention
        removed = 0
        for kind, days in ((Kind.SOURCES, wanted.sources_days), (Kind.RESULTS, wanted.results_days)):
            if days:
                before, why = now - max(timedelta(days=days), YOUNGEST), f"older than {days:g} days"
                for study in bookkeeping.purgeable(self.books, kind, before, now, BATCH):
                    removed += not (stop and stop.is_set()) and self.remove(study, (kind,), before, why, now)
        if wanted.quarantine_days:
            self.spool.clear_quarantine((now - timedelta(days=wanted.quarantine_days)).timestamp())
        return removed + self._make_room(now, int(wanted.keep_free_gib * 2**30))

    def _make_room(self, now: datetime, keep_free: int) -> int:
        """Remove the oldest delivered studies until so much is free again."""
        before, removed = now - YOUNGEST, 0
        for kind in Kind:
            while self.free() < keep_free:
                oldest = bookkeeping.purgeable(self.books, kind, before, now, BATCH)
                done = [study for study in oldest if self.free() < keep_free and self._give_up(study, before, now)]
                removed += len(done)
                if not done:
                    break
        return removed

    def _give_up(self, study: str, before: datetime, now: datetime) -> bool:
        return self.remove(study, tuple(Kind), before, "the disk was running full", now)

    def remove(
        self, study: str, kinds: Collection[Kind], before: datetime, why: str, now: datetime, actor: str = ACTOR
    ) -> bool:
        """Remove these files of a study, unless something holds it by now; True where some were."""
        removal = bookkeeping.purge(self.books, study, kinds, before, why, now, actor)
        crashpoint("purge.recorded")
        if removal is None:
            return False
        for path in removal.paths:
            self.spool.path(path).unlink(missing_ok=True)
        for job_id in removal.jobs:
            self.spool.remove_results(job_id)
        return bool(removal.paths or removal.jobs)


def start(settings: Settings, books: Books, spool: Spool, stop: threading.Event) -> None:
    """Keep house in the background until told to stop."""
    keeper = Keeper(settings, books, spool, spool.free_bytes)
    threading.Thread(target=keeper.run, args=(stop,), daemon=True, name="retention").start()
