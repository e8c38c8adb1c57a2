"""Who may connect at all: so many connections of one address and of all, and so many in a second. Deny by default.

An open connection costs two threads before it has said who it is. Strangers, whose address is of no [[source]], get a
few, so that they are told why they are refused; they can never take the places of those who may send.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pynetdicom.association import Association

from dicomnode.config import Listen

STRANGERS, OF_ONE_STRANGER, STRANGERS_PER_SECOND = 16, 4, 10.0
BURST = 2.0  # seconds' worth of connections that may come at once
UNSTARTED = 10.0  # seconds after which a connection that never became an association no longer counts
MOST_METERS = 1000  # addresses whose rate is remembered


@dataclass(slots=True)
class Visit:
    """One connection. assoc: the association that it became; its thread lives as long as the connection."""

    address: str
    known: bool
    since: float
    assoc: Association | None = None

    def is_over(self, now: float) -> bool:
        """True where it takes no place any more."""
        if self.assoc is None:
            return now - self.since > UNSTARTED
        return self.assoc.ident is not None and not self.assoc.is_alive()


@dataclass(slots=True)
class Door:
    """Counts connections. is_known: whether an address is of a [[source]]; clock: seconds, of whatever beginning."""

    limits: Listen
    is_known: Callable[[str], bool]
    clock: Callable[[], float] = time.monotonic
    _visits: dict[tuple[str, int], Visit] = field(default_factory=dict)
    _meters: dict[str, tuple[float, float]] = field(default_factory=dict)  # address -> (connections left, as of when)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuses(self, address: str, port: int) -> str:
        """Why a connection is closed at once, in words; empty where it may stay, and then it counts."""
        now, known = self.clock(), self.is_known(address)
        with self._lock:
            if not self._pays(address, known, now):
                return "connections come too fast"
            self._visits = {key: visit for key, visit in self._visits.items() if not visit.is_over(now)}
            same = sum(visit.address == address for visit in self._visits.values())
            alike = sum(visit.known == known for visit in self._visits.values())
            # Twice the associations: each may be refused politely, by those that pynetdicom and the listener count.
            of_one, of_all = (
                (2 * self.limits.max_per_address, 2 * self.limits.max_associations)
                if known
                else (OF_ONE_STRANGER, STRANGERS)
            )
            if same >= of_one or alike >= of_all:
                return "too many connections are open"
            self._visits[address, port] = Visit(address, known, now)
            return ""

    def became(self, address: str, port: int, assoc: Association) -> None:
        """The connection is an association now, and counts as long as its thread lives."""
        with self._lock:
            if visit := self._visits.get((address, port)):
                visit.assoc = assoc

    def _pays(self, address: str, known: bool, now: float) -> bool:
        """Take one of the connections that the address has left; they come back evenly."""
        rate = self.limits.connections_per_second if known else STRANGERS_PER_SECOND
        if len(self._meters) > MOST_METERS:
            self._meters = {key: meter for key, meter in self._meters.items() if now - meter[1] < BURST}
        left, since = self._meters.get(address, (BURST * rate, now))
        left = min(BURST * rate, left + (now - since) * rate)
        self._meters[address] = (left - 1 if left >= 1 else left), now
        return left >= 1
