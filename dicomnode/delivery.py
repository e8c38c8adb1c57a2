"""One job's results on their way to every destination, and what each answer means."""

import logging
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydicom.errors import InvalidDicomError

from dicomnode import bookkeeping, sender
from dicomnode.bookkeeping import ACTOR, Answer, Books, Due, Job
from dicomnode.config import Destination, Settings
from dicomnode.jobs import DeliveryState, State
from dicomnode.sender import ClassRefused, File, Unreachable
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

BATCH = 25  # files sent over one association and recorded together: what a crash in between makes us send again
ASSOCIATIONS = 2  # at a time to one destination; each spends most of its time waiting (measured)
FIRST_RETRY, LONGEST_RETRY = 2.0, 60.0  # seconds, doubled each time and spread by half
GIVE_UP_AFTER = 1500  # attempts, a little over a day

# What pynetdicom and the disk raise over a file that is missing, or is not what the books say.
UNSENDABLE = (AttributeError, InvalidDicomError, OSError, RuntimeError, ValueError)

# PS3.4 Table B.2-1 and PS3.7 C: masked status -> what it means for the file.
CONFIRMED, REFUSED, PENDING = DeliveryState.CONFIRMED, DeliveryState.REFUSED, DeliveryState.PENDING
MEANING: tuple[tuple[int, int, DeliveryState, str], ...] = (
    (0xFFFF, 0x0000, CONFIRMED, "stored"),
    (0xF000, 0xB000, CONFIRMED, "stored with a warning"),
    (0xFFFF, 0x0111, CONFIRMED, "held already (duplicate SOP instance)"),
    (0xFF00, 0xA700, PENDING, "the destination is out of resources"),
    (0xFF00, 0xA900, REFUSED, "the destination says that the data set does not match its class"),
    (0xF000, 0xC000, REFUSED, "the destination cannot understand the data set"),
    (0xFFFF, 0x0122, REFUSED, "the destination does not support the class"),
    (0xFFFF, 0x0124, REFUSED, "the destination does not authorise us to store; grant it there"),
    (0x0000, 0x0000, PENDING, "the destination could not process the request"),
)


def run(job: Job, settings: Settings, books: Books, spool: Spool) -> None:
    """Send what is due to each destination; close the job once nothing required is left open."""
    queues = [(d, bookkeeping.due(books, job.id, d.name, datetime.now(UTC))) for d in settings.destination]
    for destination, due in sorted(queues, key=lambda queue: max((d.attempts for d in queue[1]), default=0)):
        channel = Channel(destination, settings.node.ae_title, spool)
        for answers in channel.send(due):
            bookkeeping.note_answers(books, job.id, destination.name, answers, datetime.now(UTC))
    required = [d.name for d in settings.destination if d.required]
    ended = bookkeeping.outcome(books, job.id, required)
    if ended and job.state is State.SENDING:
        bookkeeping.advance(books, job.id, ACTOR, *ended, datetime.now(UTC))


@dataclass(slots=True)
class Channel:
    """One destination during one run: once it is away, nothing more of this run is tried there."""

    destination: Destination
    calling_ae_title: str
    spool: Spool
    away: str = ""

    def send(self, due: Sequence[Due]) -> Iterator[list[Answer]]:
        """The answers, batch by batch, over a few associations at a time; those that must wait come last, together."""
        batches = [due[start : start + BATCH] for start in range(0, len(due), BATCH)]
        waiting: list[Answer] = []
        with ThreadPoolExecutor(ASSOCIATIONS) as pool:
            for answers in pool.map(self._send_batch, batches):
                waiting += [a for a in answers if a.state is PENDING]
                if stored := [a for a in answers if a.state is not PENDING]:
                    yield stored
        if waiting:
            yield waiting

    def _send_batch(self, batch: Sequence[Due]) -> list[Answer]:
        """One association's worth of files."""
        files = [File(self.spool.path(each.path), each.sop_class) for each in batch]
        left, answers, now = iter(batch), list[Answer](), datetime.now(UTC)
        try:
            if self.away:
                raise Unreachable(self.away)
            for status in sender.send(files, self.destination, self.calling_ae_title):
                answers.append(answer(next(left), status, now))
        except Unreachable as away:
            self.away = str(away)
        except UNSENDABLE as error:
            log.exception("a file for %s could not be sent", self.destination.name)
            answers.append(Answer(next(left).delivery, DeliveryState.DEAD, f"{type(error).__name__}: {error}", now))
        return answers + [later(each, self.away or "a file before it could not be sent", now) for each in left]


def answer(due: Due, status: int | ClassRefused, now: datetime) -> Answer:
    """What a C-STORE status means for one file."""
    if isinstance(status, ClassRefused):
        return Answer(due.delivery, REFUSED, str(status), now)
    state, words = next((s, w) for mask, value, s, w in MEANING if status & mask == value)
    sentence = f"0x{status:04X}: {words}"
    if state is PENDING:
        return later(due, sentence, now)
    return Answer(due.delivery, state, sentence, now, confirmed_by="C-STORE status" if state is CONFIRMED else None)


def later(due: Due, why: str, now: datetime) -> Answer:
    """Try again, the first time within five seconds, then ever less often; after a day, never."""
    if due.attempts + 1 >= GIVE_UP_AFTER:
        return Answer(due.delivery, DeliveryState.DEAD, f"given up after {due.attempts + 1} attempts: {why}", now)
    delay = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(due.attempts, 16)) * random.uniform(0.5, 1.5)
    return Answer(due.delivery, PENDING, why, now + timedelta(seconds=delay))
