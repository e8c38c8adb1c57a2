"""One job's results on their way to every destination, and what each answer means."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from pydicom.errors import InvalidDicomError

from dicomnode import bookkeeping, encoding, identity, ladder, logs, pages, sender
from dicomnode.bookkeeping import ACTOR, Answer, Books, Due, Job
from dicomnode.config import Destination, Settings
from dicomnode.confirmation import Confirmer, waiting
from dicomnode.crashpoints import crashpoint
from dicomnode.encoding import Wish
from dicomnode.jobs import NO_MAPS, DeliveryState, Lane, State
from dicomnode.retries import delay, later
from dicomnode.sender import ClassRefused, NotAdmitted, Stalled, Unreachable
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

BATCH = 25  # files sent over one association and recorded together: what a crash in between makes us send again
ASSOCIATIONS = 2  # at a time to one destination; each spends most of its time waiting (measured)
BREAKS = 3  # associations that may break under one batch before the destination counts as away
PROBE = 10.0  # seconds to wait for an answer from a destination that was away: others wait behind this one

# What pydicom and the disk raise over a file that is missing, or is not what the books say.
UNSENDABLE = (AttributeError, InvalidDicomError, OSError, RuntimeError, ValueError)

# PS3.4 Table B.2-1 and PS3.7 C: masked status -> what it means for the file, with the remedy where there is one.
SENT, REFUSED, PENDING, DEAD = DeliveryState.SENT, DeliveryState.REFUSED, DeliveryState.PENDING, DeliveryState.DEAD
MEANING: tuple[tuple[int, int, DeliveryState, str], ...] = (
    (0xFFFF, 0x0000, SENT, "stored"),
    (0xF000, 0xB000, SENT, "stored with a warning"),
    (0xFFFF, 0x0111, SENT, "held already (duplicate SOP instance)"),
    (0xFF00, 0xA700, PENDING, "the destination is out of resources"),
    (
        0xFF00,
        0xA900,
        REFUSED,
        "the destination says that the data set does not match its class; show one of the files to its administrator, "
        "or take the class out of objects in [[destination]]",
    ),
    (
        0xF000,
        0xC000,
        REFUSED,
        "the destination cannot understand the data set; show one of the files to its administrator, "
        "or take the class out of objects in [[destination]]",
    ),
    (
        0xFFFF,
        0x0122,
        REFUSED,
        "the destination does not support the class; enable it there, or take it out of objects in [[destination]]",
    ),
    (0xFFFF, 0x0124, REFUSED, "the destination does not authorise us to store; grant it there"),
    (0x0000, 0x0000, PENDING, "the destination could not process the request"),
)


def run(job: Job, settings: Settings, books: Books, spool: Spool) -> None:
    """Send and confirm what is due at each destination; close the job once nothing required is left open."""
    conflict, stale = identity.conflict(books, job), pages.is_stale(books, job)
    if held_back := conflict or (pages.CHANGED if stale else ""):
        bookkeeping.withdraw(books, job.id, held_back, datetime.now(UTC))
    makes_room = job.lane is not Lane.STROKE
    names = [d.name for d in settings.destination]
    stop = partial(bookkeeping.stroke_waits, books, names) if makes_room else _never
    source = next((spool.path(instance.path) for instance in bookkeeping.inputs(books, job.id)), None)
    channels = [
        Channel(d, settings.node.ae_title, spool, books, stop, encoding.wish(d, source)) for d in settings.destination
    ]
    with ThreadPoolExecutor(max(1, len(channels))) as pool:  # a destination that hangs holds up no other
        for _ in pool.map(lambda channel: channel.serve(job), channels):
            pass
    required = [d.name for d in settings.destination if d.required and (d.refusal_page or job.route != NO_MAPS)]
    ended = (State.FAILED if conflict else State.DONE, held_back) if held_back else None
    ended = ended or bookkeeping.outcome(books, job.id, required)
    crashpoint("deliver.confirmed")
    if ended and job.state is State.SENDING:
        code = identity.CONFLICT if conflict else bookkeeping.SUPERSEDED if stale else None
        bookkeeping.advance(books, job.id, ACTOR, *ended, datetime.now(UTC), code)
        crashpoint("deliver.closed")


def _never(_: datetime) -> bool:
    return False


@dataclass(slots=True)
class Channel:
    """One destination during one run: once it is away, or admits us no more, nothing more of this run is tried there.

    stop: asked between batches whether something more urgent waits. wish: how the destination wants its files encoded.
    """

    destination: Destination
    calling_ae_title: str
    spool: Spool
    books: Books
    stop: Callable[[datetime], bool] = _never
    wish: Wish = field(default_factory=Wish)
    probing: bool = False
    away: str = ""
    away_until: datetime | None = None
    not_admitted: str = ""

    def serve(self, job: Job) -> None:
        """Send what is due of the job, then ask about what was taken; every answer is recorded as it comes."""
        now = datetime.now(UTC)
        due = self._due(job, now)
        absence = bookkeeping.absence(self.books, self.destination.name)
        if absence:
            self.probing, self.away_until = True, absence.until
            self.away = absence.why if absence.until > now else ""
        self._send_and_note(job, due)
        steps = {} if job.state is State.PROCESSING else ladder.steps(self.destination)  # what stands in is made last
        while steps and bookkeeping.fall(self.books, job.id, self.destination.name, steps, now):
            self._send_and_note(job, bookkeeping.due(self.books, job.id, self.destination.name, now))
        if not self.away and not self.not_admitted:
            self._confirm(job)

    def _send_and_note(self, job: Job, due: Sequence[Due]) -> None:
        for answers in self.send(due):
            self._note(job, answers)

    def _due(self, job: Job, now: datetime) -> list[Due]:
        """What is to be sent now; nobody holds a job for sending while it is written, so its files are taken singly."""
        listed = bookkeeping.take if job.state is State.PROCESSING else bookkeeping.due
        return listed(self.books, job.id, self.destination.name, now)

    def send(self, due: Sequence[Due]) -> Iterator[list[Answer]]:
        """The answers, batch by batch, over a few associations at a time; those that must wait come last, together."""
        batches = [due[start : start + BATCH] for start in range(0, len(due), BATCH)]
        at_once = 1 if self.probing else ASSOCIATIONS
        waiting: list[Answer] = []
        with ThreadPoolExecutor(ASSOCIATIONS, initializer=logs.carried()) as pool:
            for start in range(0, len(batches), at_once):
                if start and self.stop(datetime.now(UTC)):  # every turn brings it on
                    break
                for answers in pool.map(self._send_batch, batches[start : start + at_once]):
                    waiting += [a for a in answers if a.state is PENDING]
                    if ended := [a for a in answers if a.state is not PENDING]:
                        yield ended
        if waiting:
            yield waiting

    def _send_batch(self, batch: Sequence[Due]) -> list[Answer]:
        """One batch over one association, and over a new one where that breaks."""
        answers, breaks = list[Answer](), 0
        while len(answers) < len(batch) and not (self.away or self.not_admitted):
            broke = self._send_over_one(batch[len(answers) :], answers)
            breaks += broke
            if breaks == BREAKS:
                self._note_away(f"{self.destination.name} ended {BREAKS} associations in turn", datetime.now(UTC))
        now = datetime.now(UTC)
        return answers + [self._put_off(each, now) for each in batch[len(answers) :]]

    def _send_over_one(self, files: Sequence[Due], answers: list[Answer]) -> bool:
        """Add the answers for the first of the files, up to and with the one that broke the association; True there."""
        left, now = iter(files), datetime.now(UTC)
        try:
            for status in self._statuses(files):
                answers.append(answer(next(left), status, now))
                self._note_back(now)
        except NotAdmitted as refusal:
            self.not_admitted = str(refusal)
            self._note_back(now)
        except Stalled as stall:
            answers.append(later(next(left), str(stall), now))
            if stall.timed_out:
                self._note_away(str(stall), datetime.now(UTC))
            return True
        except Unreachable as away:
            self._note_away(str(away), datetime.now(UTC))
        except UNSENDABLE as error:
            log.exception("a file for %s could not be sent", self.destination.name)
            answers.append(Answer(next(left).delivery, DEAD, f"{type(error).__name__}: {error}", now))
        return False

    def _statuses(self, files: Sequence[Due]) -> Iterator[int | ClassRefused]:
        finished = [encoding.file_for(each, self.wish, self.spool) for each in files]
        reply = PROBE if self.probing else sender.REPLY
        return sender.send(finished, self.destination, self.calling_ae_title, reply)

    def _put_off(self, due: Due, now: datetime) -> Answer:
        """A file that was not tried: it waits with the destination, or is dead where we are not admitted."""
        if self.not_admitted:
            return Answer(due.delivery, DEAD, self.not_admitted, now)
        return Answer(due.delivery, PENDING, self.away, self.away_until or now, attempted=False)

    def _confirm(self, job: Job) -> None:
        now = datetime.now(UTC)
        due = bookkeeping.sent(self.books, job.id, self.destination.name, now)
        if not due:
            return
        try:
            answers = Confirmer(self.destination, self.calling_ae_title, self.books).confirm(job, due, now)
        except Unreachable as away:
            self._note_away(str(away), now)
            answers = [waiting(each, f"stored, not yet confirmed: {away}", now) for each in due]
        self._note(job, answers)

    def _note(self, job: Job, answers: Sequence[Answer]) -> None:
        crashpoint("send.answered")
        bookkeeping.note_answers(self.books, job.id, self.destination.name, answers, datetime.now(UTC))
        crashpoint("send.recorded")

    def _note_away(self, why: str, now: datetime) -> None:
        self.away = why
        self.away_until = bookkeeping.note_away(self.books, self.destination.name, why, delay, now)

    def _note_back(self, now: datetime) -> None:
        if self.probing:
            bookkeeping.note_back(self.books, self.destination.name, now)
            self.probing = False


def answer(due: Due, status: int | ClassRefused, now: datetime) -> Answer:
    """What a C-STORE status means for one file."""
    if isinstance(status, ClassRefused):
        return Answer(due.delivery, REFUSED, str(status), now)
    state, words = next((s, w) for mask, value, s, w in MEANING if status & mask == value)
    comment = getattr(status, "comment", "")
    sentence = f"0x{status:04X}: {words}" + (f" (it says: {comment})" if comment else "")
    return later(due, sentence, now) if state is PENDING else Answer(due.delivery, state, sentence, now)
