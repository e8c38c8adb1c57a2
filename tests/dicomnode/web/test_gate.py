"""dicomnode.web.gate as an attacker meets it: nothing without login, roles enforced, tokens end, doors lock."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
import requests
from argon2 import PasswordHasher

from dicomnode import bookkeeping, passwords
from dicomnode.roles import FREE_TRIES, Role, lock_after
from tests.dicomnode.arrivals import part10
from tests.dicomnode.web.pages import csrf_of, session_of
from tests.dicomnode.web.place import HASH, NAMES, PASSWORD, Place, head_ct, serving, settings_in

OPEN = {"/health/live", "/health/ready", "/login", "/static/{name}"}  # what answers strangers


def basic(place: Place, name: str, password: str) -> int:
    return requests.get(place.dicomweb + "/studies", auth=(name, password), timeout=60).status_code


def test_no_route_answers_strangers(place: Place, monkeypatch):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("whoever")
    monkeypatch.setattr(passwords, "_nobodys", lambda: cheap)  # with which strangers' passwords are compared
    for method, path, address in place.routes():
        if path in OPEN:
            continue
        for headers in (
            {},
            {"Authorization": "Bearer " + "x" * 43},
            {"Authorization": "Basic bm9ib2R5Om5vdGhpbmc="},
            {"Authorization": "Basic %%%"},
            {"Authorization": "Negotiate abc"},
            {"Cookie": "dicomnode=" + "x" * 43},
            {"Cookie": f"dicomnode={place.tokens[Role.ADMINISTRATOR]}"},  # a token is no session
        ):
            url = place.url + address
            answer = requests.request(method, url, headers=headers, allow_redirects=False, timeout=60)
            to_login = answer.status_code == 303 and answer.headers["Location"] == "/login"
            assert answer.status_code in (401, 403) or to_login, (method, path, headers, answer.status_code)


def test_no_description_of_the_service_is_served(place: Place):
    for path in ("/docs", "/redoc", "/openapi.json", "/dicom-web/openapi.json", "/server-status", "/.git/config"):
        assert requests.get(place.url + path, timeout=60, allow_redirects=False).status_code == 404


def test_a_token_ends_and_is_withdrawn(empty: Place):
    now = datetime.now(UTC)
    for until, status in ((now + timedelta(hours=1), 204), (now - timedelta(seconds=1), 401)):
        empty.tokens[Role.VIEWER] = empty.token(Role.VIEWER, until)
        assert empty.get("/studies").status_code == status
    empty.tokens[Role.VIEWER] = empty.token(Role.VIEWER)
    assert empty.get("/studies").status_code == 204
    assert bookkeeping.end_tokens(empty.books, NAMES[Role.VIEWER], now, "test") >= 1
    assert empty.get("/studies").status_code == 401


def test_an_account_that_is_removed_takes_its_tokens_along(empty: Place):
    assert empty.get("/studies", Role.OPERATOR).status_code == 204
    assert bookkeeping.remove_account(empty.books, NAMES[Role.OPERATOR], datetime.now(UTC), "test")
    assert empty.get("/studies", Role.OPERATOR).status_code == 401


def test_a_new_password_counts_at_once(empty: Place):
    name, now = NAMES[Role.VIEWER], datetime.now(UTC)
    assert basic(empty, name, PASSWORD) == 204
    bookkeeping.change_account(
        empty.books, name, now, "test", password_hash=passwords.hash_password("another one, long")
    )
    assert [basic(empty, name, PASSWORD), basic(empty, name, "another one, long")] == [401, 204]


def test_wrong_passwords_lock_the_account_for_a_while_and_say_nothing_more(empty: Place):
    name = NAMES[Role.VIEWER]
    assert {basic(empty, name, f"wrong {n}") for n in range(FREE_TRIES)} == {401}
    assert basic(empty, name, PASSWORD) == 401  # locked, and it does not say so
    assert basic(empty, NAMES[Role.OPERATOR], PASSWORD) == 204  # the others are not
    account = bookkeeping.account(empty.books, name)
    assert account is not None
    assert account.locked_until is not None
    assert account.locked_until > datetime.now(UTC)
    assert bookkeeping.change_account(
        empty.books, name, datetime.now(UTC), "test", password_hash=passwords.hash_password(PASSWORD)
    )
    assert basic(empty, name, PASSWORD) == 204


def test_locks_grow_and_end():
    now = datetime.now(UTC)
    locks = [lock_after(n, now) for n in range(40)]
    assert locks[:FREE_TRIES] == [None] * FREE_TRIES
    waits = [(until - now).total_seconds() for until in locks[FREE_TRIES:]]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (30, 900)


def test_a_stranger_s_name_is_not_recorded_since_it_may_be_a_password(empty: Place):
    basic(empty, "hunter2 hunter2", "x")
    with bookkeeping.store.reading(empty.books) as session:
        said = [(h.subject_id, h.after, h.actor) for h in session.query(bookkeeping.History).all()]
    assert ("(unknown)", "LOGIN REFUSED", "(unknown)") in said
    assert "hunter2" not in repr(said)


def test_short_passwords_are_refused():
    for password in ("", "x" * 11, "x" * 257):
        with pytest.raises(ValueError, match="12 to 256"):
            passwords.hash_password(password)
    assert not passwords.is_password("x" * 10_000_000, HASH)


def test_answers_forbid_what_pages_do_not_need(place: Place):
    for path in ("/health/live", "/dicom-web/studies", "/login", "/nothing"):
        answer = requests.get(place.url + path, timeout=60)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_no_patient_in_the_logs(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), serving(tmp_path) as place:
        name = "Zyxwv^Geheim"
        parts = [part10(ds) for ds in head_ct(PatientName=name, PatientID="GEHEIM-ID", AccessionNumber="GEHEIM-ACC")]
        assert place.store([*parts, b"junk GEHEIM"]).status_code == 202
        place.get("/studies", PatientName=name, PatientID="GEHEIM-ID")
        place.get("/studies/GEHEIM-UID/series/GEHEIM-UID/metadata")
        with session_of(place, Role.VIEWER) as viewer:
            form = {"csrf": csrf_of(viewer.get(place.url + "/", timeout=60).text), "key": "GEHEIM-ACC"}
            found = viewer.post(place.url + "/find", data=form, timeout=60)
            assert "Study GEHEIM-ACC" in found.text and "GEHEIM" not in found.url
        requests.get(place.url + "/GEHEIM", timeout=60)
        requests.request("GEHEIM", place.url + "/", timeout=60)
    said = "\n".join(
        record.getMessage() + str(record.exc_info or "")
        for record in caplog.records
        if record.name != "urllib3.connectionpool"
    )
    for route in ("/dicom-web/studies/{study}/series/{series}/metadata", "/find", "/study/{id}"):
        assert route in said  # the access log is on
    assert "GEHEIM" not in said.upper()
    assert "ZYXWV" not in said.upper()


def test_passwords_never_go_in_clear_text_to_another_machine(tmp_path):
    from dicomnode.config import ConfigError

    with pytest.raises(ConfigError, match="clear text"):
        settings_in(tmp_path, web={"host": "0.0.0.0"})
    assert settings_in(tmp_path, web={"host": "0.0.0.0", "public_url": "https://node.example"}).web.is_secret
