"""The application: its routes, and what holds for every answer."""

import logging
import time

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from dicomnode import __version__
from dicomnode.bookkeeping import BooksAway
from dicomnode.config import ConfigError
from dicomnode.web import actions, health, login, metrics, people, pilo, qido, stow, views, wado
from dicomnode.web.gate import NotLoggedIn
from dicomnode.web.render import page
from dicomnode.web.site import DICOMWEB, Site

log = logging.getLogger(__name__)
access_log = logging.getLogger("dicomnode.access")

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none at all browsers say "Origin: null" of our own forms, as of strangers'
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
A_YEAR = "max-age=31536000"
METHODS = frozenset({"GET", "HEAD", "POST"})


def make(site: Site) -> FastAPI:
    """The application of one node. No description of it is served, and no other site's page may read it (no CORS)."""
    app = FastAPI(title="perfusion node", version=__version__, openapi_url=None, redirect_slashes=False)
    app.state.site = site
    for module in (stow, qido, wado, health, metrics, login, views, actions, people, pilo):
        app.include_router(module.router)
    if site.settings.web.oidc.issuer:
        app.include_router(_sso())
    app.add_middleware(Guard, secret=site.settings.web.is_secret)
    app.add_exception_handler(NotLoggedIn, _to_login)
    app.add_exception_handler(HTTPException, _say)
    app.add_exception_handler(BooksAway, _books_away)
    return app


def _sso() -> APIRouter:
    """Raises ConfigError where the extra is not installed."""
    try:
        from dicomnode.web import sso  # it needs what comes with the extra `oidc` only
    except ModuleNotFoundError as error:
        raise ConfigError(f"[web.oidc] needs {error.name}: pip install 'perfusion-node[oidc]'") from error
    return sso.router


class Guard:
    """Headers of every answer, and its line in the log: the route and not the address, which may name a patient."""

    def __init__(self, app: ASGIApp, secret: bool) -> None:
        self._app = app
        names = {**HEADERS, "Strict-Transport-Security": A_YEAR} if secret else HEADERS
        self._headers = [(name.lower().encode(), value.encode()) for name, value in names.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def send_guarded(message: ASGIMessage) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        finally:
            route = getattr(scope.get("route"), "path", "(no route)")
            method = scope["method"] if scope["method"] in METHODS else "(other)"
            access_log.info("%s %s %d in %.3f s", method, route, status, time.monotonic() - begun)


async def _to_login(_: Request, __: Exception) -> Response:
    return RedirectResponse("/login", 303)


async def _say(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(DICOMWEB):
        return page(request, "error.html", None, error.status_code, detail=error.detail)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _books_away(_: Request, error: Exception) -> Response:
    log.error("the books do not answer", exc_info=error)
    return JSONResponse({"detail": "the books do not answer; try again"}, 503, {"Retry-After": "10"})
