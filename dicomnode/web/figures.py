"""The figures on top of the administrator's page, gathered once for each answer."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomnode import bookkeeping, certificates
from dicomnode.bookkeeping import Absence, Chosen, Job, Line
from dicomnode.jobs import Lane, State
from dicomnode.web.site import Site

A_DAY = timedelta(days=1)
WAITING = (State.QUEUED, State.PROCESSING, State.SENDING)


@dataclass(frozen=True, slots=True)
class Reached:
    """One destination: when it last confirmed a file, how many are on their way, and since when it is away."""

    name: str
    confirmed_at: datetime | None
    open: int
    absence: Absence | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What the administrator sees first. Times in seconds."""

    oldest: Line | None
    waited: float
    p50: float | None
    p95: float | None
    timed: int
    failures: list[tuple[str, str, int]]
    lanes: dict[Lane, dict[State, int]]
    at_work: list[tuple[Job, bool]]
    destinations: list[Reached]
    free_gib: float
    hours_left: float | None
    certificates: list[tuple[str, str]]


def gather(site: Site, now: datetime) -> Figures:
    """Ask the books, the disk and the certificates."""
    oldest = next(iter(bookkeeping.list_jobs(site.books, Chosen(WAITING, oldest_first=True), "", 1)), None)
    times = bookkeeping.door_to_map(site.books, now - A_DAY)
    free = site.forecast.look(now)
    return Figures(
        oldest=oldest,
        waited=(now - oldest.job.created_at).total_seconds() if oldest else 0.0,
        p50=bookkeeping.percentile(times, 0.50),
        p95=bookkeeping.percentile(times, 0.95),
        timed=len(times),
        failures=bookkeeping.failures(site.books, now - A_DAY),
        lanes=_lanes(site),
        at_work=[(job, bool(job.lease_until and job.lease_until < now)) for job in bookkeeping.at_work(site.books)],
        destinations=_destinations(site),
        free_gib=free / 2**30,
        hours_left=site.forecast.hours_left(free, now),
        certificates=[*_certificates(site, now)],
    )


def _lanes(site: Site) -> dict[Lane, dict[State, int]]:
    counted = {lane: Counter[State]() for lane in (Lane.STROKE, Lane.ROUTINE)}
    for lane, state, n in bookkeeping.lanes(site.books):
        counted[lane][state] += n
    return {lane: {state: states[state] for state in WAITING} for lane, states in counted.items()}


def _destinations(site: Site) -> list[Reached]:
    confirmed, waiting = bookkeeping.confirmations(site.books), bookkeeping.open_deliveries(site.books)
    away = {absence.destination: absence for absence in bookkeeping.absences(site.books)}
    names = [destination.name for destination in site.settings.destination]
    return [Reached(name, confirmed.get(name), waiting.get(name, 0), away.get(name)) for name in names]


def _certificates(site: Site, now: datetime) -> list[tuple[str, str]]:
    """Section and until when its certificate is good; what is wrong with it where it is not."""
    return [
        (each.section, f"good until {each.ends:%Y-%m-%d}, {int(each.days(now))} days")
        if each.ends
        else (each.section, f"MEND: {each.wrong}")
        for each in certificates.configured(site.settings)
    ]
