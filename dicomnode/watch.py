"""`dicomnode status --watch`: the node on one screen, again and again; each time it reads little."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, BooksAway
from dicomnode.config import Settings
from dicomnode.forecast import Forecast
from dicomnode.jobs import Lane, State

PERIOD = 2.0  # seconds
A_DAY = timedelta(days=1)
WAITING = (State.QUEUED, State.PROCESSING, State.SENDING)
MOST = 8  # lines of a list


def run(settings: Settings, books: Books, console: Console) -> None:
    """Show the node until Ctrl-C."""
    forecast = Forecast(settings.node.data_dir, int(settings.listen.keep_free_gib * 2**30))
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                live.update(_screen(settings, books, forecast), refresh=True)
                time.sleep(PERIOD)
    except KeyboardInterrupt:
        return


def _screen(settings: Settings, books: Books, forecast: Forecast) -> RenderableType:
    now = datetime.now(UTC)
    try:
        return screenful(settings, books, forecast, now)
    except BooksAway:
        return Text(f"{now:%H:%M:%S} UTC  the books do not answer; see `dicomnode doctor`")


def screenful(settings: Settings, books: Books, forecast: Forecast, now: datetime) -> Group:
    """Everything at this moment; ids of ours and names of the settings, never a patient's. Raises BooksAway."""
    return Group(
        Text(f"{settings.node.ae_title}  {now:%Y-%m-%d %H:%M:%S} UTC  (Ctrl-C ends)", style="bold"),
        _table(("lane", *map(str, WAITING), "oldest"), _lanes(books, now)),
        _table(("process", "alive"), ((role, str(n)) for role, n in bookkeeping.alive(books, now).items())),
        _table(("destination", "on the way", "last confirmed", "away for"), _destinations(settings, books, now)),
        _table(("in 24 hours", "reason", "count"), _failures(books, now)),
        _table(("receiving: study", "instances", "quiet for"), _receiving(books, now)),
        _table(("alert", "about", "for"), _alerts(books, now)),
        Text(_times(books, now)),
        Text(_disk(forecast, now)),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in list(rows)[:MOST]:
        table.add_row(*map(Text, row))
    return Group(Text(""), table) if table.row_count else Text("")


def _lanes(books: Books, now: datetime) -> Iterable[Sequence[str]]:
    counted = {(lane, state): n for lane, state, n in bookkeeping.lanes(books)}
    oldest = bookkeeping.oldest_waiting(books)
    for lane in Lane:
        age = _age(now - oldest[lane][1]) if lane in oldest else "-"
        yield str(lane), *(str(counted.get((lane, state), 0)) for state in WAITING), age


def _destinations(settings: Settings, books: Books, now: datetime) -> Iterable[Sequence[str]]:
    waiting, confirmed = bookkeeping.open_deliveries(books), bookkeeping.confirmations(books)
    away = {absence.destination: _age(now - absence.since) for absence in bookkeeping.absences(books)}
    for name in (destination.name for destination in settings.destination):
        last = f"{_age(now - confirmed[name])} ago" if name in confirmed else "never"
        yield name, str(waiting.get(name, 0)), last, away.get(name, "-")


def _failures(books: Books, now: datetime) -> Iterable[Sequence[str]]:
    return ((state, code or "-", str(n)) for state, code, n in bookkeeping.failures(books, now - A_DAY))


def _receiving(books: Books, now: datetime) -> Iterable[Sequence[str]]:
    for series, study, _, count in bookkeeping.list_receiving(books, MOST):
        yield study, str(count), _age(now - series.last_received_at)


def _alerts(books: Books, now: datetime) -> Iterable[Sequence[str]]:
    return ((alert.kind, alert.subject, _age(now - alert.since)) for alert in bookkeeping.open_alerts(books))


def _times(books: Books, now: datetime) -> str:
    times = bookkeeping.door_to_map(books, now - A_DAY)
    p50, p95 = (bookkeeping.percentile(times, share) for share in (0.50, 0.95))
    told = f"half within {p50:.1f} s, 95 of 100 within {p95:.1f} s" if p50 and p95 else "none yet"
    return f"\nLast slice to last confirmation, {len(times)} jobs of 24 hours: {told}"


def _disk(forecast: Forecast, now: datetime) -> str:
    free = forecast.look(now)
    hours = forecast.hours_left(free, now)
    left = f", at this rate for {hours:.0f} h" if hours is not None and hours < 1000 else ""
    return f"Disk: {free / 2**30:.1f} GiB free{left}"


def _age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h"
