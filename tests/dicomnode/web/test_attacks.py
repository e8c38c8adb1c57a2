"""Every route that the service has, and who may ask it what: a route that stands in no row here fails."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import requests

from dicomnode import bookkeeping, passwords
from dicomnode.roles import MAY, Right, Role
from tests.dicomnode.web.place import NAMES, Place

OPEN = {"/health/live", "/health/ready", "/login", "/static/{name}", "/pilo/link/{secret}"}  # these ask for no role
PROGRAMS = {
    ("GET", "/dicom-web"): Right.READ,
    ("POST", "/dicom-web"): Right.STORE,
    ("GET", "/metrics"): Right.METRICS,
    ("POST", "/pilo/link"): Right.READ,
}
PAGES = {
    ("GET", "/"): Right.READ,
    ("GET", "/study/{id}"): Right.READ,
    ("GET", "/pilo/{job}"): Right.READ,
    ("GET", "/pilo/{job}/data"): Right.READ,
    ("GET", "/accounts"): Right.ACCOUNTS,
    ("POST", "/find"): Right.READ,
    ("POST", "/logout"): Right.READ,
    ("POST", "/job/{job}/{action}"): Right.ACT,
    ("POST", "/pilo/{job}/captures"): Right.EXPLORE,
    ("POST", "/accounts/{action}"): Right.ACCOUNTS,
}
HOUR = timedelta(hours=1)


def of_programs(method: str, path: str) -> Right | None:
    part = "/dicom-web" if path.startswith("/dicom-web/") else path
    return PROGRAMS.get((method, part))


def session(place: Place, role: Role, until: timedelta = HOUR) -> tuple[dict[str, str], str]:
    """The cookie of a session as any role, even one that gets none by logging in, and what its forms bring back."""
    secret, csrf, now = passwords.new_secret(), passwords.new_secret(), datetime.now(UTC)
    values = (NAMES[role], bookkeeping.SESSION, csrf, now + until, now, "test")
    bookkeeping.add_access(place.books, passwords.digest(secret), *values)
    return {"Cookie": f"dicomnode={secret}"}, csrf


def ask(place: Place, method: str, address: str, headers: dict[str, str], form: dict[str, str] | None = None) -> int:
    """The status; 401 for whoever is led to the login page."""
    url = place.url + address
    answer = requests.request(method, url, headers=headers, data=form, allow_redirects=False, timeout=60)
    to_login = answer.status_code == 303 and answer.headers["Location"] == "/login"
    return 401 if to_login else answer.status_code


@pytest.mark.parametrize("role", Role)
def test_each_route_is_for_the_roles_that_may_and_for_no_other(place: Place, role):
    seen = 0
    for method, path, address in place.routes():
        if path in OPEN:
            continue
        right = of_programs(method, path)
        if right:
            headers, form = {"Authorization": f"Bearer {place.tokens[role]}"}, None
        else:
            headers, csrf = session(place, role)
            right, form = PAGES[method, path], {"csrf": csrf} if method == "POST" else None
        status = ask(place, method, address, headers, form)
        refused = {403} if path == "/logout" else {401, 403}  # which leads to the login page, too
        assert (status in refused) == (right not in MAY[role]), (method, path, status)
        seen += 1
    assert seen >= len(PAGES) + len(PROGRAMS)


def test_no_form_does_anything_that_no_page_of_this_session_sent(place: Place):
    theirs = session(place, Role.ADMINISTRATOR)[1]
    forms = [(path, address) for method, path, address in place.routes() if method == "POST"]
    seen = {path for path, _ in forms}
    for path, address in forms:
        if path in OPEN or of_programs("POST", path):
            continue
        headers, own = session(place, Role.ADMINISTRATOR)
        for csrf, more in (
            (None, {}),
            ("", {}),
            (theirs, {}),
            (own, {"Origin": "https://evil.example"}),
            (own, {"Origin": "null"}),
            (own, {"Sec-Fetch-Site": "cross-site"}),
            (own, {"Sec-Fetch-Site": "same-site"}),
        ):
            form = {"name": "x"} | ({} if csrf is None else {"csrf": csrf})
            assert ask(place, "POST", address, headers | more, form) == 403, (path, csrf == own, more)
    assert seen >= {path for method, path in PAGES if method == "POST"}


def test_a_session_ends_at_its_hour_however_busy_it_is(place: Place):
    for until, status in ((HOUR, 200), (timedelta(seconds=-1), 401)):
        assert ask(place, "GET", "/", session(place, Role.VIEWER, until)[0]) == status


def test_no_token_is_a_session_and_no_session_stores(place: Place):
    for role in Role:
        cookie, bearer = (
            {"Cookie": f"dicomnode={place.tokens[role]}"},
            {"Authorization": f"Bearer {place.tokens[role]}"},
        )
        assert [ask(place, "GET", "/", headers) for headers in (cookie, bearer)] == [401, 401]
        assert ask(place, "POST", "/dicom-web/studies", session(place, role)[0]) == 403
        secret = re.sub("dicomnode=", "", session(place, role)[0]["Cookie"])
        assert ask(place, "GET", "/dicom-web/studies", {"Authorization": f"Bearer {secret}"}) == 401
