"""What somebody should look at, in a table: each row asks one question of the books, the disk, the clock or a file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from dicomnode import bookkeeping, certificates, timekeeping
from dicomnode.bookkeeping import Books
from dicomnode.config import Alerts, Settings
from dicomnode.forecast import Forecast

MOST = 2000  # failed jobs that are told one by one; the oldest, so that none seems to have ended when more come


@dataclass(frozen=True, slots=True)
class Concern:
    """Something to look at. subject: a job id, a lane, a destination or a section of node.toml; never a patient's."""

    kind: str
    subject: str
    words: str


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at."""

    settings: Settings
    books: Books
    forecast: Forecast

    @classmethod
    def of(cls, settings: Settings, books: Books) -> Self:
        """The node of these settings."""
        return cls(settings, books, Forecast(settings.node.data_dir, int(settings.listen.keep_free_gib * 2**30)))

    @property
    def limits(self) -> Alerts:
        """From when on something is told."""
        return self.settings.alerts


def concerns(look: Look, now: datetime) -> Iterator[Concern]:
    """All that is wrong now; raises bookkeeping.BooksAway."""
    for kind, ask in KINDS.items():
        for subject, words in ask(look, now):
            yield Concern(kind, subject, words)


Found = Iterator[tuple[str, str]]


def _failed(look: Look, _: datetime) -> Found:
    for job, code in bookkeeping.failed_jobs(look.books, MOST):
        yield job, f"job {job} FAILED{f' ({code})' if code else ''}; `dicomnode explain {job}` tells why"


def _waiting(look: Look, now: datetime) -> Found:
    for lane, (job, since) in bookkeeping.oldest_waiting(look.books).items():
        if now - since > timedelta(minutes=look.limits.waiting_minutes):
            yield lane, f"the oldest {lane} study is open for {(now - since).total_seconds() / 60:.0f} min: job {job}"


def _disk(look: Look, now: datetime) -> Found:
    free = look.forecast.look(now)
    hours = look.forecast.hours_left(free, now)
    if free < look.forecast.keep_free:
        yield "data_dir", f"{free / 2**30:.1f} GiB are free: nothing is received any more"
    elif hours is not None and hours < look.limits.disk_hours:
        yield "data_dir", f"{free / 2**30:.1f} GiB are free, at this rate for {hours:.0f} h"


def _certificate(look: Look, now: datetime) -> Found:
    for each in certificates.configured(look.settings):
        if each.days(now) < look.limits.certificate_days:
            until = f"ends on {each.ends:%Y-%m-%d}" if each.ends else "cannot be used; see `dicomnode doctor`"
            yield each.section, f"the certificate of [{each.section}] {until}"


def _clock(look: Look, _: datetime) -> Found:
    offset = timekeeping.look(look.books, lambda: datetime.now(UTC)).offset
    if offset is not None and abs(offset) > look.limits.clock_seconds:
        way = "ahead of" if offset > 0 else "behind"
        yield "database", f"our clock is {abs(offset):.0f} s {way} the database server's"


def _away(look: Look, now: datetime) -> Found:
    known = {destination.name for destination in look.settings.destination}
    for absence in bookkeeping.absences(look.books):
        if absence.destination in known and now - absence.since > timedelta(minutes=look.limits.away_minutes):
            yield absence.destination, f"destination {absence.destination} is away since {absence.since:%H:%M} UTC"


def _silent(look: Look, now: datetime) -> Found:
    for role, count in bookkeeping.alive(look.books, now).items():
        if not count:
            yield role, f"`dicomnode {role.replace('work ', 'work --queues ')}` has fallen silent"


KINDS: dict[str, Callable[[Look, datetime], Found]] = {
    "failed": _failed,
    "waiting": _waiting,
    "disk": _disk,
    "certificate": _certificate,
    "clock": _clock,
    "away": _away,
    "silent": _silent,
}
