"""Every row of the table of input cases, in order: what is sent, and what becomes of it."""

from collections import Counter
from pathlib import Path

import pytest

from dicomnode import bookkeeping
from tests.cases import document
from tests.cases.case import Case, Outcome, Wait
from tests.cases.table import TABLE
from tests.cases.walk import QUIET, TIMER, Ended, walking

ROWS = [case for cases in TABLE.values() for case in cases]
DOCUMENT = Path(__file__).parents[2] / "docs" / "input-cases.md"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "empty.db"
    bookkeeping.migrate(f"sqlite:///{path}")
    return path


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * case.slow) for case in ROWS]
)
def test_the_case_ends_as_its_row_says(case: Case, tmp_path: Path, empty: Path):
    with walking(tmp_path, empty, case) as walk:
        ended = walk.of(case)
    assert (said(ended), ended.code) == (case.outcome, case.code), ended.sentence
    assert set(ended.door) == ({case.door} if case.door else set())
    assert tuple(ended.states) == case.states or not case.states
    assert_waited(case, ended)
    if case.outcome is Outcome.REFUSE:
        assert case.says in ended.sentence
        assert len(ended.sentence) > 15
        return
    assert ended.revisions == case.revisions
    assert ended.capture is not None
    assert case.says in " ".join(ended.warnings)
    assert case.says in ended.capture.ImageComments
    case.check(ended.capture)


def said(ended: Ended) -> str:
    return "PROCESS+WARN" if ended.outcome == "PROCESS" and ended.warnings else ended.outcome


def assert_waited(case: Case, ended: Ended) -> None:
    last = case.arrivals()[-1].at
    if case.waits is Wait.TIMER:
        assert ended.decided == TIMER
    elif case.waits is Wait.PIECES:
        assert ended.decided == last + QUIET
    else:
        assert ended.decided == QUIET


def test_no_two_rows_have_one_name():
    assert [name for name, count in Counter(case.name for case in ROWS).items() if count > 1] == []


def test_the_document_in_the_repository_is_what_the_command_prints():
    """Mend it with `python -m tests.cases > docs/input-cases.md`."""
    assert document.text() == DOCUMENT.read_text(encoding="utf-8")
