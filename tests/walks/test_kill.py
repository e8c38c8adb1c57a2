"""Crashes: a worker killed in mid-inference costs time and nothing else."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from dicomnode import data
from dicomnode.jobs import State
from tests.pacs import Pacs
from tests.walks.node import Node, dicomnode, wait_for


@pytest.mark.slow  # a minute of waiting for leases; test_workers.py kills one at every change
def test_a_worker_killed_in_mid_inference_delivers_the_maps_once(tmp_path: Path):
    with Pacs(ae_title="PACS").running() as pacs:
        destination = f"PACS@127.0.0.1:{pacs.port}"
        node = Node.init(tmp_path, "--source", "STORESCU@127.0.0.1", "--destination", destination, "--demo")
        with node.up():
            study = _study(data.ncct()[0])
            assert node.send(data.ncct()[0].parent, "-xt").returncode == 0
            wait_for(lambda: node.state(study) == State.PROCESSING, "the worker")
            victims = node.processes("work --queues process")
            assert victims
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            node.ends(study, "DONE")
            said = dicomnode("explain", study, cwd=tmp_path).stdout
    story = node.story(study)
    assert story is not None
    (job,) = story.jobs
    assert job.attempts == 2
    assert "vanished in attempt 1 of 3" in said
    times_received = Counter(ds.SOPInstanceUID for ds in pacs.received)
    assert set(times_received.values()) == {1}
    assert len(times_received) == 5 * len(data.ncct()) + 5


def _study(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
