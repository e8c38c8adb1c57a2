"""docs/input-cases.md, from the table that the tests read."""

from collections.abc import Iterator

from tests.cases.case import Case, Outcome, Wait
from tests.cases.table import TABLE

HEAD = """# Input cases

What becomes of each kind of series that a scanner or a PACS may send. Made by `python -m tests.cases` from the table
that the test suite reads row by row: every line has been sent into the node in this form.

PROCESS: maps are made. PROCESS+WARN: maps are made; the sentence is burned into every capture, stands in Image Comments
and in the books (`dicomnode explain`). REFUSE: no maps; the code and a sentence are in the books. WAIT: nothing is
decided until the last piece has come, or the timer (`[completeness] give_up_seconds`) has run out.
"""
COLUMNS = ("Case", "Outcome", "Code", "What is said", "Also")


def text() -> str:
    """The document."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    for heading, cases in TABLE.items():
        yield f"## {heading}\n"
        yield _row(COLUMNS)
        yield "|" + "---|" * len(COLUMNS)
        for case in cases:
            yield _row((case.name, _outcome(case), case.code and f"`{case.code}`", case.says, "; ".join(_also(case))))
        yield ""


def _outcome(case: Case) -> str:
    return case.outcome if case.waits is Wait.NOTHING else f"WAIT for {_waits(case)}, {case.outcome}"


def _waits(case: Case) -> str:
    return "the last piece" if case.waits is Wait.PIECES else "the timer"


def _also(case: Case) -> Iterator[str]:
    if case.node:
        yield ", ".join(f"`{key} = {str(value).lower()}`" for key, value in case.node.items())
    if case.door:
        yield f"refused at the door: `{case.door}`"
    if case.states:
        yield "series: " + ", ".join(case.states)
    if case.revisions > 1 and case.outcome is not Outcome.REFUSE:
        yield f"revision {case.revisions}"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
