"""Does the destination keep what it took? Asked file by file; a status alone counts where it offers nothing more."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydicom.uid import generate_uid

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Answer, Books, Due, Job
from dicomnode.config import Destination
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import DeliveryState
from dicomnode.retries import later
from dicomnode.sender import Rejected
from dicomnode.sender.inquiry import SUCCESS, Inquiry, QueryFailed, Report
from dicomnode.sender.web import WebInquiry

COMMITMENT = "storage commitment"  # confirmed_by in the books; the others depend on how we speak to the destination
QUERY = {False: "C-FIND", True: "QIDO-RS"}
STATUS = {False: "C-STORE status", True: "STOW-RS response"}

WAIT, LOOK = 0.3, 0.05  # seconds to wait for a report before the next best proof is asked for; how often to look
SILENCE = timedelta(seconds=60)  # after which a destination that only offers commitment is believed on its status
ASK_AGAIN = timedelta(hours=1)  # confirm = "commitment": a report can get lost
MISSING = timedelta(minutes=10)  # a PACS files what it took within that time, or has lost it
GIVE_UP = timedelta(days=1)
SOONEST, LATEST = timedelta(seconds=1), timedelta(seconds=60)  # between two looks at a file not yet confirmed

# PS3.3 C.14.1.1: reasons that say nothing of the file but that the destination cannot commit to its class, or to us.
CANNOT_COMMIT = frozenset({0x0122, 0x0131})
FAILURES = {
    0x0110: "processing failure",
    0x0112: "it does not hold the instance",
    0x0119: "it holds the instance under another class",
    0x0122: "it does not commit to this class",
    0x0131: "the transaction is known already",
    0x0213: "it is out of resources",
}


@dataclass(slots=True)
class Confirmer:
    """Asks one destination about files of one job."""

    destination: Destination
    calling_ae_title: str
    books: Books

    def confirm(self, job: Job, due: Sequence[Due], now: datetime) -> list[Answer]:
        """What can be said of each file now; a file that another process has settled meanwhile is left out.

        Raises Unreachable where the destination cannot be asked for the moment.
        """
        mode = self.destination.confirm
        if mode == "status":
            return [confirmed(each, self._status, now) for each in due]
        try:
            with self._inquiry() as inquiry:
                commits = inquiry.commits and mode != "query"
                answers = self._by_commitment(inquiry, due, now) if commits and isinstance(inquiry, Inquiry) else []
                left = self._unsettled(due, answers)
                if inquiry.finds and mode != "commitment":
                    return answers + self._by_query(inquiry, job, left, now)
                return answers + [self._unproven(each, commits, now) for each in left]
        except Rejected as refusal:  # it took the files, so it is the question that it does not want
            return [self._unproven(each, True, now, str(refusal)) for each in due]

    @property
    def _query(self) -> str:
        return QUERY[bool(self.destination.stow_url)]

    @property
    def _status(self) -> str:
        return STATUS[bool(self.destination.stow_url)]

    def _inquiry(self) -> Inquiry | WebInquiry:
        kind = WebInquiry if self.destination.stow_url else Inquiry
        return kind(self.destination, self.calling_ae_title)

    def _by_commitment(self, inquiry: Inquiry, due: Sequence[Due], now: datetime) -> list[Answer]:
        """Ask once for each file and wait for a moment; the report may come here, or to the listener, or much later."""
        fresh = [each for each in due if each.transaction_uid is None or self._asks_again()]
        if not fresh:
            return []
        transaction_uid = str(generate_uid(prefix=None))
        bookkeeping.note_asked(self.books, [each.delivery for each in fresh], transaction_uid)
        crashpoint("confirm.noted")
        if inquiry.commit(transaction_uid, [(e.sop_class, e.sop_instance_uid) for e in fresh]) != SUCCESS:
            return []
        crashpoint("confirm.asked")
        return self._await(inquiry, transaction_uid, fresh, now)

    def _asks_again(self) -> bool:
        return self.destination.confirm == "commitment"  # such a file is due only after ASK_AGAIN

    def _await(self, inquiry: Inquiry, transaction_uid: str, due: Sequence[Due], now: datetime) -> list[Answer]:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            report = inquiry.report(LOOK)
            if report and report.transaction_uid == transaction_uid:
                crashpoint("confirm.heard")
                return list(reported(due, report, self.destination, now))
            if not self._unsettled(due, []):
                return []
        return []

    def _unsettled(self, due: Sequence[Due], answers: Sequence[Answer]) -> list[Due]:
        settled = {answer.delivery for answer in answers}
        waiting = bookkeeping.still_sent(self.books, [each.delivery for each in due])
        return [each for each in due if each.delivery in waiting - settled]

    def _by_query(self, inquiry: Inquiry | WebInquiry, job: Job, due: Sequence[Due], now: datetime) -> list[Answer]:
        try:
            held = {uid: inquiry.find(job.study, uid) for uid in dict.fromkeys(e.series_instance_uid for e in due)}
        except QueryFailed as failure:
            return [self._unproven(each, True, now, str(failure)) for each in due]
        return [
            confirmed(each, self._query, now)
            if each.sop_instance_uid in held[each.series_instance_uid]
            else self._missing(each, now)
            for each in due
        ]

    def _missing(self, due: Due, now: datetime) -> Answer:
        if _age(due, now) > MISSING:
            after = f"{MISSING.total_seconds() / 60:.0f} minutes after it was stored"
            return later(due, f"not found by {self._query} {after}; it is sent again", now)
        return waiting(due, f"stored, not yet found by {self._query}", now)

    def _unproven(self, due: Due, offered: bool, now: datetime, why: str = "") -> Answer:
        """Neither proof is to be had now. offered: the destination has one in principle, and only waits or fails."""
        mode, age = self.destination.confirm, _age(due, now)
        if mode == "auto" and not offered:
            neither = "the destination offers neither storage commitment nor query"
            return confirmed(due, self._status, now, f" alone: {neither}")
        if mode == "auto" and age > SILENCE:
            silent = why or f"it gave no {COMMITMENT} report"
            return confirmed(due, self._status, now, f" alone: {silent} within {SILENCE.total_seconds():.0f} s")
        if offered and age <= GIVE_UP:
            words = f"stored, not yet confirmed: {why or f'{COMMITMENT} is asked for'}"
            soon = waiting(due, words, now)
            return soon if mode != "commitment" else replace(soon, next_at=now + ASK_AGAIN)
        lacks = why or (f"no {COMMITMENT} report within a day" if offered else f"the destination offers no {mode}")
        remedy = f'enable {mode} for us there, or set confirm = "auto" in [[destination]]'
        return Answer(due.delivery, DeliveryState.DEAD, f"stored, not confirmed: {lacks}; {remedy}", now)


def hear(books: Books, destinations: Iterable[Destination], peer: str, report: Report, now: datetime) -> bool:
    """A report that came to the listener; False where this peer was not asked for it."""
    asked = bookkeeping.asked(books, report.transaction_uid)
    destination = next((d for d in destinations if asked and d.name == asked[0].destination), None)
    if destination is None or destination.ae_title != peer:
        return False
    answers = list(reported([each.due for each in asked], report, destination, now))
    bookkeeping.note_answers(books, asked[0].job, destination.name, answers, now, reported=True)
    return True


def reported(due: Iterable[Due], report: Report, destination: Destination, now: datetime) -> Iterable[Answer]:
    """What a report means for each file that it names."""
    for each in due:
        reason = report.failed.get(each.sop_instance_uid)
        if each.sop_instance_uid in report.kept:
            yield confirmed(each, COMMITMENT, now)
        elif reason in CANNOT_COMMIT and destination.confirm == "auto":
            yield waiting(each, f"stored; {COMMITMENT}: {_words(reason)}", now)
        elif reason is not None:
            yield later(each, f"not committed: {_words(reason)}; it is sent again", now)


def confirmed(due: Due, how: str, now: datetime, more: str = "") -> Answer:
    """A file that the destination keeps."""
    return Answer(due.delivery, DeliveryState.CONFIRMED, f"confirmed by {how}{more}", now, how, attempted=False)


def waiting(due: Due, words: str, now: datetime) -> Answer:
    """Look again after as long as it has waited already, within limits."""
    again = min(max(_age(due, now), SOONEST), LATEST)
    return Answer(due.delivery, DeliveryState.SENT, words, now + again, attempted=False)


def _age(due: Due, now: datetime) -> timedelta:
    return now - (due.sent_at or now)


def _words(reason: int | None) -> str:
    code = reason or 0
    return f"0x{code:04X} {FAILURES.get(code, 'a reason of its own')}"
