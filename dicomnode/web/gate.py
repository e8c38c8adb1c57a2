"""The one gate: who asks, by session, token or password, and may they?"""

import base64
import binascii
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, HTTPException, Request

from dicomnode import bookkeeping, passwords
from dicomnode.bookkeeping import Books, Visitor
from dicomnode.roles import MAY, Right, is_name
from dicomnode.web.site import Site, site_of

COOKIE, LINK_COOKIE = "dicomnode", "dicomnode-link"
REFRESH = "x-refresh"  # header of a page that only looks whether something has changed
CHALLENGE = {"WWW-Authenticate": 'Basic realm="perfusion node", charset="UTF-8"'}
REMEMBERED = timedelta(minutes=1)  # programs send the password with each request; verifying takes 50 ms of a core


class NotLoggedIn(Exception):
    """A browser without a session; it is led to the login page."""


@dataclass(slots=True)
class Verified:
    """Passwords that were right a moment ago, as digests under a key that no other process knows."""

    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _until: dict[bytes, datetime] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def knows(self, mark: bytes, now: datetime) -> bool:
        """True where these credentials were verified within the last minute."""
        with self._lock:
            return self._until.get(mark, now) > now

    def remember(self, mark: bytes, now: datetime) -> None:
        """They were verified now."""
        with self._lock:
            self._until = {each: until for each, until in self._until.items() if until > now}
            self._until[mark] = now + REMEMBERED

    def mark(self, name: str, password: str, password_hash: str | None) -> bytes:
        """By which they are remembered; another password of the account makes it another."""
        return hmac.digest(self._key, repr((name, password, password_hash)).encode(), sha256)


_verified = Verified()


def log_in(
    books: Books, name: str, password: str, address: str, now: datetime, *, noted: bool = True
) -> Visitor | None:
    """Who has this name and password; None where they are wrong or the account is locked for the moment.

    noted: False where a program says them with each request; only what is wrong is then recorded.
    """
    account = bookkeeping.account(books, name) if is_name(name) else None
    if account and account.locked_until and account.locked_until > now:
        return None
    known_hash = account.password_hash if account else None
    mark = _verified.mark(name, password, known_hash)
    if not (account and not noted and _verified.knows(mark, now)):
        if not passwords.is_password(password, known_hash) or account is None:
            bookkeeping.note_failure(books, account.name if account else "", address, now)
            return None
        if noted or account.failures:
            bookkeeping.note_login(books, name, address, now)
        _verified.remember(mark, now)
    return Visitor(account.name, account.role, "password")


def visitor(request: Request, site: Annotated[Site, Depends(site_of)]) -> Visitor | None:
    """Who asks; None where nobody says."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    now, address = site.clock(), address_of(request)
    match scheme.lower():
        case "bearer":
            found = bookkeeping.visitor(site.books, passwords.digest(given.strip()), now)
            return found if found and found.kind == bookkeeping.TOKEN else None
        case "basic":
            name, password = _basic(given)
            return log_in(site.books, name, password, address, now, noted=False)
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    active = REFRESH not in request.headers
    found = bookkeeping.visitor(site.books, passwords.digest(secret), now, active=active)
    return found if found and found.kind == bookkeeping.SESSION else None


def may(right: Right) -> Callable[..., Visitor]:
    """A dependency: a program or session that has the right, else 401 or 403."""

    def check(request: Request, who: Annotated[Visitor | None, Depends(visitor)]) -> Visitor:
        if who is None:
            raise HTTPException(401, "log in with Basic or Bearer authorization", CHALLENGE)
        if right not in MAY[who.role]:
            raise HTTPException(403, f"the role {who.role} may not {right}")
        if request.method not in ("GET", "HEAD") and who.kind == bookkeeping.SESSION:
            raise HTTPException(403, "a browser's session may not store; use a token")
        return who

    return check


def may_see(right: Right) -> Callable[..., Visitor]:
    """A dependency for pages: a session that has the right, else the login page or 403."""

    def check(who: Annotated[Visitor | None, Depends(visitor)]) -> Visitor:
        if who is None or who.kind != bookkeeping.SESSION:
            raise NotLoggedIn
        if right not in MAY[who.role]:
            raise HTTPException(403, f"the role {who.role} may not {right}")
        return who

    return check


def may_open(
    request: Request,
    job: str,
    who: Annotated[Visitor | None, Depends(visitor)],
    site: Annotated[Site, Depends(site_of)],
) -> Visitor:
    """A dependency for the page of one job: a session that may read, or a link to this job that still counts."""
    if who is None and (secret := request.cookies.get(LINK_COOKIE)):
        who = bookkeeping.visitor(site.books, passwords.digest(secret), site.clock())
    if who is None or who.kind not in (bookkeeping.SESSION, bookkeeping.LINK):
        raise NotLoggedIn
    if Right.READ not in MAY[who.role] or (who.kind == bookkeeping.LINK and who.job != job):
        raise HTTPException(403, "this opens the page of another job, or none at all")
    return who


def may_do(right: Right) -> Callable[..., Any]:
    """A dependency for what a form does: as may_see, and the form must come from a page of this session."""

    async def check(
        request: Request,
        who: Annotated[Visitor, Depends(may_see(right))],
        site: Annotated[Site, Depends(site_of)],
    ) -> Visitor:
        refuse_foreign(request, site)
        given = (await form_of(request)).get("csrf", "")
        if not hmac.compare_digest(given.encode(), who.csrf.encode()):
            raise HTTPException(403, "this form is not of your session; reload the page and try again")
        return who

    return check


def refuse_foreign(request: Request, site: Site) -> None:
    """Raise 403 where another site's page makes the browser send this (Origin, Fetch Metadata)."""
    origin = request.headers.get("origin")
    own = {request.headers.get("host", ""), urlsplit(site.settings.web.public_url).netloc} - {""}  # of "Origin: null"
    foreign = origin is not None and urlsplit(origin).netloc not in own
    if foreign or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this was sent by a page of another site")


LARGEST_FORM = 16384  # bytes


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a small form; the first of each name. Raises 413 or 415."""
    if (known := getattr(request.state, "form", None)) is not None:
        return dict(known)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is application/x-www-form-urlencoded")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_FORM:
            raise HTTPException(413, f"a form has at most {LARGEST_FORM} bytes")
    request.state.form = _fields(bytes(content))
    return dict(request.state.form)


def _fields(content: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(content.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="replace")
    except (UnicodeDecodeError, ValueError) as error:
        raise HTTPException(400, "the form cannot be read") from error
    return dict(reversed(pairs))


def address_of(request: Request) -> str:
    """The address of who connects to us, be it a proxy."""
    return request.client.host if request.client else "unknown"


def _basic(given: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password
