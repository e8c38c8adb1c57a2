"""The crash matrix, a sample of it: whatever dies, nothing acknowledged is lost and nothing is doubled."""

from pathlib import Path

import pytest

from tests.crash.audit import table
from tests.crash.run import Plan, run
from tests.crash.stage import SHAPES

pytestmark = pytest.mark.slow
KILLS = 20


def test_a_sample_of_kills_over_both_shapes_loses_nothing_and_doubles_nothing(tmp_path: Path):
    audits = run(Plan(KILLS // len(SHAPES), minutes=4, backlog=2), tmp_path)
    print("\n".join(table(audits)))
    assert [words for audit in audits for words in audit.wrong] == []
    assert sum(len(audit.kills) for audit in audits) >= KILLS
    assert all(audit.acknowledged and audit.done and audit.at_pacs for audit in audits)
