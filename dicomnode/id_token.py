"""What an ID token says, once it has been verified (OpenID Connect Core 1.0, 3.1.3.7). The one door to PyJWT."""

import hmac
from collections.abc import Mapping
from typing import Any

import jwt
from jwt import PyJWK, PyJWTError

from dicomnode.config import Oidc
from dicomnode.oidc import LoginRefused

# By what a token may be signed, and the kind of key (RFC 7518 6.1) that goes with it: with no other, and never with a
# secret or with nothing at all.
ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
NEEDED = ["iss", "sub", "aud", "exp", "iat", "nonce"]
LEEWAY = 60  # seconds that the clocks may differ
LONGEST_SUBJECT = 255  # characters (Core 1.0, section 2)


def read(token: str, keys: Mapping[str, Any], oidc: Oidc, nonce: str) -> dict[str, Any]:
    """The claims of a token that the issuer made for us, now, for this attempt; raises LoginRefused."""
    try:
        header = jwt.get_unverified_header(token)
        for key in _candidates(header, keys):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[*ALGORITHMS],
                    audience=oidc.client_id,
                    issuer=oidc.issuer,
                    leeway=LEEWAY,
                    options={"require": NEEDED},
                )
            except jwt.InvalidSignatureError:
                continue
            return _of_this_attempt(claims, oidc, nonce)
    except PyJWTError as error:
        raise LoginRefused(f"The provider's token does not count: {_words(error)}.") from error
    raise LoginRefused("The provider's token is not signed by a key of the provider.")


def _candidates(header: Mapping[str, Any], keys: Mapping[str, Any]) -> list[PyJWK]:
    """The issuer's keys that can have signed: of that id, for that algorithm."""
    kind, wanted = ALGORITHMS.get(str(header.get("alg"))), header.get("kid")
    published = keys.get("keys")
    given = [key for key in published if isinstance(key, Mapping)] if isinstance(published, list) else []
    fitting = [
        key
        for key in given
        if key.get("kty") == kind and key.get("use", "sig") == "sig" and wanted in (None, key.get("kid"))
    ]
    return [PyJWK.from_dict(dict(key), algorithm=str(header["alg"])) for key in fitting if kind]


def _of_this_attempt(claims: dict[str, Any], oidc: Oidc, nonce: str) -> dict[str, Any]:
    given, subject = str(claims["nonce"]), claims["sub"]
    if not hmac.compare_digest(given.encode(), nonce.encode()):
        raise LoginRefused("The provider's token was made for another log-in than this one; begin again.")
    audience, party = claims["aud"], claims.get("azp")
    if party not in (None, oidc.client_id) or (isinstance(audience, list) and len(audience) > 1 and party is None):
        raise LoginRefused("The provider's token was made for another program than this node.")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise LoginRefused("The provider's token names nobody.")
    return claims


def _words(error: PyJWTError) -> str:
    """Ours, because the library's may quote the token."""
    table = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not valid yet; do the clocks differ",
        jwt.InvalidAudienceError: "it was made for another program than this node",
        jwt.InvalidIssuerError: "it is of another provider",
        jwt.MissingRequiredClaimError: "it lacks a claim that OpenID Connect asks for",
    }
    return next((words for kind, words in table.items() if isinstance(error, kind)), "it cannot be read")
