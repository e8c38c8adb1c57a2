"""The physician in the loop: one head with its maps, re-rendered in the browser as the ratio is moved.

What the browser needs is sent once: P of each map and three slices of CT in half precision, five numbers for each map.
A program with a viewer's token gets a link that opens the page of one study for a few minutes, to read only.
"""

import json
from datetime import timedelta
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicomnode import bookkeeping, passwords
from dicomnode.bookkeeping import Job, Visitor
from dicomnode.jobs import NO_MAPS, State
from dicomnode.roles import Right
from dicomnode.web.gate import LINK_COOKIE, NotLoggedIn, address_of, form_of, may, may_do, may_open
from dicomnode.web.render import page
from dicomnode.web.seen import note_read
from dicomnode.web.site import Site, site_of

router = APIRouter(prefix="/pilo")
Here = Annotated[Site, Depends(site_of)]
Opener = Annotated[Visitor, Depends(may_open)]

LASTS = timedelta(minutes=5)  # a link
TRAINED = 50  # percent
ARRAYS = ("mask", "perfusion", "planes")  # of pilo.npz, in the order in which they are sent
ALIGNED = 8  # bytes


@router.post("/link", summary="A link that opens the page of one study for a few minutes", status_code=201)
async def link(request: Request, site: Here, who: Annotated[Visitor, Depends(may(Right.READ))]) -> JSONResponse:
    """For a program that shows studies; the form field `key` is an accession number, UID or job id."""
    key = (await form_of(request)).get("key", "").strip()[:128]
    job = await run_in_threadpool(_newest, site, key)
    secret, now = passwords.new_secret(), site.clock()
    values = (passwords.digest(secret), who.name, bookkeeping.LINK, "", now + LASTS, now, who.name, job.id)
    await run_in_threadpool(bookkeeping.add_access, site.books, *values)
    address = f"{site.address(request)}/pilo/link/{secret}"
    return JSONResponse({"url": address, "expires_at": (now + LASTS).isoformat()}, 201)


def _newest(site: Site, key: str) -> Job:
    uids = bookkeeping.find_studies(site.books, key) if key else []
    if len(uids) > 1:
        raise HTTPException(409, f"this stands for {len(uids)} studies; give the Study Instance UID")
    jobs = bookkeeping.story(site.books, uids[0]).jobs if uids else []
    kept = [job for job in jobs if site.spool.pilo(job.id).exists()]
    named = [job for job in kept if job.id == key]
    if not kept:
        raise HTTPException(404, "there is no such study, or its maps are not made yet")
    return (named or kept)[-1]


@router.get("/link/{secret}", summary="Open a link")
def follow(request: Request, site: Here, secret: str) -> Response:
    """Lead to the page, and keep the secret where scripts and addresses do not show it."""
    now = site.clock()
    who = bookkeeping.visitor(site.books, passwords.digest(secret), now)
    if who is None or who.kind != bookkeeping.LINK:
        raise NotLoggedIn
    answer = RedirectResponse(f"/pilo/{who.job}", 303)
    lasts, secure = int(LASTS.total_seconds()), site.settings.web.is_secret
    # lax: the page that leads here is another site's, and a strict cookie would not come along
    answer.set_cookie(LINK_COOKIE, secret, lasts, path="/pilo", httponly=True, samesite="lax", secure=secure)
    return answer


@router.get("/{job}", summary="The maps of one job at any ratio", response_class=HTMLResponse)
def look(request: Request, job: str, site: Here, who: Opener) -> HTMLResponse:
    """The page; whoever comes by a link sees nothing else of the node, and sends nothing."""
    found = _made(site, job)
    note_read(site, who, address_of(request), found.study)
    study = bookkeeping.study_of(site.books, found.study)
    with np.load(site.spool.pilo(job), allow_pickle=False) as kept:
        about = json.loads(str(kept["about"]))
    values: dict[str, Any] = {
        "job": found,
        "study": study,
        "about": about,
        "warnings": found.warnings.splitlines(),
        "destinations": takers(site),
        "trained": TRAINED,
    }
    return page(request, "pilo.html", who if who.kind == bookkeeping.SESSION else None, **values)


@router.get("/{job}/data", summary="What the browser renders the maps from")
def voxels(request: Request, job: str, site: Here, who: Opener) -> Response:
    """Length of the description (4 bytes, little endian), the description (JSON), then each of ARRAYS as it is kept."""
    note_read(site, who, address_of(request), _made(site, job).study)
    with np.load(site.spool.pilo(job), allow_pickle=False) as kept:
        text = str(kept["about"]).encode()
        text += b" " * (-(4 + len(text)) % ALIGNED)
        parts = [np.ascontiguousarray(kept[name]).tobytes() for name in ARRAYS]
    return Response(b"".join([len(text).to_bytes(4, "little"), text, *parts]), media_type="application/octet-stream")


@router.post("/{job}/captures", summary="Send captures at a ratio to the PACS", status_code=202)
async def send(
    request: Request, job: str, site: Here, who: Annotated[Visitor, Depends(may_do(Right.EXPLORE))]
) -> JSONResponse:
    """Ask for them; a worker writes them and the senders send them. The form field `percent` is the ratio."""
    given = (await form_of(request)).get("percent", "")
    if not (given.isascii() and given.isdigit() and int(given) <= 100 and int(given) != TRAINED):
        raise HTTPException(400, "percent is a whole number from 0 to 100; the maps at 50 are in the PACS already")
    await run_in_threadpool(_made, site, job)
    asked = (site.books, job, int(given), takers(site), site.clock(), who.name)
    if not await run_in_threadpool(bookkeeping.ask_for_ratio, *asked):
        raise HTTPException(
            409, "no destination takes captures, or the files of this job or its CT are not (or no longer) on the node"
        )
    return JSONResponse({"sent_to": takers(site), "percent": int(given)}, 202)


def takers(site: Site) -> list[str]:
    """The destinations that take captures."""
    return [d.name for d in site.settings.destination if "pilo" in d.kinds]


def _made(site: Site, job: str) -> Job:
    """The job, if what other ratios need was kept of it; raises 404 that says why not."""
    found = bookkeeping.find_job(site.books, job)
    if found is None:
        raise HTTPException(404, "there is no such job")
    if site.spool.pilo(job).exists():
        return found
    if found.purged_at:
        raise HTTPException(404, "removed from this node by retention; the maps at 0.50 are in the PACS")
    if found.route == NO_MAPS or found.state in (State.REJECTED, State.FAILED):
        raise HTTPException(404, "no maps were made of this study; its timeline says why")
    if found.state in (State.QUEUED, State.PROCESSING):
        raise HTTPException(404, "the maps of this study are not finished yet; come back in a minute")
    raise HTTPException(404, "made before this version, which keeps what other ratios need; its maps are in the PACS")
