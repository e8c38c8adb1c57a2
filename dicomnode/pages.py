"""When a study that had a candidate gets no maps, one page in the study says so; silence is easily read as normal.

The page is a job of its own route, so that it is made, sent, confirmed and told like any other result.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from json import dumps

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, Job, Order, Refusal, Told
from dicomnode.config import Destination, Settings
from dicomnode.jobs import NO_MAPS
from inference.refusal import Refused

# The reasons (design.md contract 15) over which a reader would wait for maps in vain. The others speak of series that
# nobody expects maps of (a localizer, a chest), of no patient (a phantom), or leave open whose page it would be.
BY_HEADER = frozenset({
    *("too-few-slices", "gap", "mixed-geometry", "oblique", "no-rescale", "partial-brain", "paediatric"),
    *("bone-kernel", "motion", "metal", "partner-missing", "weights-locked", "units", "implausible-maps"),
})  # fmt: skip
# Contrast that the headers name is no surprise; a series whose headers say nothing of it was expected to yield maps. No
# head by the image is mostly another part of the body whose headers name none: a page there would be one too many.
TOLD = Told(of_series=BY_HEADER, of_jobs=BY_HEADER | {"contrast"})
KIND = "page"  # of writer.page
CHANGED = "maps of the study are being made after all"


def wanted(destinations: Iterable[Destination]) -> list[tuple[str, frozenset[str]]]:
    """The destinations that a page goes to, in the words of bookkeeping.note_results."""
    return [(d.name, d.kinds) for d in destinations if KIND in d.kinds]


def open_jobs(books: Books, settings: Settings, now: datetime) -> list[str]:
    """Open the job of a page for each study that has waited for as long as a series may; their ids.

    It waits because the series that can be used may be the next one.
    """
    if not wanted(settings.destination):
        return []
    quiet_since = now - timedelta(seconds=settings.completeness.give_up_seconds)
    found = bookkeeping.without_maps(books, TOLD, quiet_since, now)
    opened = [bookkeeping.open_page(books, _order(refusal, now), now) for refusal in found]
    return [job_id for job_id in opened if job_id]


def _order(refusal: Refusal, now: datetime) -> Order:
    parts = {"route": NO_MAPS, "study": refusal.study_instance_uid, "code": refusal.code, "at": now.isoformat()}
    return Order(
        key=sha256(dumps(parts, sort_keys=True).encode()).hexdigest(),
        study_instance_uid=refusal.study_instance_uid,
        series_instance_uid=refusal.series_instance_uid,
        route=NO_MAPS,
        engine="none",
        instances=refusal.instances,
        completed_by="",
        why=f"no maps: {refusal.code}: {refusal.reason}",
    )


def reason(books: Books, job: Job) -> Refusal:
    """What the page of a job says; raises Refused where it is no longer true."""
    found = bookkeeping.refusal_of(books, job.study, TOLD)
    if found is None:
        raise Refused(bookkeeping.SUPERSEDED, CHANGED)
    return found


def is_stale(books: Books, job: Job) -> bool:
    """True for a page whose study is getting maps after all: what has not been sent of it must not be sent."""
    return job.route == NO_MAPS and bookkeeping.has_maps(books, job.study)
