"""`dicomnode selftest` against a running node that takes no virtual patients: its PACS sees nothing of it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode import bookkeeping
from inference import weights
from tests.pacs import Pacs
from tests.walks.node import Node, dicomnode


@pytest.mark.slow  # a minute; test_orthanc.py walks the node, tests/dicomnode/selftest judges
def test_a_virtual_patient_walks_through_the_running_node_and_nobody_else_sees_it(tmp_path: Path):
    with Pacs(ae_title="PACS").running() as pacs:
        destination = f"PACS@127.0.0.1:{pacs.port}"
        node = Node.init(tmp_path / "node", "--source", "STORESCU@127.0.0.1", "--destination", destination)
        assert not node.settings.node.accept_simulated
        with node.up():
            said = dicomnode("selftest", "--protocol", "record.md", cwd=node.folder).stdout
            refused = dicomnode("selftest", "--to", "nobody", cwd=node.folder, check=False)
            books = node.books
            jobs = [job for job, _ in bookkeeping.recent_jobs(books, 10)]
            times = bookkeeping.door_to_map(books, datetime.now(UTC) - timedelta(hours=1))
            told = dicomnode("explain", jobs[0].id, cwd=node.folder).stdout
            nothing = dicomnode("resend", jobs[0].id, cwd=node.folder, check=False)
        assert pacs.received == []
    assert "The self-test has passed." in said
    assert "FAIL" not in said
    assert [job.state for job in jobs] == ["DONE"]
    assert times == []
    assert "SELFTEST-" in told
    assert nothing.returncode == 1
    assert refused.returncode == 2 and "no destination is called 'nobody'; there are: pacs" in refused.stderr
    record = (node.folder / "record.md").read_text()
    assert re.search(r"\| Left and right: .* \| on the left, [\d.]+ mm off .* \| passed \|", record)
    assert "| Secondary captures, one for each slice and map | 145 | 145 | passed |" in record
    assert f"| Weights, SHA-256 | {weights.read(weights.shipped()).sha256} |" in record
    assert "| Carried out by |" in record
    assert ("**PASSED**" in record) == ("TO MEND" not in record)  # the disk of this machine may be small


def test_without_a_node_the_selftest_fails_and_says_where_to_look(tmp_path: Path):
    node = Node.init(tmp_path / "node", "--source", "STORESCU@127.0.0.1")
    failed = dicomnode("selftest", cwd=node.folder, check=False)
    assert failed.returncode == 1
    assert "nobody listens" in failed.stdout
    assert bookkeeping.open_selftests(node.books, datetime.now(UTC)) == []
    bookkeeping.close(node.books)
