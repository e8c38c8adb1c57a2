"""One process tree: what ends is started again, and what cannot start is not started in a frenzy."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from dicomnode import up
from dicomnode.up import CALM, LONGEST, PAUSE, Service, Tree


def falling(lived: float, falls: int) -> list[float]:
    """The pauses after each of so many ends in a row."""
    service = Service(subprocess.Popen(["true"]), 0.0)
    service.process.wait()
    return [service.pause(now=lived) for _ in range(falls)]


def test_what_has_served_for_a_while_is_started_again_at_once():
    assert falling(CALM, 3) == [0.0] * 3


def test_what_cannot_start_is_tried_less_and_less_often_and_never_given_up():
    pauses = falling(CALM / 2, 12)
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST


def test_one_service_that_falls_does_not_keep_the_others_from_their_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    starts: list[tuple[float, str]] = []

    def start(_: Tree, role: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        starts.append((time.monotonic(), role[0]))
        return subprocess.Popen({"falls": ["false"], "serves": ["sleep", "0.3"]}[role[0]])

    for name, value in (("ROLES", (("falls",), ("serves",))), ("PAUSE", 0.1), ("CALM", 0.2)):
        monkeypatch.setattr(up, name, value)
    monkeypatch.setattr(Tree, "_start", start)
    stop = threading.Event()
    threading.Timer(2.5, stop.set).start()
    Tree(tmp_path / "node.toml").run(stop)
    fell, served = ([at for at, role in starts if role == which] for which in ("falls", "serves"))
    assert 3 <= len(fell) <= 6  # at 0, .1, .3, .7, 1.5 seconds, and a turn's delay each
    assert len(served) >= 4
    assert fell[3] - fell[2] > 1.5 * (fell[2] - fell[1])
