"""One process tree: what ends is started again, and what cannot start is not started in a frenzy."""

import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomnode import up
from dicomnode.up import LONGEST, PAUSE, Service, Tree


def test_what_cannot_start_is_tried_less_and_less_often_and_never_given_up():
    service = Service(subprocess.Popen(["true"]))
    service.process.wait()
    pauses = [service.pause(lived=False) for _ in range(12)]
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST
    assert service.pause(lived=True) == 0  # it was up, whatever ended it
    assert service.pause(lived=False) == PAUSE


def test_one_service_that_falls_does_not_keep_the_others_from_their_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    starts: list[tuple[float, str]] = []
    ear = SimpleNamespace(has_heard=lambda pid, _=0.0: pid in serving)
    serving: set[int] = set()

    def start(_: Tree, role: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        starts.append((time.monotonic(), role[0]))
        process = subprocess.Popen({"falls": ["false"], "serves": ["sleep", "0.3"]}[role[0]])
        serving.update({process.pid} if role == ("serves",) else ())
        return process

    for name, value in (("ROLES", (("falls",), ("serves",))), ("PAUSE", 0.1)):
        monkeypatch.setattr(up, name, value)
    monkeypatch.setattr(Tree, "_start", start)
    stop = threading.Event()
    threading.Timer(2.5, stop.set).start()
    Tree(tmp_path / "node.toml", ear=ear).run(stop)
    fell, served = ([at for at, role in starts if role == which] for which in ("falls", "serves"))
    assert 3 <= len(fell) <= 6  # at 0, .1, .3, .7, 1.5 seconds, and a turn's delay each
    assert len(served) >= 4
    assert fell[3] - fell[2] > 1.5 * (fell[2] - fell[1])
