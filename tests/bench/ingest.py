"""Receiving by C-STORE: `dicomnode listen` beside Orthanc, and its data path alone beside DCMTK storescp.

DCMTK dcmsend sends to each in turn, round by round; one process for each association. Those that fsync and those that
do not are measured apart: an fsync also writes what others have left lying.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from tests.bench import load, processes, receivers
from tests.bench.processes import Watch
from tests.bench.receivers import Receiver
from tests.bench.table import markdown, paired, spread
from tests.tools import program

ASSOCIATIONS = (1, 4, 8)
INSTANCES = 320  # of one round, shared among the associations
HEAD = ("receiver", "associations", "instances/s", "times the peer (least to most)", "CPU s/1,000", "MB", "lost")


@dataclass(frozen=True)
class Round:
    """rate: instances a second of wall time, senders' start included. cpu: seconds for 1,000. lost: or altered."""

    rate: float
    cpu: float
    megabytes: float
    lost: int


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Measure both groups and say the tables."""
    say(f"# Receiving: {INSTANCES} instances of 0.53 MB a round, {rounds} rounds\n")
    series = [load.series(folder / f"load{n}", n) for n in range(max(ASSOCIATIONS))]
    nonces = count(int(time.time()) * 100)
    for name, peer, ours in (
        ("durable", receivers.orthanc, receivers.node),
        ("plain", receivers.storescp, receivers.plain),
    ):
        with ExitStack() as running:
            pair = [running.enter_context(start(folder / f"{name}{n}")) for n, start in enumerate((peer, ours))]
            say(compare(pair, series, rounds, nonces) + "\n")
            if name == "durable":
                say(idle(pair[1]) + "\n")


def compare(pair: Sequence[Receiver], series: Sequence[Sequence[Path]], rounds: int, nonces: count) -> str:
    """A table of our receiver beside its peer, which comes first in the pair."""
    found = {(r.name, n): list[Round]() for n in ASSOCIATIONS for r in pair}
    for receiver in pair:
        once(receiver, [series[0][:20]], next(nonces))  # nobody is measured cold
    for _ in range(rounds):
        for n in ASSOCIATIONS:
            for receiver in pair:
                share = [paths[: min(len(paths), INSTANCES // n)] for paths in series[:n]]
                found[receiver.name, n].append(once(receiver, share, next(nonces)))
    return markdown(HEAD, [row(name, n, found[name, n], found[pair[0].name, n]) for name, n in found])


def row(name: str, associations: int, ours: Sequence[Round], theirs: Sequence[Round]) -> list[object]:
    """One line of the table."""
    ratio = "1" if ours is theirs else spread(paired([r.rate for r in ours], [r.rate for r in theirs]))
    seconds, megabytes = f"{median(r.cpu for r in ours):.2f}", f"{max(r.megabytes for r in ours):.0f}"
    return [
        name,
        associations,
        f"{median(r.rate for r in ours):.0f}",
        ratio,
        seconds,
        megabytes,
        sum(r.lost for r in ours),
    ]


def once(receiver: Receiver, share: Sequence[Sequence[Path]], nonce: int) -> Round:
    """Send each share over an association of its own, all at once, and look at what arrived."""
    everything = [path for paths in share for path in paths]
    load.renumber(everything, nonce)
    with Watch(receiver.pid) as watch:
        senders = [subprocess.Popen(_dcmsend(receiver, paths), stderr=subprocess.PIPE) for paths in share]
        said = [sender.communicate()[1].decode() for sender in senders]
    failed = [words for sender, words in zip(senders, said, strict=True) if sender.returncode]
    if failed:
        raise RuntimeError(f"dcmsend to {receiver.name}: {failed[0]}")
    lost = len(everything) - receiver.held()
    if receiver.digests:
        lost = len({receivers.digest(path) for path in everything} - receiver.digests())
    receiver.forget()
    total = len(everything)
    return Round(total / watch.wall, 1000 * watch.seconds / total, watch.peak, lost)


def _dcmsend(receiver: Receiver, paths: Sequence[Path]) -> list[str]:
    where = ["-aec", receiver.ae_title, "127.0.0.1", str(receiver.port)]
    return [program("dcmsend"), "-q", "-nuc", *where, *map(str, paths)]


def idle(receiver: Receiver, associations: int = 20, seconds: float = 10.0) -> str:
    """What open associations cost that nothing comes over."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    ae = AE(receivers.CALLING)
    ae.add_requested_context(Verification)
    before = _share(receiver, seconds)
    open_ = [ae.associate("127.0.0.1", receiver.port, ae_title=receiver.ae_title) for _ in range(associations)]
    after = _share(receiver, seconds)
    for assoc in open_:
        assoc.release()
    return f"One idle association of {receiver.name}: {100 * (after - before) / associations:.2f} % of a core."


def _share(receiver: Receiver, seconds: float) -> float:
    start = processes.cpu(receiver.pid)
    time.sleep(seconds)
    return (processes.cpu(receiver.pid) - start) / seconds
