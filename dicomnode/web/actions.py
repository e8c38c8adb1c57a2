"""What an operator may do about a job; each is one statement of the books, and one line of history with their name."""

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Visitor
from dicomnode.roles import Right
from dicomnode.web.gate import form_of, may_do
from dicomnode.web.site import Site, site_of

router = APIRouter()

LONGEST_NOTE = 500  # characters

Form = Mapping[str, str]


def _retry(site: Site, job: str, _: Form, actor: str) -> str:
    return "retried" if bookkeeping.retry(site.books, job, site.clock(), actor) else "not-retried"


def _resend(site: Site, job: str, form: Form, actor: str) -> str:
    to = form.get("to", "")
    wanted = [(d.name, d.kinds) for d in site.settings.destination if to in ("", d.name)]
    return "resent" if bookkeeping.resend(site.books, job, wanted, site.clock(), actor) else "not-resent"


def _dismiss(site: Site, job: str, form: Form, actor: str) -> str:
    note = " ".join(form.get("note", "").split())[:LONGEST_NOTE]
    if not note:
        return "no-note"
    return "dismissed" if bookkeeping.dismiss(site.books, job, note, site.clock(), actor) else "not-dismissed"


ACTIONS: dict[str, Callable[[Site, str, Form, str], str]] = {"retry": _retry, "resend": _resend, "dismiss": _dismiss}


@router.post("/job/{job}/{action}", summary="Retry, resend or dismiss a job")
async def act(
    request: Request,
    job: str,
    action: str,
    who: Annotated[Visitor, Depends(may_do(Right.ACT))],
    site: Annotated[Site, Depends(site_of)],
) -> RedirectResponse:
    """Do it, and lead back to the study, which says what came of it."""
    found = await run_in_threadpool(bookkeeping.find_studies, site.books, job)
    if action not in ACTIONS or not found:
        raise HTTPException(404, "there is no such job, or nothing of this name can be done with it")
    said = await run_in_threadpool(ACTIONS[action], site, job, await form_of(request), who.name)
    study_id = (await run_in_threadpool(bookkeeping.study_of, site.books, found[0])).id
    return RedirectResponse(f"/study/{study_id}?said={said}", 303)
