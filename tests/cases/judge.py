"""A case walked, and its end held against its row."""

from pathlib import Path

from tests.cases.case import Case, Outcome, Wait
from tests.cases.walk import QUIET, TIMER, Ended, walking


def assert_ends(case: Case, folder: Path, empty: Path) -> None:
    """Walk the case in an empty folder. empty: a database without rows."""
    with walking(folder, empty, case) as walk:
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
