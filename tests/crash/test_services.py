"""Supervision of the crash matrix: who is killed comes back, whole, and nothing of before is left over."""

import sys
from pathlib import Path

from tests.crash.services import Service, kill, parent_of
from tests.walks.node import wait_for

FORKS = "import os, time; os.fork(); time.sleep(600)"


def test_a_service_whose_main_process_is_killed_is_ended_whole_and_started_again(tmp_path: Path):
    service = Service("two processes", [sys.executable, "-c", FORKS, "these words"], tmp_path)
    with service.running():
        wait_for(lambda: len(service.processes("these words")) == 2, "both processes")
        before, (main,) = service.processes("these words"), service.mains("these words")
        assert {parent_of(pid) for pid in before if pid != main} == {main}
        kill([main])
        wait_for(lambda: service.starts == 2 and len(service.processes("these words")) == 2, "both, again")
        assert not set(before) & set(service.processes())
    assert service.processes() == []
