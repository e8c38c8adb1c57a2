"""The sweep: every half second it turns whole series into jobs, and picks up what was lost or forgotten."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps

from pydicom import Dataset

from dicomnode import bookkeeping, commitment, completeness, eligibility, header, identity, pages, places, selection
from dicomnode.bookkeeping import Books, OpenSeries, Order
from dicomnode.clock import Watch
from dicomnode.completeness import Quiet
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import Lane, SeriesState
from dicomnode.selection import Candidate
from dicomnode.spool import Spool
from inference import frames
from inference.refusal import Refused
from inference.weights import Manifest

log = logging.getLogger(__name__)

PERIOD = 0.5  # seconds
SCOUTS, OLDER = "localizer images", "older images at positions that were shown again"
Found = tuple[int, Dataset]  # id of an instance, header of a slice of it
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
        candidates: dict[str, list[Candidate]] = defaultdict(list)
        for series in bookkeeping.receiving(self.books):
            with self._alone([series], now):
                if candidate := self.judge(series, now):
                    candidates[series.study_instance_uid].append(candidate)
        for several in candidates.values():
            with self._alone([each.series for each in several], now):
                self.choose(several, now)
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

    @contextmanager
    def _alone(self, several: Sequence[OpenSeries], now: datetime) -> Iterator[None]:
        """What goes wrong over these series must not stop the others."""
        try:
            yield
        except bookkeeping.BooksAway:
            raise
        except (OSError, MemoryError):
            log.exception("series cannot be read for the moment; the next sweep tries again")
        except Exception as error:  # an edge, as above
            log.exception("series cannot be judged")
            refusal = Refused("not-dicom", f"its headers cannot be read ({type(error).__name__})")
            for series in several:
                self._refuse(series, refusal, now)

    def judge(self, series: OpenSeries, now: datetime) -> Candidate | None:
        """One receiving series: wait, refuse with a reason, or say that it could be used."""
        quiet = Quiet(now, series.last_received_at, series.open_associations, series.last_released_at)
        limits = self.settings.completeness
        if not (quiet.since_release(limits.quiet_seconds) or quiet.since_last_slice(limits.give_up_seconds)):
            return None  # nothing could be said yet, so nothing is read
        try:
            self._refuse_own(series)
            named = identity.reopen_agreed(self.books, series.study_instance_uid, now)
            found = self._slices(series)
            found, scouts = _without(found, eligibility.scouts([ds for _, ds in found]), SCOUTS)
            eligibility.judge_at_once([ds for _, ds in found], self.settings)
            found, older = _without(found, places.replaced([ds for _, ds in found]), OLDER)
            headers = [ds for _, ds in found]
            verdict = completeness.judge(places.slices(headers), quiet, limits)
            if not verdict.by:
                return None
            warnings = (*scouts, *older, *eligibility.judge_whole(headers, verdict.gaps))
            if len(named) > 1:
                raise Refused(identity.CONFLICT, identity.DIFFERENT)
            self._describe(series)
            ids = tuple(dict.fromkeys(i for i, _ in found))  # an enhanced instance holds many slices
            return Candidate(series, headers, ids, verdict.by, warnings)
        except Refused as refusal:
            self._describe(series)
            self._refuse(series, refusal, now)
            return None

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
            self.wake_process(job_id, bookkeeping.get_job(self.books, job_id).lane)
            crashpoint("job.woken")


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
