"""A provider of OpenID Connect over real HTTP, that lets one person in and can be told to misbehave."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT, SECRET = "perfusion-node", "s3cret/of the client"
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


@dataclass
class Provider:
    """claims: what its tokens say besides, or instead; None is left out.

    answers: the same of what comes back with the browser; metadata: of what it says of itself.
    """

    claims: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    key: Any = None
    host: str = "localhost"  # another site than 127.0.0.1, on which the node is
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://{self.host}:{self.port}"

    def setting(self, **more: Any) -> dict[str, Any]:
        """[web.oidc] for it."""
        roles = {"viewer": ["radiology"], "operator": ["radiographers"], "administrator": ["pacs-team"]}
        return {"issuer": self.issuer, "client_id": CLIENT, **roles, **more}

    @contextmanager
    def running(self) -> Iterator["Provider"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def says(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.metadata,
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Everybody is Anna, and is sent back at once."""
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = f"code{len(self._codes)}"
        self._codes[code] = asked
        given = {"code": code, "state": asked["state"], "iss": self.issuer, **self.answers}
        return f"{asked['redirect_uri']}?{urlencode({key: value for key, value in given.items() if value})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        basic = base64.b64decode(authorization.removeprefix("Basic ")).decode().split(":")
        client = [unquote_plus(part) for part in basic] if authorization else [form.get(k) for k in POSTED]
        if client != [CLIENT, SECRET]:
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form["code"], {})
        challenge = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if (asked.get("code_challenge"), asked.get("redirect_uri")) != (challenge, form["redirect_uri"]):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "a-1",
            "nonce": asked["nonce"],
            "iat": now,
            "exp": now + 300,
        }
        claims |= {"preferred_username": "anna", "groups": ["everybody", "radiology"], **self.claims}
        said = {key: value for key, value in claims.items() if value is not None}
        key = KEYS.get(self.algorithm) if self.key is None else self.key
        signed = jwt.encode(said, key, self.algorithm, headers={"kid": f"key-{self.algorithm}"})
        return 200, {"id_token": signed, "access_token": "x", "token_type": "Bearer"}

    def keys(self) -> dict[str, Any]:
        makers = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm}
        made = [(name, makers[name].to_jwk(key.public_key(), as_dict=True)) for name, key in KEYS.items()]
        return {"keys": [{**jwk, "kid": f"key-{name}", "use": "sig"} for name, jwk in made]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                provider.asked.append(path.path)
                match path.path:
                    case "/.well-known/openid-configuration":
                        self._answer(200, provider.says())
                    case "/keys":
                        self._answer(200, provider.keys())
                    case "/authorize":
                        asked = {key: values[0] for key, values in parse_qs(path.query).items()}
                        self._answer(302, {}, provider.authorize(asked))
                    case _:
                        self._answer(404, {})

            def do_POST(self) -> None:
                provider.asked.append(self.path)
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                self._answer(*provider.token(form, self.headers.get("Authorization", "")))

            def _answer(self, status: int, said: dict[str, Any], location: str = "") -> None:
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


POSTED = ("client_id", "client_secret")
