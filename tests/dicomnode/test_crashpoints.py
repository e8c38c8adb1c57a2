"""dicomnode.crashpoints: each point is passed somewhere and documented, and an order kills one process and no other."""

import multiprocessing
import re
import signal
from pathlib import Path

from dicomnode import crashpoints
from dicomnode.crashpoints import POINTS, crashpoint

ROOT = Path(crashpoints.__file__).parent


def test_every_point_stands_in_the_code_and_in_the_document():
    sources = [path.read_text() for path in ROOT.rglob("*.py")]
    passed = {name for text in sources for name in re.findall(r'\bcrashpoint\("([^"]+)"\)', text)}
    assert passed == set(POINTS)
    document = (ROOT.parent / "docs" / "reliability.md").read_text()
    assert re.findall(r"^\| `([a-z.-]+)` \| (.+) \|$", document, re.MULTILINE) == list(POINTS.items())


def _pass_twice(passed) -> None:
    for _ in range(2):
        crashpoint("receive.synced")
        passed.release()


def test_an_order_in_a_folder_is_taken_by_one_process_which_leaves_its_id(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(crashpoints.ENVIRONMENT, str(tmp_path))
    fork = multiprocessing.get_context("fork")
    passed = fork.Semaphore(0)
    (tmp_path / "receive.renamed").touch()  # for somebody who passes another point
    (tmp_path / "receive.synced").touch()
    first, second = (fork.Process(target=_pass_twice, args=(passed,)) for _ in range(2))
    for process in (first, second):
        process.start()
        process.join(60)
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"receive.renamed", f"receive.synced.{first.pid}"}
