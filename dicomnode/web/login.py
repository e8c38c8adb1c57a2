"""Logging in and out. A session is a random secret in a cookie that scripts cannot read; the books hold its digest."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicomnode import bookkeeping, passwords
from dicomnode.bookkeeping import Visitor
from dicomnode.roles import MAY, Right
from dicomnode.web.gate import COOKIE, address_of, form_of, log_in, may_do, refuse_foreign
from dicomnode.web.render import STATIC, page, static
from dicomnode.web.site import Site, site_of

router = APIRouter()
Here = Annotated[Site, Depends(site_of)]

WRONG = "Name and password do not fit, or the account is locked for a while."


@router.get("/login", summary="The login page")
def login_page(request: Request, site: Here) -> HTMLResponse:
    """Ask for name and password, or lead to the hospital's provider."""
    return ask(request, site)


def ask(request: Request, site: Site, status: int = 200, wrong: str = "") -> HTMLResponse:
    """The login page. wrong: why somebody sees it again."""
    oidc = site.settings.web.oidc
    return page(request, "login.html", None, status, wrong=wrong, provider=oidc.title if oidc.issuer else "")


@router.post("/login", summary="Log in")
async def login(request: Request, site: Here) -> Response:
    """Begin a session, or ask again. Accounts of programs have no pages to see."""
    refuse_foreign(request, site)
    form = await form_of(request)
    secret = await run_in_threadpool(_begin, site, form.get("name", ""), form.get("password", ""), address_of(request))
    if secret is None:
        return ask(request, site, 401, WRONG)
    answer = RedirectResponse("/", 303)
    keep(answer, site, secret)
    return answer


def _begin(site: Site, name: str, password: str, address: str) -> str | None:
    now = site.clock()
    who = log_in(site.books, name, password, address, now)
    if who is None or Right.READ not in MAY[who.role]:
        return None
    return begin_session(site, who.name, now)


def begin_session(site: Site, name: str, now: datetime) -> str:
    """A session of this account; its secret."""
    secret, until = passwords.new_secret(), now + timedelta(hours=site.settings.web.session_hours)
    digest, csrf = passwords.digest(secret), passwords.new_secret()
    bookkeeping.add_access(site.books, digest, name, bookkeeping.SESSION, csrf, until, now, name)
    return secret


def keep(answer: Response, site: Site, secret: str) -> None:
    """Let the browser keep a session's secret, where scripts and other sites do not get it."""
    web = site.settings.web
    lasts = int(web.session_hours * 3600)
    answer.set_cookie(COOKIE, secret, lasts, httponly=True, samesite="strict", secure=web.is_secret)


@router.post("/logout", summary="Log out")
def logout(request: Request, site: Here, _: Annotated[Visitor, Depends(may_do(Right.READ))]) -> Response:
    """End the session here and in the books."""
    bookkeeping.end_access(site.books, passwords.digest(request.cookies[COOKIE]), site.clock())
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=site.settings.web.is_secret)
    return answer


@router.get("/static/{name}", summary="Style sheet, script, icon")
def static_file(name: str) -> Response:
    """One of a few files that come with the node."""
    if name not in STATIC:
        return Response(status_code=404)
    return Response(static(name), media_type=STATIC[name], headers={"Cache-Control": "max-age=3600"})
