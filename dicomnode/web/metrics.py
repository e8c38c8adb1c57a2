"""What Prometheus reads: figures from the books, so that all processes are in them, and no word of a patient."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dicomnode import __version__, bookkeeping, certificates, timekeeping
from dicomnode.bookkeeping import Tally, Visitor
from dicomnode.jobs import Lane
from dicomnode.roles import Right
from dicomnode.web.gate import may
from dicomnode.web.site import Site, site_of

router = APIRouter()

A_DAY = timedelta(days=1)
APART = 5.0  # seconds; who asks more often gets the same answer again
QUANTILES = (0.5, 0.95)
NAME = "dicomnode_"

Values = Iterator[tuple[tuple[str, ...], float]]  # label values, and the figure


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: its name, what it says, the names of its labels, and where its values come from."""

    name: str
    says: str
    labels: tuple[str, ...]
    ask: Callable[["Metrics", datetime], Values]
    counts: bool = False


@dataclass(slots=True)
class Metrics(Collector):
    """The figures of one node, asked for at most every few seconds."""

    site: Site
    tally: Tally = field(default_factory=Tally)
    _kept: tuple[float, bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> bytes:
        """The answer, in Prometheus' text format; raises bookkeeping.BooksAway."""
        with self._lock:
            now = time.monotonic()
            if self._kept is None or now - self._kept[0] >= APART:
                self._kept = now, generate_latest(self)
            return self._kept[1]

    def collect(self) -> Iterator[Metric]:
        """Every figure once."""
        now = self.site.clock()
        for figure in FIGURES:
            kind = CounterMetricFamily if figure.counts else GaugeMetricFamily
            metric = kind(NAME + figure.name, figure.says, labels=figure.labels)
            for labels, value in figure.ask(self, now):
                metric.add_metric(labels, value)
            yield metric


@router.get("/metrics", summary="Figures for Prometheus")
def metrics(request: Request, _: Annotated[Visitor, Depends(may(Right.METRICS))]) -> Response:
    """Never without a token: behind a proxy every stranger comes from the loopback."""
    app = request.app
    if not hasattr(app.state, "metrics"):
        app.state.metrics = Metrics(site_of(request))
    return Response(app.state.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _refused(of: Metrics, now: datetime) -> Values:
    books, since = of.site.books, now - A_DAY
    for state, code, n in bookkeeping.failures(books, since):
        yield ("series" if state == "REFUSED" else "job", code or "failed"), n
    at_the_door: dict[tuple[str, ...], int] = {}
    for subject in ("association", "instance"):
        for code, _, n, _ in bookkeeping.refusals(books, subject, since):
            at_the_door[subject, code] = at_the_door.get((subject, code), 0) + n
    yield from at_the_door.items()


def _waiting(of: Metrics, now: datetime) -> Values:
    first = bookkeeping.oldest_waiting(of.site.books)
    for lane in Lane:
        yield (lane,), (now - first[lane][1]).total_seconds() if lane in first else 0.0


def _timed(of: Metrics, now: datetime) -> Values:
    times = bookkeeping.door_to_map(of.site.books, now - A_DAY)
    for share in QUANTILES:
        value = bookkeeping.percentile(times, share)
        if value is not None:
            yield (str(share),), value


def _absent(of: Metrics, now: datetime) -> Values:
    since = {absence.destination: absence.since for absence in bookkeeping.absences(of.site.books)}
    for destination in of.site.settings.destination:
        away = since.get(destination.name)
        yield (destination.name,), (now - away).total_seconds() if away else 0.0


def _confirmed(of: Metrics, _: datetime) -> Values:
    for destination, at in bookkeeping.confirmations(of.site.books).items():
        yield (destination,), at.timestamp()


def _hours(of: Metrics, now: datetime) -> Values:
    hours = of.site.forecast.hours_left(of.site.forecast.look(now), now)
    if hours is not None:
        yield (), hours


def _drift(of: Metrics, _: datetime) -> Values:
    offset = timekeeping.look(of.site.books, of.site.clock).offset
    if offset is not None:
        yield (), offset


FIGURES: tuple[Figure, ...] = (
    Figure("info", "The version that runs", ("version",), lambda of, now: iter([((__version__,), 1.0)])),
    Figure(
        "instances_received",
        "Instances received and kept",
        (),
        lambda of, now: iter([((), of.tally.count(of.site.books))]),
        counts=True,
    ),
    Figure(
        "associations_open",
        "Associations that bring instances",
        (),
        lambda of, now: iter([((), bookkeeping.open_associations(of.site.books))]),
    ),
    Figure("refusals_last_day", "What was refused or failed in 24 hours", ("what", "reason_code"), _refused),
    Figure(
        "jobs",
        "Jobs by lane and state",
        ("lane", "state"),
        lambda of, now: (((str(la), str(st)), n) for la, st, n in bookkeeping.jobs_by_state(of.site.books)),
    ),
    Figure("oldest_waiting_seconds", "Age of the oldest job that is not done; 0 where none waits", ("lane",), _waiting),
    Figure(
        "last_slice_to_confirmed_seconds",
        "From the last slice to the last confirmation, jobs done in 24 hours",
        ("quantile",),
        _timed,
    ),
    Figure(
        "deliveries",
        "Files on their way or come to nothing; confirmed ones are not counted",
        ("destination", "state"),
        lambda of, now: (((where, str(st)), n) for where, st, n in bookkeeping.deliveries_by_state(of.site.books)),
    ),
    Figure(
        "destination_absent_seconds", "Since when a destination is away; 0 where it is not", ("destination",), _absent
    ),
    Figure("destination_confirmed_timestamp_seconds", "Its last confirmation", ("destination",), _confirmed),
    Figure(
        "processes_alive",
        "Processes that gave a sign of life a moment ago",
        ("role",),
        lambda of, now: (((role,), n) for role, n in bookkeeping.alive(of.site.books, now).items()),
    ),
    Figure("disk_free_bytes", "Free bytes of the spool", (), lambda of, now: iter([((), of.site.forecast.look(now))])),
    Figure("disk_hours_left", "Hours until nothing more is received, at the rate seen", (), _hours),
    Figure(
        "certificate_days",
        "Days until a certificate ends; negative where it is no use",
        ("section",),
        lambda of, now: (((c.section,), c.days(now)) for c in certificates.configured(of.site.settings)),
    ),
    Figure("clock_offset_seconds", "Seconds that our clock is ahead of the database server's", (), _drift),
    Figure(
        "clock_synchronised",
        "1 where the kernel says that a time service keeps the clock; absent where it may not be asked",
        (),
        lambda of, now: (((), float(kept)) for kept in (timekeeping.synchronised(),) if kept is not None),
    ),
)
