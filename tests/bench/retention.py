"""What the sweep and the removal of old files ask the books, with many instances in them, on SQLite and PostgreSQL.

`DICOMNODE_BENCH_INSTANCES` says how many, fifty to a study; without it a million.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import text

from dicomnode import audit, bookkeeping, config
from dicomnode.audit import Who
from dicomnode.bookkeeping import Books, Kind
from dicomnode.jobs import Lane
from dicomnode.pages import TOLD
from tests.bench.pages import SHAPES, fill, node
from tests.bench.table import markdown

INSTANCES = int(os.environ.get("DICOMNODE_BENCH_INSTANCES", "1000000"))
JOBS = INSTANCES // 50
PURGED, MESSAGES = 20, 2000


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Fill the books of each shape, and ask."""
    say(f"# The sweep and the removal: {INSTANCES:,} instances, {JOBS:,} jobs\n")
    for shape, place in SHAPES.items():
        with place(folder / shape) as (home, url):
            settings = config.load(node(home, url))
            fill(settings, INSTANCES, JOBS)
            books = bookkeeping.open_books(settings.books_url)
            say(f"{shape}\n\n{measure(books, rounds)}\n")
            bookkeeping.close(books)


def measure(books: Books, rounds: int) -> str:
    now = datetime.now(UTC)
    never, all_but_today = now - timedelta(days=4000), now - timedelta(days=1)
    asked: dict[str, Callable[[], object]] = {
        "one sweep": lambda: sweep(books, datetime.now(UTC)),
        "sources to remove, none is old enough": lambda: bookkeeping.purgeable(books, Kind.SOURCES, never, now, 10),
        "results to remove, none is old enough": lambda: bookkeeping.purgeable(books, Kind.RESULTS, never, now, 10),
        "the ten oldest sources to remove": lambda: bookkeeping.purgeable(books, Kind.SOURCES, all_but_today, now, 10),
        "the ten oldest results to remove": lambda: bookkeeping.purgeable(books, Kind.RESULTS, all_but_today, now, 10),
    }
    rows = [(name, *times([ask] * rounds * 4)) for name, ask in asked.items()]
    due = bookkeeping.purgeable(books, Kind.SOURCES, all_but_today, now, PURGED)
    purges = [lambda uid=uid: bookkeeping.purge(books, uid, tuple(Kind), all_but_today, "age", now) for uid in due]
    rows.append(("one study marked as removed", *times(purges)))
    with bookkeeping.store.writing(books) as session:
        session.execute(text("DELETE FROM audit"))
        session.execute(text("UPDATE audit_head SET events = 0, hash = :none"), {"none": "0" * 64})
    message = audit.log_used(Who("bench"))
    rows.append(
        ("one message of the audit trail", *times([lambda: bookkeeping.record(books, message, now)] * MESSAGES))
    )
    rows.append((f"{MESSAGES} messages verified", *times([lambda: bookkeeping.verify(books)] * 3)))
    return markdown(("asked", "median ms", "longest ms"), rows)


def sweep(books: Books, now: datetime) -> None:
    """The statements of one sweep that finds nothing to judge."""
    bookkeeping.receiving(books)
    bookkeeping.without_maps(books, TOLD, now - timedelta(seconds=60), now)
    bookkeeping.reap(books, now)
    for lane in Lane:
        bookkeeping.unclaimed(books, lane, now)
    bookkeeping.to_send(books, ["pacs"], now)


def times(asks: list[Callable[[], object]]) -> tuple[str, str]:
    """Median and longest, in milliseconds."""
    found = []
    for ask in asks:
        begun = time.perf_counter()
        ask()
        found.append((time.perf_counter() - begun) * 1000)
    return f"{median(found):.1f}", f"{max(found):.1f}"
