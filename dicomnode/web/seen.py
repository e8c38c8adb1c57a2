"""Who has looked at what, for the audit trail: once in a while for each account and study, not for each request."""

import re
from datetime import timedelta

from dicomnode import audit, bookkeeping
from dicomnode.audit import Message, Who
from dicomnode.bookkeeping import Visitor
from dicomnode.lately import Lately
from dicomnode.web.site import Site

PERIOD = timedelta(minutes=10)
UID = re.compile(r"[0-9.]{1,64}")

_lately = Lately(PERIOD, most=1000)


def note_read(site: Site, who: Visitor, address: str, study: str) -> None:
    """An account looks at a study, or fetches of it. What is no UID is no study of ours, and may be anything."""
    if UID.fullmatch(study):
        _note(site, (id(site), who.name, address, study), audit.accessed(study, _of(who, address)))


def note_search(site: Site, who: Visitor, address: str, keys: frozenset[str]) -> None:
    """An account searches by these attributes."""
    _note(site, (id(site), who.name, address, keys), audit.queried(keys, _of(who, address)))


def _note(site: Site, key: tuple[object, ...], message: Message) -> None:
    now = site.clock()
    if _lately.due(key, now):
        bookkeeping.record(site.books, message, now)


def _of(who: Visitor, address: str) -> Who:
    return Who(who.name, address, requestor=True)
