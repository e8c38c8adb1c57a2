"""Why the running node takes the self-test's virtual patient, and where its maps may go; no setting is changed.

The command writes into the books which study will come, under which calling AE title (its digest; the title is a secret
for once), and where its receiver is. Services that read the same books do the rest. A study that came this way is never
sent to a destination but those that the command named, not even by an operator's resend.
"""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, OpenSeries, SelfTest
from dicomnode.config import LOOPBACK, RESERVED, Destination, Settings, Source

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SECRET = 16 - len(RESERVED)  # characters; an AE title has 16 (PS3.5 6.2)


def new_ae_title() -> str:
    """The AE title that one self-test calls under; nobody can guess it while it counts."""
    return RESERVED + "".join(secrets.choice(LETTERS) for _ in range(SECRET))


def digest(ae_title: str) -> str:
    """What the books know of it."""
    return sha256(ae_title.encode()).hexdigest()


def source_of(books: Books, settings: Settings, calling_ae_title: str, address: str, now: datetime) -> Source | None:
    """Stands for a [[source]] where a self-test of this machine calls."""
    calling = calling_ae_title.strip()
    here = address.removeprefix("::ffff:")
    if not calling.startswith(RESERVED) or here not in LOOPBACK | {settings.listen.host}:
        return None
    if digest(calling) not in {test.caller for test in bookkeeping.open_selftests(books, now)}:
        return None
    return Source(calling, (address,))


def for_series(settings: Settings, books: Books, series: OpenSeries, now: datetime) -> Settings:
    """The settings that a series is judged by: what only a self-test has brought, in its study, may be simulated."""
    brought = all(each.calling_ae_title.startswith(RESERVED) for each in series.instances)
    if not brought or bookkeeping.selftest_of(books, series.study_instance_uid, now) is None:
        return settings
    return replace(settings, node=replace(settings.node, accept_simulated=True))


def for_study(settings: Settings, books: Books, study_instance_uid: str, now: datetime) -> Settings:
    """The settings that a study is written and sent by: of a self-test it goes to its receiver, and nowhere after."""
    test = bookkeeping.selftest_of(books, study_instance_uid, now)
    return settings if test is None else replace(settings, destination=_destinations(test, settings))


def names(settings: Settings, books: Books, now: datetime) -> list[str]:
    """The destinations of all that may be sent now."""
    tests: Iterable[SelfTest] = bookkeeping.open_selftests(books, now)
    return [d.name for d in settings.destination] + [receiver(test.host, test.port).name for test in tests]


def receiver(host: str, port: int) -> Destination:
    """A self-test's own receiver."""
    return Destination(name=f"selftest@{host}:{port}", ae_title="SELFTEST", host=host, port=port, confirm="status")


def _destinations(test: SelfTest, settings: Settings) -> tuple[Destination, ...]:
    wanted = [d for d in settings.destination if d.name in test.to]
    return (receiver(test.host, test.port), *wanted) if test.is_open else ()
