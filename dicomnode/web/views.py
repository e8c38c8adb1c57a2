"""The pages of the administrator: what waits, what failed, one study's story. Addresses hold ids of ours only."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicomnode import bookkeeping, explain
from dicomnode.bookkeeping import Chosen, Visitor
from dicomnode.jobs import OPERATOR_ONLY, Lane, State
from dicomnode.roles import Right
from dicomnode.web.figures import WAITING, gather
from dicomnode.web.gate import address_of, form_of, may_do, may_see
from dicomnode.web.render import page
from dicomnode.web.seen import note_read, note_search
from dicomnode.web.site import Site, site_of

router = APIRouter()
Here = Annotated[Site, Depends(site_of)]
Reader = Annotated[Visitor, Depends(may_see(Right.READ))]

MOST = 50  # lines of one page
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FARTHEST = 2**53  # microseconds after 1970 in a cursor

# What may be shown: its name on the page, and the jobs it stands for.
SHOWN: dict[str, tuple[str, Chosen]] = {
    "waiting": ("Waiting", Chosen(WAITING, oldest_first=True)),
    "failed": ("To look at", Chosen(tuple(sorted(OPERATOR_ONLY)), dismissed=False)),
    "done": ("Done", Chosen((State.DONE,))),
    "dismissed": ("Dismissed", Chosen(tuple(sorted(OPERATOR_ONLY)), dismissed=True)),
    "all": ("All jobs", Chosen(tuple(State))),
}
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Filters:
    """What stands in the address of a list. after: where the list goes on."""

    show: str = "waiting"
    lane: str = ""
    reason: str = ""
    after: str = ""

    def address(self, **changes: str) -> str:
        """The address of the same list with changes; from its beginning unless `after` is one of them."""
        values = {"show": self.show, "lane": self.lane, "reason": self.reason, "after": ""} | changes
        return "/?" + urlencode({key: value for key, value in values.items() if value})


def filters(
    show: Annotated[str, Query(max_length=16)] = "waiting",
    lane: Annotated[str, Query(max_length=16)] = "",
    reason: Annotated[str, Query(max_length=64)] = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Filters:
    """The filters of an address; raises 404 for those that no page links to."""
    if show not in (*SHOWN, REFUSED) or lane not in ("", *Lane):
        raise HTTPException(404, "there is no such list")
    return Filters(show, lane, reason, after)


@router.get("/", summary="What waits, and how the node is", response_class=HTMLResponse)
def home(request: Request, who: Reader, site: Here, chosen: Annotated[Filters, Depends(filters)]) -> HTMLResponse:
    """The figures, and a list of jobs or refused series."""
    now = site.clock()
    common: dict[str, Any] = {"shown": SHOWN, "chosen": chosen, "lanes": list(Lane), "now": now}
    common |= {"figures": gather(site, now), "receiving": bookkeeping.list_receiving(site.books)}
    if chosen.show == REFUSED:
        before, skip = _read_cursor(chosen.after)
        series = bookkeeping.list_refused(site.books, chosen.reason, before, skip, MOST + 1)
        following = _cursor([row[0].last_received_at for row in series[:MOST]], before, skip)
        further = chosen.address(after=following) if len(series) > MOST else ""
        return page(request, "home.html", who, jobs=[], series=series[:MOST], further=further, **common)
    base = SHOWN[chosen.show][1]
    wanted = Chosen(
        base.states, Lane(chosen.lane) if chosen.lane else None, chosen.reason, base.dismissed, base.oldest_first
    )
    jobs = bookkeeping.list_jobs(site.books, wanted, chosen.after, MOST + 1)
    further = chosen.address(after=jobs[MOST - 1].job.id) if len(jobs) > MOST else ""
    return page(request, "home.html", who, jobs=jobs[:MOST], series=[], further=further, **common)


def _read_cursor(after: str) -> tuple[datetime | None, int]:
    """The moment of the last line, and how many lines of that moment were shown; raises 404."""
    micros, _, skip = after.partition(".")
    if not after:
        return None, 0
    if not (micros.isascii() and micros.isdecimal() and skip.isascii() and skip.isdecimal() and len(skip) < 7):
        raise HTTPException(404, "the list does not go on there")
    return EPOCH + timedelta(microseconds=min(int(micros), FARTHEST)), int(skip)


def _cursor(moments: list[datetime], before: datetime | None, skip: int) -> str:
    if not moments:
        return ""
    last = moments[-1]
    same = sum(moment == last for moment in moments) + (skip if last == before else 0)
    return f"{(last - EPOCH) // timedelta(microseconds=1)}.{same}"


@router.get("/study/{id}", summary="The story of one study", response_class=HTMLResponse)
def study(request: Request, who: Reader, site: Here, id: str) -> HTMLResponse:
    """What `dicomnode explain` tells, and what may be done."""
    uid = bookkeeping.study_with_id(site.books, id)
    if uid is None:
        raise HTTPException(404, "there is no such study")
    note_read(site, who, address_of(request), uid)
    story = bookkeeping.story(site.books, uid)
    lines = [(_depth(line), _mood(line), line.strip()) for line in explain.lines_of(site.books, story, site.clock())]
    destinations = [destination.name for destination in site.settings.destination]
    ended = [job for job in story.jobs if job.state in OPERATOR_ONLY]
    loops = [job for job in story.jobs if site.spool.pilo(job.id).exists()]
    lists = {"lines": lines, "destinations": destinations, "ended": ended, "loops": loops}
    return page(request, "study.html", who, 200, id=id, story=story, **lists)


def _depth(line: str) -> int:
    return (len(line) - len(line.lstrip())) // 2


def _mood(line: str) -> str:
    """The style of a line that tells how something ended."""
    ended = re.search(r"(?:^ *|-> )(DONE|FAILED|REJECTED|REFUSED|warning)\b", line)
    return f"ended {ended[1]}" if ended else ""


@router.post("/find", summary="Find a study")
async def find(request: Request, site: Here, who: Annotated[Visitor, Depends(may_do(Right.READ))]) -> Response:
    """By accession number, UID or job id; a form, since addresses are kept by browsers and proxies."""
    key = (await form_of(request)).get("key", "").strip()[:128]
    await run_in_threadpool(note_search, site, who, address_of(request), frozenset({"key"}))
    found = await run_in_threadpool(_ids, site, key)
    if len(found) == 1:
        return RedirectResponse(f"/study/{found[0][0]}", 303)
    if not found:
        return RedirectResponse("/?said=not-found", 303)
    return page(request, "found.html", who, found=found)


def _ids(site: Site, key: str) -> list[tuple[str, str]]:
    """Our id and the accession number of each study that a key stands for."""
    uids = bookkeeping.find_studies(site.books, key)[:MOST]
    studies = [bookkeeping.study_of(site.books, uid) for uid in uids]
    return [(study.id, study.accession_number) for study in studies]
