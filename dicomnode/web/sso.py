"""Logging in at the hospital's provider: to it and back, then a session as any other. Only where [web.oidc] says so."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from dicomnode import bookkeeping, id_token, oidc, passwords
from dicomnode.config import Oidc
from dicomnode.oidc import Attempt, Away, LoginRefused, Provider
from dicomnode.web.gate import address_of
from dicomnode.web.login import ask, begin_session, keep
from dicomnode.web.render import page
from dicomnode.web.site import Site, site_of

log = logging.getLogger(__name__)
router = APIRouter(prefix="/login/oidc")
Here = Annotated[Site, Depends(site_of)]

COOKIE = "dicomnode-oidc"
LASTS = timedelta(minutes=10)  # from the provider's page and back
KNOWN = timedelta(minutes=5)  # what is asked of the provider once in this time is where it does what
AWAY = "The provider does not answer as it should; the log of this node says why. Name and password may still do."
UNKNOWN = "This browser has not begun to log in here, or more than ten minutes ago; begin again."
TAKEN = "The provider knows you by a name that an account of this node has already; ask who runs it."

_turns = threading.BoundedSemaphore(4)  # a provider that hangs must not take all threads, which belong to pages too


@router.get("", summary="Log in at the hospital's provider")
def begin(request: Request, site: Here) -> Response:
    """Lead there, and remember in a cookie that this browser has begun."""
    attempt, setting = Attempt(passwords.new_secret()), site.settings.web.oidc
    try:
        with _turn():
            address = oidc.beginning(setting, _provider(setting, site.clock()), attempt, _back(request, site))
    except Away as away:
        return _say_away(request, site, away)
    answer = RedirectResponse(address, 303)
    # lax: the provider's page leads back here, and a strict cookie would not come along
    lasts, secure = int(LASTS.total_seconds()), site.settings.web.is_secret
    answer.set_cookie(COOKIE, attempt.secret, lasts, path=router.prefix, httponly=True, samesite="lax", secure=secure)
    return answer


@router.get("/return", summary="Come back from the hospital's provider")
def come_back(request: Request, site: Here) -> Response:
    """Begin a session, or say why not.

    The page leads on by itself: the browser keeps the session's strict cookie from whatever another site leads to.
    """
    now, address = site.clock(), address_of(request)
    try:
        name = _admitted(request, site, now)
    except Away as away:
        answer = _say_away(request, site, away)
    except LoginRefused as refused:
        bookkeeping.note_login_refused(site.books, refused.name, str(refused), address, now)
        answer = ask(request, site, 403, str(refused))
    else:
        answer = page(request, "entered.html", None)
        keep(answer, site, begin_session(site, name, now))
    answer.delete_cookie(COOKIE, path=router.prefix, httponly=True, samesite="lax", secure=site.settings.web.is_secret)
    return answer


def _admitted(request: Request, site: Site, now: datetime) -> str:
    """The account of whom the provider vouches for; raises LoginRefused or Away."""
    setting, secret = site.settings.web.oidc, request.cookies.get(COOKIE)
    if not secret:
        raise LoginRefused(UNKNOWN)
    attempt = Attempt(secret)
    code = oidc.code_of(setting, attempt, request.query_params)
    with _turn():
        token, keys = oidc.redeem(setting, _provider(setting, now), attempt, _back(request, site), code)
    who = oidc.person(setting, id_token.read(token, keys, setting, attempt.nonce))
    name = bookkeeping.admit(site.books, who.subject, who.name, who.role, address_of(request), now)
    if name is None:
        raise LoginRefused(TAKEN, who.name)
    return name


def _back(request: Request, site: Site) -> str:
    return f"{site.address(request)}{router.prefix}/return"


def _say_away(request: Request, site: Site, away: Away) -> Response:
    log.error("[web.oidc]: %s", str(away))
    return ask(request, site, 503, AWAY)


def _provider(setting: Oidc, now: datetime) -> Provider:
    return _discovered(setting, int(now.timestamp() // KNOWN.total_seconds()))


@lru_cache(maxsize=2)
def _discovered(setting: Oidc, _period: int) -> Provider:
    return oidc.discover(setting)


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(blocking=False):
        raise Away("too many log-ins wait for the provider")
    try:
        yield
    finally:
        _turns.release()
