"""The whole of it: both shapes at once under load and kills, then the audit."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.crash import audit
from tests.crash.audit import Audit
from tests.crash.matrix import Matrix
from tests.crash.stage import SHAPES, Stage, stage

PATIENCE = 300.0  # seconds until everything has come to rest after the last kill
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """kills: in each shape. backlog: heads that may be on their way; more would only be waited for at the end.

    minutes: after which no more kills are asked for. seed: of the order of the kills.
    """

    kills: int
    minutes: float
    backlog: int = 6
    seed: int = 1
    shapes: Sequence[str] = SHAPES


def run(plan: Plan, folder: Path, say: Say = print) -> list[Audit]:
    """All shapes at the same time; the audit of each."""
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(plan.shapes)) as pool:
        folders = [folder / f"shape-{number}" for number, _ in enumerate(plan.shapes)]
        return list(pool.map(partial(_run_one, plan, say), plan.shapes, folders))


def _run_one(plan: Plan, say: Say, shape: str, folder: Path) -> Audit:
    with stage(shape, folder, plan.backlog) as at:
        say(f"{shape}: the node listens")
        matrix = Matrix(at, plan.kills, time.monotonic() + plan.minutes * 60, plan.seed)
        stop = threading.Event()
        senders = [
            threading.Thread(target=scanner.run, args=(stop,), name=scanner.name, daemon=True)
            for scanner in at.scanners
        ]
        for sender in senders:
            sender.start()
        try:
            _watch(matrix, say)
        finally:
            stop.set()
        _rest(at, senders)
        found = audit.live(at, matrix)
        at.node.stop()
        return audit.at_rest(found, at)


def _watch(matrix: Matrix, say: Say) -> None:
    """Run the kills; say now and then how far they are."""
    killing = threading.Thread(target=matrix.run, name="matrix")
    killing.start()
    while killing.is_alive():
        killing.join(30)
        done = sum(len(s.ledger.heads) for s in matrix.stage.scanners)
        say(f"{matrix.stage.shape}: {len(matrix.kills)} of {matrix.wanted} kills, {done} heads sent")


def _rest(at: Stage, senders: Sequence[threading.Thread]) -> None:
    """Until the scanners have sent what they had to send, one head more each, and the node has no work left."""
    deadline = time.monotonic() + PATIENCE
    for sender in senders:
        sender.join(max(0.0, deadline - time.monotonic()))
    while not at.at_rest() and time.monotonic() < deadline:
        time.sleep(0.5)
