"""The kills: what dies where, in which order, and when it may."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle

from dicomnode.bookkeeping import BooksAway
from dicomnode.crashpoints import POINTS
from dicomnode.jobs import State
from tests.crash.services import kill
from tests.crash.stage import Stage

UNTAKEN = 45.0  # seconds after which an order that nobody took is withdrawn, and comes later once more
LOOK = 0.02  # seconds
RESPITE = 8.0  # seconds that a whole service has before it is killed again

# Role: what the points are called that its processes pass.
ROLES: dict[str, tuple[str, ...]] = {
    "receiver": ("receive", "quarantine", "association", "commitment"),
    "sweep": ("sweep", "series", "job", "reap"),
    "worker": ("process", "write"),
    "sender": ("deliver", "send", "confirm"),
}
# Whole processes, killed at a moment of nobody's choosing: name -> service, words of the command line.
WHOLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "listen": ("node", ("dicomnode listen",)),
    "sweep loop": ("node", ("dicomnode sweep",)),
    "a computing worker": ("node", ("dicomnode work", "process.")),
    "a sending worker": ("node", ("dicomnode work", "deliver")),
    "dicomnode up": ("node", ("dicomnode up",)),
    "database": ("database", ("bin/postgres -D",)),
    "a database connection": ("database", ("postgres: ",)),
    "broker": ("broker", ("beam.smp",)),
}
# Of a hundred kills, how many go to each.
SHARES = {"receiver": 34, "sweep": 18, "worker": 18, "sender": 18, "whole": 12}
COSTS_AN_ATTEMPT = ("worker", "whole")  # a job whose worker dies three times is poison by design and ends FAILED
# The one point that only a listener that starts passes, where a death at the other has left a file without a row.
AT_START, STRAY = "recover.filed", "receive.settled"
LOST_ATTEMPTS = 1  # that a job may have behind it when its worker is killed


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that died by SIGKILL, at a crash point or as a whole."""

    role: str
    where: str
    pid: int
    at: datetime


@dataclass
class Matrix:
    """The kills of one stage. wanted: how many; deadline: of time.monotonic(), after which no more are asked for."""

    stage: Stage
    wanted: int
    deadline: float
    seed: int = 1
    kills: list[Kill] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    _computing: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Kill until there have been enough of each kind."""
        lanes = [threading.Thread(target=self._lane, args=(role,), name=f"kills of {role}") for role in SHARES]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def share(self, role: str) -> int:
        """How many of the kills are of this role; what rounding leaves goes to the receivers."""
        shares = {name: max(1, self.wanted * part // 100) for name, part in SHARES.items()}
        return shares[role] + (self.wanted - sum(shares.values()) if role == "receiver" else 0)

    def of(self, role: str) -> list[Kill]:
        """The kills of a role so far."""
        return [each for each in self.kills if each.role == role]

    def _lane(self, role: str) -> None:
        try:
            victims = self._victims(role)
            while len(self.of(role)) < self.share(role) and time.monotonic() < self.deadline:
                if role in COSTS_AN_ATTEMPT:
                    with self._computing:
                        self._await_fresh_jobs()
                        next(victims)()
                else:
                    next(victims)()
        except BaseException as error:
            self.errors.append(error)
            raise

    def _victims(self, role: str) -> Iterator[Callable[[], None]]:
        """Every place where the role can die, in a new order each round."""
        places: list[Callable[[], None]]
        if role == "whole":
            known = [name for name, (service, _) in WHOLE.items() if service in self.stage.services]
            places = [lambda name=name: self._kill_whole(name) for name in known]
        else:  # nothing of a node that has just begun is old enough to be purged; its own tests kill there
            names = [name for name in POINTS if name.split(".")[0] in ROLES[role]]
            places = [lambda name=name: self._kill_at(role, name) for name in names]
        if role == "receiver":
            places.append(self._kill_at_start)
        chance = random.Random(f"{self.seed} {role}")
        for _ in cycle([0]):
            chance.shuffle(places)
            yield from places

    def _kill_at(self, role: str, point: str) -> None:
        """Order a death at a crash point and wait until somebody has died there."""
        order = self.stage.orders / point
        order.touch()
        give_up = time.monotonic() + UNTAKEN
        while order.exists() and time.monotonic() < give_up:
            time.sleep(LOOK)
        order.unlink(missing_ok=True)
        for taken in self.stage.orders.glob(f"{point}.*"):
            if taken.suffix[1:].isdecimal():
                self.kills.append(Kill(role, point, int(taken.suffix[1:]), datetime.now(UTC)))
                taken.unlink()

    def _kill_whole(self, name: str) -> None:
        service, words = WHOLE[name]
        victims = self.stage.services[service].processes(*words)
        if not victims:
            time.sleep(1.0)  # it is being started again
            return
        victim = random.choice(victims)  # what it has forked, or was forked from, is left to itself
        kill([victim])
        self.kills.append(Kill("whole", name, victim, datetime.now(UTC)))
        time.sleep(RESPITE)

    def _kill_at_start(self) -> None:
        """A receiver leaves a file without a row; the listener dies, and dies again while it records that file."""
        self._kill_at("receiver", STRAY)
        main = self.stage.node.mains("dicomnode listen")
        kill(main)
        self.kills += [Kill("whole", "listen", pid, datetime.now(UTC)) for pid in main]
        self._kill_at("receiver", AT_START)

    def _await_fresh_jobs(self) -> None:
        """Until no job would lose its third attempt; one whose files are all written can lose none."""
        while time.monotonic() < self.deadline:
            try:
                waiting = self.stage.unfinished()
                if all(state is State.SENDING or attempts <= LOST_ATTEMPTS for _, state, attempts in waiting):
                    return
            except BooksAway:
                pass
            time.sleep(0.2)
