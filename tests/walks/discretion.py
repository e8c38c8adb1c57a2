"""What a running node told of its patients, in all that is read by those who may not know them: nothing."""

import re
from pathlib import Path

from sqlalchemy import select

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books
from dicomnode.bookkeeping.tables import Alert, Instance, Notice, Study

LONG = 6  # letters; shorter words stand in a log by chance
NOBODY = {"selftest", "virtual"}  # parts of the names of patients that are none, and words of the node itself


def words_of_patients(books: Books) -> set[str]:
    """Every word by which the books know a patient: of names, Patient IDs and Accession Numbers."""
    with books() as session:
        found = session.execute(select(Study.patient_name, Study.patient_id, Study.accession_number)).all()
        values = [value for row in found for value in row] + list(session.scalars(select(Instance.patient_id)))
    words = {word.lower() for value in values for word in (value, *re.split(r"[\^= ]", value))}
    return {word for word in words if len(word) >= LONG} - NOBODY


def told(log: Path, books: Books) -> dict[str, str]:
    """The log of all its processes, its audit trail, its alerts and the messages about them."""
    with books() as session:
        alerts = [(row.kind, row.subject) for row in session.scalars(select(Alert))]
        notices = list(session.scalars(select(Notice.body)))
    return {
        "log": log.read_text(errors="replace"),
        "audit": repr(list(bookkeeping.trail(books))),
        "alerts": repr(alerts) + repr(notices),
    }


def assert_nobody_is_named(log: Path, books: Books) -> None:
    """After any walk; AssertionError says where a patient is named."""
    words = words_of_patients(books)
    for where, text in told(log, books).items():
        named = {word for word in words if word in text.lower()}
        assert not named, f"the {where} names a patient: {sorted(named)}"
