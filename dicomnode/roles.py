"""Who may do what over the web, and what becomes of somebody who does not know the password."""

from datetime import datetime, timedelta
from enum import StrEnum


class Role(StrEnum):
    """What an account is for."""

    SENDER = "sender"  # a scanner or PACS that stores by STOW-RS, and does nothing else
    MONITOR = "monitor"  # a program that reads the metrics, and does nothing else
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"


class Right(StrEnum):
    """What may be done."""

    STORE = "store instances"
    METRICS = "read metrics"
    READ = "read pages and results"
    SOURCES = "read what was received"
    ACT = "retry, resend and dismiss"
    EXPLORE = "send captures at another ratio"
    ACCOUNTS = "manage accounts"


MAY: dict[Role, frozenset[Right]] = {
    Role.SENDER: frozenset({Right.STORE}),
    Role.MONITOR: frozenset({Right.METRICS}),
    Role.VIEWER: frozenset({Right.METRICS, Right.READ}),
    Role.OPERATOR: frozenset({Right.METRICS, Right.READ, Right.SOURCES, Right.ACT, Right.EXPLORE}),
    Role.ADMINISTRATOR: frozenset(Right) - {Right.STORE},
}

LONGEST_NAME = 64  # characters
FREE_TRIES = 5  # wrong passwords before the account is locked
FIRST_LOCK, LONGEST_LOCK = timedelta(seconds=30), timedelta(minutes=15)


def is_name(name: str) -> bool:
    """True for a name that an account may have; a colon would end it in Basic authorization (RFC 7617)."""
    return name.isprintable() and name == name.strip() and 0 < len(name) <= LONGEST_NAME and ":" not in name


def lock_after(failures: int, now: datetime) -> datetime | None:
    """Until when an account is locked after so many wrong passwords in a row."""
    if failures < FREE_TRIES:
        return None
    return now + min(FIRST_LOCK * int(2 ** min(failures - FREE_TRIES, 10)), LONGEST_LOCK)
