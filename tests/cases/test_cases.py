"""Every row of the table of input cases, in order: what is sent, and what becomes of it."""

from collections import Counter
from pathlib import Path

import pytest

from tests.cases import document
from tests.cases.case import Case, Outcome
from tests.cases.judge import assert_ends
from tests.cases.table import TABLE

ROWS = [case for cases in TABLE.values() for case in cases]
DOCUMENT = Path(__file__).parents[2] / "docs" / "input-cases.md"


def is_slow(number: int, case: Case) -> bool:
    """Of the rows that become maps, which take seconds each, every other one waits for the slow suite."""
    return case.slow or (case.outcome is Outcome.PROCESS and number % 2 == 1)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.slow] * is_slow(n, case)) for n, case in enumerate(ROWS)],
)
def test_the_case_ends_as_its_row_says(case: Case, tmp_path: Path, empty: Path):
    assert_ends(case, tmp_path, empty)


def test_no_two_rows_have_one_name():
    assert [name for name, count in Counter(case.name for case in ROWS).items() if count > 1] == []


def test_the_document_in_the_repository_is_what_the_command_prints():
    """Mend it with `python -m tests.cases > docs/input-cases.md`."""
    assert document.text() == DOCUMENT.read_text(encoding="utf-8")
