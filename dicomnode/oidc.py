"""Logging in at the hospital's provider of OpenID Connect: the authorization code flow with PKCE.

OpenID Connect Core 1.0 section 3.1, Discovery 1.0, RFC 7636 (PKCE), RFC 9207 (iss). What the provider says of a person
is believed from its ID token alone, which dicomnode.id_token reads.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from dicomnode.config import LOOPBACK, Oidc
from dicomnode.https import connect
from dicomnode.notify import secret
from dicomnode.roles import Role, is_name

SECRET = "DICOMNODE_OIDC_SECRET"  # environment variable or credential: the client secret
PATIENCE = 10.0  # seconds
LARGEST = 1 << 20  # bytes of an answer
HIGHEST_FIRST = (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER)
Claims = Mapping[str, Any]


class Away(Exception):
    """The provider does not answer, or not as one; the message says what to mend."""


class LoginRefused(Exception):
    """Somebody may not come in; the message tells them why. name: as whom, once the provider has vouched for it."""

    def __init__(self, why: str, name: str = "") -> None:
        super().__init__(why)
        self.name = name


@dataclass(frozen=True, slots=True)
class Attempt:
    """One log-in under way. All that must come back is made of one secret, which the browser keeps in a cookie."""

    secret: str

    @property
    def state(self) -> str:
        """Comes back with the browser: it is the one that began."""
        return self._made("state")

    @property
    def nonce(self) -> str:
        """Comes back in the ID token: it was made for this attempt."""
        return self._made("nonce")

    @property
    def verifier(self) -> str:
        """Redeems the code, whose challenge it is (RFC 7636 4.1)."""
        return self._made("verifier")

    def _made(self, what: str) -> str:
        return _text(hmac.digest(self.secret.encode(), what.encode(), sha256))


@dataclass(frozen=True, slots=True)
class Provider:
    """Where the provider does what (Discovery 1.0 section 3). by_post: it takes the client secret in the form alone."""

    authorization: str
    token: str
    keys: str
    by_post: bool


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider vouches for. subject: the issuer and its lasting name of the person, which is never reused."""

    subject: str
    name: str
    role: Role


def discover(oidc: Oidc) -> Provider:
    """Ask the issuer for its addresses; raises Away."""
    where = f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
    status, said = _ask(oidc, where)
    if status != 200:
        raise Away(f"{where} answers {status}")
    if said.get("issuer") != oidc.issuer:
        raise Away(f"{where} is of the issuer {said.get('issuer')!r}; set issuer to just that, if it is the right one")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if lacking := [name for name in names if not isinstance(said.get(name), str)]:
        raise Away(f"{where} names no {lacking[0]}")
    ways = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    authorization, token, keys = (str(said[name]) for name in names)
    return Provider(authorization, token, keys, by_post=isinstance(ways, list) and "client_secret_basic" not in ways)


def beginning(oidc: Oidc, provider: Provider, attempt: Attempt, back: str) -> str:
    """The address where the provider asks who it is; back: where it sends the browser to then."""
    asked = {
        "response_type": "code",
        "client_id": oidc.client_id,
        "redirect_uri": back,
        "scope": " ".join(oidc.scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": _text(sha256(attempt.verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    return f"{provider.authorization}{'&' if '?' in provider.authorization else '?'}{urlencode(asked)}"


def code_of(oidc: Oidc, attempt: Attempt, given: Mapping[str, str]) -> str:
    """The code that the browser brings back; raises LoginRefused. given: the parameters of its address."""
    if not hmac.compare_digest(given.get("state", "").encode(), attempt.state.encode()):
        raise LoginRefused("This is not the answer to the log-in that this browser began; begin again.")
    if given.get("iss", oidc.issuer) != oidc.issuer:  # RFC 9207
        raise LoginRefused("The answer is of another provider than the one asked; begin again.")
    if "error" in given:
        raise LoginRefused("The provider has not let you in; begin again, or ask who runs it.")
    if not given.get("code"):
        raise LoginRefused("The provider's answer has no code; begin again.")
    return given["code"]


def redeem(oidc: Oidc, provider: Provider, attempt: Attempt, back: str, code: str) -> tuple[str, Claims]:
    """The ID token for a code, and the keys that the issuer signs with now; raises LoginRefused or Away."""
    own = secret(SECRET)
    if not own:
        raise Away(f"set the client secret: environment variable or credential {SECRET}")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": back,
        "code_verifier": attempt.verifier,
    }
    headers = {}
    if provider.by_post:
        form |= {"client_id": oidc.client_id, "client_secret": own}
    else:  # RFC 6749 2.3.1
        both = f"{quote_plus(oidc.client_id)}:{quote_plus(own)}"
        headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
    status, said = _ask(oidc, provider.token, urlencode(form), headers)
    if status == 401 or said.get("error") in ("invalid_client", "unauthorized_client"):
        raise Away(f"{provider.token} does not know us: mend client_id or {SECRET}")
    if status != 200 or not isinstance(said.get("id_token"), str):
        raise LoginRefused("The provider does not take its code back: it counts once, and not for long. Begin again.")
    status, keys = _ask(oidc, provider.keys)
    if status != 200:
        raise Away(f"{provider.keys} answers {status}")
    return said["id_token"], keys


def person(oidc: Oidc, claims: Claims) -> Person:
    """Who it is, by the claims of a token that has been verified; raises LoginRefused."""
    name = _claim(claims, oidc.name_claim)
    if not isinstance(name, str) or not is_name(name):
        raise LoginRefused(f"The provider gives no name that an account can have (claim {oidc.name_claim}).")
    given = _claim(claims, oidc.role_claim)
    values = {each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)}
    role = next((role for role in HIGHEST_FIRST if values & set(getattr(oidc, role))), None)
    if role is None:
        raise LoginRefused("The provider knows you, but none of your groups may come in here; ask who runs it.", name)
    return Person(f"{oidc.issuer} {claims['sub']}", name, role)


def _claim(claims: Claims, name: str) -> Any:
    """A claim of this name, else by its parts: realm_access.roles is "roles" within "realm_access"."""
    found: Any = claims
    if name in claims:
        return claims[name]
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _ask(
    oidc: Oidc, address: str, form: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Claims]:
    """One request, and the JSON object that answers it; redirections are not followed. Raises Away."""
    url = urlsplit(address)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise Away(f"{address} is not an https address")
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    target = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
    try:
        connection = connect(url, PATIENCE, oidc.ca)
        try:
            method = "GET" if form is None else "POST"
            connection.request(method, target, form, {"Accept": "application/json", **kind, **(headers or {})})
            response = connection.getresponse()
            content = response.read(LARGEST)
        finally:
            connection.close()
        said = json.loads(content) if content else {}
    except (OSError, HTTPException, ValueError) as error:
        raise Away(f"{address}: {str(error) or type(error).__name__}") from error
    return response.status, said if isinstance(said, dict) else {}


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
