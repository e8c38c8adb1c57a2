"""The self-tests in the books: lines of history, opened and closed by the command; a study of one stays one."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from json import dumps, loads

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute

from dicomnode.bookkeeping.store import Books, note, reading, writing
from dicomnode.bookkeeping.tables import History

SUBJECT, OPENED, CLOSED = "selftest", "OPENED", "CLOSED"
LONGEST = timedelta(minutes=15)  # after that a self-test is over, whether it was closed or not


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One self-test. caller: digest of the AE title it calls under; to: names of real destinations that are wanted."""

    study_instance_uid: str
    caller: str
    host: str
    port: int
    to: tuple[str, ...]
    is_open: bool = True


def open_selftest(books: Books, test: SelfTest, now: datetime, actor: str) -> None:
    """From now on the node takes this study, from this caller."""
    known = {key: value for key, value in asdict(test).items() if key not in ("study_instance_uid", "is_open")}
    with writing(books) as session:
        note(session, SUBJECT, test.study_instance_uid, now, None, OPENED, dumps(known), actor)


def close_selftest(books: Books, study_instance_uid: str, now: datetime, actor: str) -> None:
    """Nothing more of it is taken or sent."""
    with writing(books) as session:
        note(session, SUBJECT, study_instance_uid, now, OPENED, CLOSED, "the self-test has ended", actor)


def selftest_of(books: Books, study_instance_uid: str, now: datetime) -> SelfTest | None:
    """The self-test that made a study; None for the study of a patient."""
    return next(iter(_found(books, now, History.subject_id == study_instance_uid)), None)


def open_selftests(books: Books, now: datetime) -> list[SelfTest]:
    """Those that run."""
    return [test for test in _found(books, now, History.at >= now - LONGEST) if test.is_open]


def _found(books: Books, now: datetime, which: ColumnElement[bool]) -> list[SelfTest]:
    with reading(books) as session:
        rows = session.scalars(select(History).where(History.subject == SUBJECT, which).order_by(History.id)).all()
    closed = {row.subject_id for row in rows if row.after == CLOSED}
    found = []
    for row in rows:
        if row.after == OPENED:
            known = loads(row.why)
            over = row.subject_id in closed or not now - LONGEST <= row.at <= now + LONGEST
            to = tuple(known["to"])
            found.append(SelfTest(row.subject_id, known["caller"], known["host"], known["port"], to, not over))
    return found


def of_patients(study: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Of a statement: the studies that no self-test has made."""
    return study.not_in(select(History.subject_id).where(History.subject == SUBJECT, History.after == OPENED))
