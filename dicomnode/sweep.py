"""The sweep: every half second it turns whole series into jobs, and picks up what was lost or forgotten."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps

from dicomnode import bookkeeping, commitment, completeness, eligibility, header, pages
from dicomnode.bookkeeping import Books, OpenSeries, Order
from dicomnode.clock import Watch
from dicomnode.completeness import Quiet
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import Lane, SeriesState
from dicomnode.spool import Spool
from inference.refusal import Refused
from inference.weights import Manifest

log = logging.getLogger(__name__)

PERIOD = 0.5  # seconds
LONG_AGO = float("-inf")  # a jump while no sweep ran; one forward has only made leases and waits end, as time would


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over the books. wake_process and wake_deliver put a job id on the queue; losing it does no harm."""

    settings: Settings
    books: Books
    spool: Spool
    manifest: Manifest
    wake_process: Callable[[str, Lane], None]
    wake_deliver: Callable[[str], None]

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop; a failed pass is logged and the next one tries again."""
        commitment.start(self.settings, self.books, self.spool, stop)
        watch, jump = Watch(), LONG_AGO
        while not stop.is_set():
            now = datetime.now(UTC)
            jump = jump or watch.jump(now)
            try:
                self.after(jump, now)
                jump = 0.0
                self.once(now)
            except Exception:  # an edge: the loop must outlive a database that is away
                log.exception("this sweep failed; the next one follows")
            stop.wait(PERIOD)

    def after(self, jump: float, now: datetime) -> None:
        """Make the moments in the books fit a clock that has been set by so many seconds; 0 does nothing."""
        if jump not in (0.0, LONG_AGO):
            log.warning("the clock was set by %.0f s", jump)
        if jump > 0:
            bookkeeping.set_forward(self.books, now)
        elif jump < 0:
            bookkeeping.set_back(self.books, now)

    def once(self, now: datetime) -> None:
        """Judge the receiving series, then mend what was left lying."""
        for series in bookkeeping.receiving(self.books):
            try:
                self.judge(series, now)
            except bookkeeping.BooksAway:
                raise
            except (OSError, MemoryError):
                log.exception("series cannot be read for the moment; the next sweep tries again")
            except Exception as error:  # an edge: one series that cannot be judged must not stop the others
                log.exception("series cannot be judged")
                self._refuse(series, Refused("not-dicom", f"its headers cannot be read ({type(error).__name__})"), now)
        for job_id in pages.open_jobs(self.books, self.settings, now):
            self.wake_process(job_id, bookkeeping.get_job(self.books, job_id).lane)
        for job_id in bookkeeping.reap(self.books, now):
            log.warning("job %s lost its worker", job_id)
        for lane in Lane:
            for job_id in bookkeeping.unclaimed(self.books, lane, now):
                crashpoint("sweep.offered")
                self.wake_process(job_id, lane)
        for job_id in bookkeeping.to_send(self.books, [d.name for d in self.settings.destination], now):
            crashpoint("sweep.offered")
            self.wake_deliver(job_id)

    def judge(self, series: OpenSeries, now: datetime) -> None:
        """One receiving series: wait, refuse with a reason, or open its job."""
        quiet = Quiet(now, series.last_received_at, series.open_associations, series.last_released_at)
        limits = self.settings.completeness
        if not (quiet.since_release(limits.quiet_seconds) or quiet.since_last_slice(limits.give_up_seconds)):
            return  # nothing could be said yet, so nothing is read
        headers = [header.of_file(self.spool.path(i.path)) for i in series.instances]
        try:
            self._refuse_own(series)
            eligibility.judge_at_once(headers, self.settings)
            verdict = completeness.judge(eligibility.slices(headers), quiet, limits)
            if verdict.by:
                warnings = eligibility.judge_whole(headers, verdict.gaps)
                self._open_job(series, verdict.by, warnings, now)
        except Refused as refusal:
            self._refuse(series, refusal, now)

    def _refuse_own(self, series: OpenSeries) -> None:
        if bookkeeping.are_ours(self.books, (i.sop_instance_uid for i in series.instances)):
            raise Refused("own-object", "the series is a result of this node that has come back")

    def _refuse(self, series: OpenSeries, refusal: Refused, now: datetime) -> None:
        crashpoint("sweep.judged")
        bookkeeping.close_series(self.books, series, SeriesState.REFUSED, refusal.sentence, now, code=refusal.code)

    def _open_job(self, series: OpenSeries, by: str, warnings: tuple[str, ...], now: datetime) -> None:
        chosen = bookkeeping.selected_series(self.books, series.study_instance_uid, series.series_instance_uid)
        if chosen:
            why = f"the maps of this study are made from series {chosen}"
            bookkeeping.close_series(self.books, series, SeriesState.NOT_SELECTED, why, now, completed_by=by)
            return
        order = Order(
            key=job_key(series, self.manifest, self.settings),
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            route=eligibility.ROUTE,
            engine=self.settings.processing.engine,
            instances=tuple(i.id for i in series.instances),
            completed_by=by,
            why=f"{len(series.instances)} slices, complete by {by}",
            warnings=warnings,
        )
        crashpoint("sweep.judged")
        job_id = bookkeeping.open_job(self.books, order, series.last_received_at, now)
        if job_id:
            crashpoint("job.recorded")
            self.wake_process(job_id, bookkeeping.get_job(self.books, job_id).lane)
            crashpoint("job.woken")


def job_key(series: OpenSeries, manifest: Manifest, settings: Settings) -> str:
    """The same inputs, weights and settings are the same job (design contract 3)."""
    parts = {
        "route": eligibility.ROUTE,
        "instances": sorted([i.sop_instance_uid, i.sha256] for i in series.instances),
        "weights": manifest.sha256,
        "preprocessing": manifest.preprocessing,
        "engine": settings.processing.engine,
        "settings": settings.digest,
    }
    return sha256(dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
