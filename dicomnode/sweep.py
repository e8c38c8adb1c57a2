"""The sweep: every half second it turns whole series into jobs, and picks up what was lost or forgotten."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from json import dumps

from pydicom import Dataset

from dicomnode import (
    alerts,
    bookkeeping,
    commitment,
    completeness,
    eligibility,
    header,
    identity,
    logs,
    notify,
    pages,
    places,
    retention,
    selection,
)
from dicomnode.bookkeeping import Books, OpenSeries, Order
from dicomnode.clock import Watch
from dicomnode.completeness import Quiet
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import Lane, SeriesState, State
from dicomnode.pulse import Pulse
from dicomnode.selection import Candidate
from dicomnode.selftest import permit
from dicomnode.spool import Spool
from inference import frames
from inference.refusal import Refused
from inference.weights import Manifest

log = logging.getLogger(__name__)

PERIOD = 0.5  # seconds
AHEAD = 3.0  # seconds before the end of the quiet time, from when on it is worth a worker's while to begin
SCOUTS, OLDER = "localizer images", "older images at positions that were shown again"
Found = tuple[int, Dataset]  # id of an instance, header of a slice of it
LONG_AGO = float("-inf")  # a jump while no sweep ran; one forward has only made leases and waits end, as time would


def _nobody(job_id: str, lane: Lane) -> None:
    """No captures are asked for where no web service runs."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over the books. wake_... put a job id on a queue; losing it does no harm.

    foretell: has a worker compute from these instances what will be the job of that key, while its quiet time runs.
    """

    settings: Settings
    books: Books
    spool: Spool
    manifest: Manifest
    wake_process: Callable[[str, Lane], None]
    wake_deliver: Callable[[str], None]
    foretell: Callable[[str, Sequence[int], Lane], None] | None = None
    wake_render: Callable[[str, Lane], None] = _nobody
    _foretold: dict[str, str] = field(default_factory=dict)  # series -> key of the job that somebody awaits
    _awaited: list[str] = field(default_factory=list)  # jobs opened in the last sweep that somebody should have taken

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop; a failed pass is logged and the next one tries again."""
        commitment.start(self.settings, self.books, self.spool, stop)
        retention.start(self.settings, self.books, self.spool, stop)
        alerts.start(self.settings, self.books, stop)
        watch, jump, pulse, sign = Watch(), LONG_AGO, notify.Pulse(), Pulse(self.books, "sweep")
        while not stop.is_set():
            now = datetime.now(UTC)
            jump = jump or watch.jump(now)
            try:
                self.after(jump, now)
                jump = 0.0
                self.once(now)
                pulse.beat()
                sign.beat(now)
            except Exception:  # an edge: the loop must outlive a database that is away
                log.exception("this sweep failed; the next one follows")
            stop.wait(PERIOD)
        notify.tell(notify.STOPPING)
        sign.end()

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
        candidates: dict[str, list[Candidate]] = defaultdict(list)
        while self._awaited:
            job = bookkeeping.get_job(self.books, self._awaited[-1])
            if job.state is State.QUEUED:
                self.wake_process(job.id, job.lane)
            self._awaited.pop()
        receiving = bookkeeping.receiving(self.books)
        for series in receiving:
            with self._alone([series], now):
                if candidate := self.judge(series, now):
                    candidates[series.study_instance_uid].append(candidate)
        for several in candidates.values():
            with self._alone([each.series for each in several], now):
                self.choose(several, now)
        self.expect(receiving, now)
        for job_id in pages.open_jobs(self.books, self.settings, now):
            self.wake_process(job_id, bookkeeping.get_job(self.books, job_id).lane)
        for job_id in bookkeeping.reap(self.books, now):
            with logs.about(job=job_id):
                log.warning("lost its worker")
        for lane in Lane:
            for job_id in bookkeeping.unclaimed(self.books, lane, now):
                crashpoint("sweep.offered")
                self.wake_process(job_id, lane)
        for job_id, lane in bookkeeping.unrendered(self.books, now):
            self.wake_render(job_id, lane)
        for job_id in bookkeeping.to_send(self.books, permit.names(self.settings, self.books, now), now):
            crashpoint("sweep.offered")
            self.wake_deliver(job_id)

    @contextmanager
    def _alone(self, several: Sequence[OpenSeries], now: datetime) -> Iterator[None]:
        """What goes wrong over these series must not stop the others."""
        try:
            yield
        except bookkeeping.BooksAway:
            raise
        except (OSError, MemoryError):
            with self._about(several):
                log.exception("series cannot be read for the moment; the next sweep tries again")
        except Exception as error:  # an edge, as above
            with self._about(several):
                log.exception("series cannot be judged")
            refusal = Refused("not-dicom", f"its headers cannot be read ({type(error).__name__})")
            for series in several:
                self._refuse(series, refusal, now)

    def _about(self, several: Sequence[OpenSeries]) -> AbstractContextManager[None]:
        if not several:
            return nullcontext()
        return logs.about(study=bookkeeping.study_of(self.books, several[0].study_instance_uid).id)

    def judge(self, series: OpenSeries, now: datetime) -> Candidate | None:
        """One receiving series: wait, refuse with a reason, or say that it could be used."""
        quiet = _quiet(series, now)
        limits = self.settings.completeness
        if not (quiet.since_release(limits.quiet_seconds) or quiet.since_last_slice(limits.give_up_seconds)):
            return None  # nothing could be said yet, so nothing is read
        try:
            self._refuse_own(series)
            named = identity.reopen_agreed(self.books, series.study_instance_uid, now)
            candidate = self._candidate(series, quiet)
            if candidate and len(named) > 1:
                raise Refused(identity.CONFLICT, identity.DIFFERENT)
            if candidate:
                self._describe(series)
            return candidate
        except Refused as refusal:
            self._describe(series)
            self._refuse(series, refusal, now)
            return None

    def _candidate(self, series: OpenSeries, quiet: Quiet) -> Candidate | None:
        """How the series would be used at that moment; None where it is not whole. Raises Refused."""
        found = self._slices(series)
        found, scouts = _without(found, eligibility.scouts([ds for _, ds in found]), SCOUTS)
        settings = permit.for_series(self.settings, self.books, series, quiet.now)
        eligibility.judge_at_once([ds for _, ds in found], settings)
        found, older = _without(found, places.replaced([ds for _, ds in found]), OLDER)
        headers = [ds for _, ds in found]
        verdict = completeness.judge(places.slices(headers), quiet, self.settings.completeness)
        if not verdict.by:
            return None
        warnings = (*scouts, *older, *eligibility.judge_whole(headers, verdict.gaps))
        ids = tuple(dict.fromkeys(i for i, _ in found))  # an enhanced instance holds many slices
        return Candidate(series, headers, ids, verdict.by, warnings)

    def expect(self, receiving: Sequence[OpenSeries], now: datetime) -> None:
        """Have computed what will be a job when its quiet time has ended and nothing more has come.

        Each series is looked at once, so that one whose slices come one by one is not computed at every slice.
        """
        if self.foretell is None:
            return
        for closed in self._foretold.keys() - {series.series_instance_uid for series in receiving}:
            del self._foretold[closed]
        expected: dict[str, list[Candidate]] = defaultdict(list)
        for series in receiving:
            if series.series_instance_uid not in self._foretold and (quiet := self._soon(series, now)):
                self._foretold[series.series_instance_uid] = ""
                with self._alone([], now), suppress(Refused):
                    if candidate := self._candidate(series, quiet):
                        expected[series.study_instance_uid].append(candidate)
        for study, several in expected.items():
            best = selection.ranked(several)[0]
            if lane := bookkeeping.free_lane(self.books, study):
                self._foretold[best.uid] = job_key(best, self.manifest, self.settings)
                self.foretell(self._foretold[best.uid], best.instances, lane)

    def _soon(self, series: OpenSeries, now: datetime) -> Quiet | None:
        """How still it will be when the quiet time ends, where that is soon and computing may begin."""
        seconds, quiet = self.settings.completeness.quiet_seconds, _quiet(series, now)
        if quiet.since_release(seconds) or not quiet.since_release(seconds - AHEAD):
            return None
        return replace(quiet, now=now + timedelta(seconds=seconds))

    def _slices(self, series: OpenSeries) -> list[Found]:
        """The header of each slice, with the id of the instance it is of."""
        return [
            (instance.id, ds)
            for instance in series.instances
            for ds in frames.of(header.of_file(self.spool.path(instance.path)))
        ]

    def _describe(self, series: OpenSeries) -> None:
        ds = header.of_file(self.spool.path(series.instances[0].path))
        name, date = header.text(ds, "PatientName"), header.text(ds, "StudyDate")
        bookkeeping.describe_study(self.books, series.study_instance_uid, name, date)

    def _refuse_own(self, series: OpenSeries) -> None:
        if bookkeeping.are_ours(self.books, (i.sop_instance_uid for i in series.instances)):
            raise Refused("own-object", "the series is a result of this node that has come back")

    def _refuse(self, series: OpenSeries, refusal: Refused, now: datetime) -> None:
        crashpoint("sweep.judged")
        bookkeeping.close_series(self.books, series, SeriesState.REFUSED, refusal.sentence, now, code=refusal.code)

    def choose(self, candidates: Sequence[Candidate], now: datetime) -> None:
        """Of the series of one study that could be used, use the best, unless a better one is used already."""
        chosen = bookkeeping.selected_series(self.books, candidates[0].series.study_instance_uid)
        best, *others = selection.ranked(candidates, chosen.series_instance_uid if chosen else None)
        instead_of = None
        if chosen and chosen.series_instance_uid not in {each.uid for each in candidates}:
            in_use = [ds for _, ds in self._slices(chosen)]
            if not (why := selection.better(best.headers, in_use)):
                self._pass_over(candidates, chosen.series_instance_uid, in_use, now)
                return
            instead_of = chosen.series_instance_uid, f"the maps are made from series {best.uid} instead: {why}"
        self._open_job(best, instead_of, now)
        self._pass_over(others, best.uid, best.headers, now)

    def _pass_over(
        self, candidates: Sequence[Candidate], chosen: str, in_use: Sequence[Dataset], now: datetime
    ) -> None:
        for each in candidates:
            why = selection.better(in_use, each.headers) or "it is as good and was first"
            why = f"the maps of this study are made from series {chosen}: {why}"
            state, by = SeriesState.NOT_SELECTED, each.completed_by
            bookkeeping.close_series(self.books, each.series, state, why, now, completed_by=by)

    def _open_job(self, candidate: Candidate, instead_of: tuple[str, str] | None, now: datetime) -> None:
        series = candidate.series
        order = Order(
            key=job_key(candidate, self.manifest, self.settings),
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            route=eligibility.ROUTE,
            engine=self.settings.processing.engine,
            instances=candidate.instances,
            completed_by=candidate.completed_by,
            why=f"{len(candidate.headers)} slices, complete by {candidate.completed_by}",
            warnings=candidate.warnings,
            instead_of=instead_of,
        )
        crashpoint("sweep.judged")
        job_id = bookkeeping.open_job(self.books, order, series.last_received_at, now)
        if job_id:
            crashpoint("job.recorded")
            with logs.about(job=job_id):
                log.info("opened")
            if self._foretold.pop(candidate.uid, "") == order.key:
                self._awaited.append(job_id)
            else:
                self.wake_process(job_id, bookkeeping.get_job(self.books, job_id).lane)
            crashpoint("job.woken")


def _quiet(series: OpenSeries, now: datetime) -> Quiet:
    return Quiet(now, series.last_received_at, series.open_associations, series.last_released_at)


def _without(found: list[Found], unwanted: Collection[int], what: str) -> tuple[list[Found], tuple[str, ...]]:
    """All but the slices at these indices, and a sentence about those where there are any."""
    kept = [each for i, each in enumerate(found) if i not in unwanted]
    return kept, (f"Left out: {len(unwanted)} {what}.",) if unwanted else ()


def job_key(candidate: Candidate, manifest: Manifest, settings: Settings) -> str:
    """The same inputs, weights and settings are the same job (design contract 3)."""
    parts = {
        "route": eligibility.ROUTE,
        "instances": sorted(
            [i.sop_instance_uid, i.sha256] for i in candidate.series.instances if i.id in candidate.instances
        ),
        "weights": manifest.sha256,
        "smoothing": {name: asdict(how) for name, how in manifest.smoothing.items()},
        "preprocessing": manifest.preprocessing,
        "engine": settings.processing.engine,
        "settings": settings.digest,
    }
    return sha256(dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
