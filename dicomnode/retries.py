"""When to try again what failed for the moment: within five seconds at first, then ever less often, never in step."""

import random
from datetime import datetime, timedelta

from dicomnode.bookkeeping import Answer, Due
from dicomnode.jobs import DeliveryState

FIRST, LONGEST = 2.0, 60.0  # seconds, doubled each time and spread by half: 1 to 3 s at first, 90 s at most
GIVE_UP_AFTER = 1500  # attempts, a little over a day


def delay(attempts: int) -> timedelta:
    """How long to wait after so many attempts that failed before."""
    return timedelta(seconds=min(LONGEST, FIRST * 2.0 ** min(attempts, 16)) * random.uniform(0.5, 1.5))


def later(due: Due, why: str, now: datetime) -> Answer:
    """Try this file again; after a day of attempts, never."""
    if due.attempts + 1 >= GIVE_UP_AFTER:
        return Answer(due.delivery, DeliveryState.DEAD, f"given up after {due.attempts + 1} attempts: {why}", now)
    return Answer(due.delivery, DeliveryState.PENDING, why, now + delay(due.attempts))
