"""Logging in at a provider of OpenID Connect: who it vouches for comes in, anything else is refused in words."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from playwright.sync_api import Browser

from dicomnode import bookkeeping, config, doctor, oidc, passwords
from dicomnode.config import ConfigError
from dicomnode.demo import free_port
from dicomnode.roles import FREE_TRIES, Role
from dicomnode.web import sso
from tests.dicomnode.web.browser import clean, opened, watched
from tests.dicomnode.web.pages import csrf_of, history
from tests.dicomnode.web.place import HASH, NAMES, PASSWORD, Place, serving
from tests.dicomnode.web.provider import CLIENT, SECRET, Provider

PAST, FUTURE = int(time.time()) - 3600, int(time.time()) + 3600
STRANGERS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
REFUSED = {
    "another nonce": ({"claims": {"nonce": "x"}}, "made for another log-in than this one"),
    "another audience": ({"claims": {"aud": "another"}}, "made for another program"),
    "others besides us": ({"claims": {"aud": [CLIENT, "another"]}}, "made for another program"),
    "authorized party": ({"claims": {"azp": "another"}}, "made for another program"),
    "another issuer": ({"claims": {"iss": "https://elsewhere.example"}}, "it is of another provider"),
    "expired": ({"claims": {"iat": PAST - 60, "exp": PAST}}, "it has expired"),
    "not yet": ({"claims": {"nbf": FUTURE}}, "it is not valid yet"),
    "without an end": ({"claims": {"exp": None}}, "it lacks a claim"),
    "without a nonce": ({"claims": {"nonce": None}}, "it lacks a claim"),
    "nobody": ({"claims": {"sub": ""}}, "names nobody"),
    "a stranger's key": ({"key": STRANGERS}, "not signed by a key of the provider"),
    "no signature": ({"algorithm": "none"}, "not signed by a key of the provider"),
    "a shared secret": ({"algorithm": "HS256", "key": SECRET * 4}, "not signed by a key of the provider"),
    "no group of ours": ({"claims": {"groups": ["everybody"]}}, "none of your groups"),
    "no groups": ({"claims": {"groups": None}}, "none of your groups"),
    "groups of another form": ({"claims": {"groups": {"radiology": False}}}, "none of your groups"),
    "a number for groups": ({"claims": {"groups": 1}}, "none of your groups"),
    "no name": ({"claims": {"preferred_username": None}}, "no name that an account can have"),
    "a name with a colon": ({"claims": {"preferred_username": "anna:x"}}, "no name that an account can have"),
    "the name of another": ({"claims": {"preferred_username": NAMES[Role.ADMINISTRATOR]}}, "has already"),
    "another state": ({"answers": {"state": "x"}}, "not the answer to the log-in that this browser began"),
    "no state": ({"answers": {"state": ""}}, "not the answer to the log-in that this browser began"),
    "another provider": ({"answers": {"iss": "https://elsewhere.example"}}, "of another provider than the one asked"),
    "an error": ({"answers": {"error": "access_denied", "code": ""}}, "has not let you in"),
    "no code": ({"answers": {"code": ""}}, "has no code"),
    "a code that is not": ({"answers": {"code": "guessed"}}, "does not take its code back"),
}


@contextmanager
def house_of(provider: Provider, folder: Path) -> Iterator[Place]:
    """A node that knows the provider."""
    port = free_port()
    web = {"port": port, "public_url": f"http://127.0.0.1:{port}", "oidc": provider.setting()}
    with serving(folder, web=web) as place:
        yield place


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Provider]]:
    with Provider().running() as provider, house_of(provider, tmp_path_factory.mktemp("sso")) as place:
        yield place, provider


@pytest.fixture(autouse=True)
def client_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(oidc.SECRET, SECRET)


@pytest.fixture
def provider(shared: tuple[Place, Provider]) -> Iterator[Provider]:
    """Well-behaved at first, and nobody is known by it."""
    place, provider = shared
    plain = Provider()
    for name in ("claims", "answers", "metadata", "algorithm", "key"):
        setattr(provider, name, getattr(plain, name))
    sso._discovered.cache_clear()
    for account, _ in bookkeeping.accounts(place.books):
        if account.subject:
            bookkeeping.remove_account(place.books, account.name, datetime.now(UTC), "test")
    provider.asked.clear()
    yield provider


@pytest.fixture
def place(shared: tuple[Place, Provider], provider: Provider) -> Place:
    return shared[0]


def somebody() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def enter(place: Place, session: requests.Session) -> requests.Response:
    """To the provider and back."""
    return session.get(f"{place.url}/login/oidc", timeout=60)


def name_on(place: Place, session: requests.Session) -> str:
    """Whose session it is, as the page says; empty without one."""
    answer = session.get(place.url + "/", timeout=60)
    return "" if answer.url.endswith("/login") else answer.text.partition('class="who">')[2].partition("<")[0]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_whom_the_provider_vouches_for_has_a_session_like_any_other(place: Place, provider: Provider, algorithm, way):
    provider.algorithm = algorithm
    provider.metadata = {"token_endpoint_auth_methods_supported": [way]}
    with somebody() as anna:
        answer = enter(place, anna)
        assert (answer.status_code, answer.history[-1].status_code) == (200, 302)
        assert 'http-equiv="refresh" content="0; url=/"' in answer.text
        (cookie,) = anna.cookies  # the one of the attempt is gone
        assert cookie.name == "dicomnode" and cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "strict"
        assert name_on(place, anna) == "anna, viewer"
        text = anna.get(place.url + "/", timeout=60).text
        assert anna.get(f"{place.url}/accounts", timeout=60).status_code == 403
        assert anna.post(place.url + "/logout", data={"csrf": csrf_of(text)}, timeout=60).url.endswith("/login")
        assert name_on(place, anna) == ""
    assert ("anna", "from 127.0.0.1, by the provider", "anna") in history(place, "LOGIN")
    told = [message for message in trail(place) if message["EventTypeCode"][0]["originalText"] == "Login"]
    assert told[-1]["EventOutcomeIndicator"] == "0"
    assert told[-1]["ActiveParticipant"][0]["UserID"] == "anna"


def trail(place: Place) -> list[dict[str, Any]]:
    """What the audit trail says of logging in and out."""
    messages = [message for _, message in bookkeeping.trail(place.books)]
    return [said["EventIdentification"] | said for said in messages if "User Authentication" in repr(said)]


@pytest.mark.parametrize(("wrong", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_just_so_is_refused_in_words(place: Place, provider: Provider, wrong, words):
    before = len(trail(place))
    for name, value in wrong.items():
        setattr(provider, name, value)
    with somebody() as stranger:
        answer = enter(place, stranger)
        assert (answer.status_code, words in answer.text) == (403, True), answer.text
        assert not list(stranger.cookies)
        assert name_on(place, stranger) == ""
    assert not [account for account, _ in bookkeeping.accounts(place.books) if account.subject]
    (refused,) = trail(place)[before:]
    assert refused["EventOutcomeIndicator"] == "4"
    assert words in history(place, "LOGIN REFUSED")[-1][1]


def test_a_code_counts_once_and_in_the_browser_that_asked_for_it_alone(place: Place, provider: Provider):
    with somebody() as anna, somebody() as eve:
        begun = anna.get(f"{place.url}/login/oidc", allow_redirects=False, timeout=60)
        back = anna.get(begun.headers["Location"], allow_redirects=False, timeout=60).headers["Location"]
        assert "not begun to log in" in eve.get(back, timeout=60).text
        begun = eve.get(f"{place.url}/login/oidc", allow_redirects=False, timeout=60)
        assert "not the answer to the log-in" in eve.get(back, timeout=60).text
        begun = eve.get(f"{place.url}/login/oidc", allow_redirects=False, timeout=60)
        state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
        code = parse_qs(urlsplit(back).query)["code"][0]
        stolen = f"{place.url}/login/oidc/return?code={code}&state={state}"  # what Anna's was for has another challenge
        assert "does not take its code back" in eve.get(stolen, timeout=60).text
        assert name_on(place, eve) == ""
    with somebody() as anna:
        answer = enter(place, anna)
        assert name_on(place, anna) == "anna, viewer"
        assert "not begun to log in" in anna.get(answer.url, timeout=60).text  # the page that was come back to


def test_the_role_is_what_the_provider_says_and_a_new_one_ends_the_sessions_of_before(place: Place, provider: Provider):
    with somebody() as before, somebody() as after:
        enter(place, before)
        provider.claims = {"groups": ["radiology", "pacs-team", "radiographers"]}
        enter(place, after)
        assert name_on(place, before) == ""
        assert name_on(place, after) == "anna, administrator"  # the highest of them
        provider.claims = {"groups": "radiographers"}
        enter(place, after)
        assert name_on(place, after) == "anna, operator"


def test_somebody_is_known_by_the_provider_s_lasting_name_and_nobody_inherits_an_account(
    place: Place, provider: Provider
):
    with somebody() as anna, somebody() as other:
        enter(place, anna)
        provider.claims = {"preferred_username": "anna.meier"}
        enter(place, anna)
        assert name_on(place, anna) == "anna, viewer"
        provider.claims = {"sub": "b-2"}  # somebody else who is called so now
        assert "has already" in enter(place, other).text
        assert name_on(place, other) == ""


def test_neither_password_nor_role_nor_token_can_be_given_to_such_an_account(place: Place, provider: Provider):
    now = datetime.now(UTC)
    with somebody() as anna:
        enter(place, anna)
        for change in ({"password_hash": HASH}, {"role": Role.ADMINISTRATOR}):
            assert not bookkeeping.change_account(place.books, "anna", now, "test", **change)
        assert requests.get(f"{place.dicomweb}/studies", auth=("anna", PASSWORD), timeout=60).status_code == 401
        assert name_on(place, anna) == "anna, viewer"
        with somebody() as administrator:
            form = {"name": NAMES[Role.ADMINISTRATOR], "password": PASSWORD}
            assert administrator.post(place.url + "/login", data=form, timeout=60).ok
            page = administrator.get(place.url + "/accounts", timeout=60).text
            assert "by the provider" in page
            assert "New password of viewer" in page and "New password of anna" not in page
            form = {"csrf": csrf_of(page), "name": "anna"}
            assert administrator.post(place.url + "/accounts/remove", data=form, timeout=60).ok
        assert name_on(place, anna) == ""


def test_wrong_passwords_do_not_lock_out_who_comes_by_the_provider(place: Place, provider: Provider, monkeypatch):
    monkeypatch.setattr(passwords, "is_password", lambda *_: False)
    with somebody() as anna:
        enter(place, anna)
        for n in range(FREE_TRIES + 1):
            form = {"name": "anna", "password": f"guess {n}"}
            assert requests.post(place.url + "/login", data=form, timeout=60).status_code == 401
        account = bookkeeping.account(place.books, "anna")
        assert account is not None and account.locked_until is not None
        enter(place, anna)
        assert name_on(place, anna) == "anna, viewer"


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://elsewhere.example"}, "set issuer to just that"),
        ({"jwks_uri": None}, "names no jwks_uri"),
        ({"token_endpoint": "http://elsewhere.example/token"}, "is not an https address"),
        ({"jwks_uri": "ftp://localhost/keys"}, "is not an https address"),
    ],
)
def test_a_provider_that_is_not_what_it_should_be_is_told_to_the_log_and_asked_nothing(
    place: Place, provider: Provider, metadata, why, caplog
):
    provider.metadata = metadata
    with somebody() as anna, caplog.at_level(logging.ERROR):
        answer = enter(place, anna)
        assert (answer.status_code, "The provider does not answer as it should" in answer.text) == (503, True)
        assert name_on(place, anna) == ""
    assert why in caplog.text


def test_doctor_asks_the_provider(place: Place, provider: Provider):
    web = {"enabled": True, "public_url": place.url, "oidc": provider.setting()}
    (found,) = doctor.CHECKS["provider"](config.parse({"web": web}), datetime.now(UTC))
    assert (found.found, found.remedy) == (f"{provider.issuer} answers", "")


def test_a_provider_that_is_away_or_does_not_know_us_leaves_the_passwords(place: Place, monkeypatch):
    with somebody() as anna:
        monkeypatch.setenv(oidc.SECRET, "another")
        assert enter(place, anna).status_code == 503
        monkeypatch.delenv(oidc.SECRET)
        assert enter(place, anna).status_code == 503
        sso._discovered.cache_clear()
        monkeypatch.setattr(oidc, "discover", lambda setting: (_ for _ in ()).throw(oidc.Away("away")))
        assert enter(place, anna).status_code == 503
        form = {"name": NAMES[Role.VIEWER], "password": PASSWORD}
        assert anna.post(place.url + "/login", data=form, timeout=60).ok
        assert name_on(place, anna) == "viewer"


def test_no_secret_of_a_log_in_is_written_anywhere(provider: Provider, tmp_path: Path, caplog):
    with caplog.at_level(logging.DEBUG), house_of(provider, tmp_path) as place, somebody() as anna:
        answer = enter(place, anna)
        assert name_on(place, anna) == "anna, viewer"
    query = parse_qs(urlsplit(answer.url).query)
    said = "\n".join(r.getMessage() for r in caplog.records if r.name != "urllib3.connectionpool")
    assert "GET /login/oidc/return 200" in said
    for word in (query["state"][0], SECRET, f"code={query['code'][0]}", "anna"):
        assert word not in said


def test_without_the_setting_the_page_knows_of_no_provider(tmp_path: Path):
    with serving(tmp_path) as place:
        assert "provider" not in requests.get(place.url + "/login", timeout=60).text
        for path in ("/login/oidc", "/login/oidc/return"):
            assert requests.get(place.url + path, timeout=60).status_code == 404


def test_a_browser_comes_back_from_another_site_and_is_logged_in(place: Place, provider: Provider, browser: Browser):
    """Whose session is kept in a strict cookie, which it does not send along from that site."""
    with opened(browser, place.url) as context, watched(context) as page:
        page.goto("/")
        assert clean(page) == []
        page.keyboard.press("Enter")  # the button has the focus
        page.wait_for_url(f"{place.url}/")
        assert page.get_by_text("anna, viewer").is_visible()
    assert urlsplit(provider.issuer).hostname != urlsplit(place.url).hostname
    assert "/authorize" in provider.asked


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"issuer": "http://login.example"}, "is not the https address of an issuer"),
        ({"client_id": ""}, "needs the key 'client_id'"),
        ({"viewer": []}, "lets nobody in"),
        ({"scopes": ["profile"]}, 'scopes lacks "openid"'),
        ({"issuers": "x"}, "did you mean 'issuer'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(change, words):
    good = {"issuer": "https://login.example", "client_id": "node", "viewer": ["radiology"]}
    web = {"public_url": "https://node.example"}
    assert config.parse({"web": web | {"oidc": good}}).web.oidc.viewer == ("radiology",)
    with pytest.raises(ConfigError, match=words):
        config.parse({"web": web | {"oidc": good | change}})
    with pytest.raises(ConfigError, match=r"needs \[web\] public_url"):
        config.parse({"web": {"oidc": good}})


def test_a_claim_may_lie_within_another():
    setting = config.Oidc(role_claim="realm_access.roles", operator=("radiographers",))
    claims = {"sub": "x", "preferred_username": "anna", "realm_access": {"roles": ["a", "radiographers"]}}
    assert oidc.person(setting, claims).role is Role.OPERATOR
