"""Passwords, and the secrets of sessions and tokens. The one door to argon2."""

import secrets
import threading
from functools import cache
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 12  # characters of a password (NIST SP 800-63B-4 asks for 15 where nothing else guards, 8 at the least)
LONGEST = 256  # characters; more would only keep the processor busy
AT_ONCE = 2  # passwords that are verified at a time: each takes 64 MiB

_hasher = PasswordHasher()  # argon2id, the second recommendation of RFC 9106
_turns = threading.Semaphore(AT_ONCE)


def hash_password(password: str) -> str:
    """The hash to keep; raises ValueError where the password is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    return _hasher.hash(password)


def is_password(password: str, password_hash: str | None) -> bool:
    """True where the password fits; takes as long where there is no account or no password."""
    if len(password) > LONGEST:
        return False
    with _turns:
        try:
            return _hasher.verify(password_hash or _nobodys(), password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False


def new_secret() -> str:
    """A secret of 256 bits, for a session or a token."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret; it has too much entropy to need salt or slowness."""
    return sha256(secret.encode()).hexdigest()


@cache
def _nobodys() -> str:
    return _hasher.hash(new_secret())
