"""Receiving by STOW-RS: `dicomnode web` beside Orthanc's DICOMweb plug-in, and the memory of one very large request.

Each request is made by a process of its own that streams the files as they lie on disk, the same for both. Both fsync
every file before they answer.
"""

import subprocess
import sys
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

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
REQUESTS = (1, 4)
INSTANCES = 320  # of one round, shared among the requests
LARGE = 4 * 10**9  # bytes of the large request
HEAD = ("receiver", "requests", "instances/s", "times the peer (least to most)", "CPU s/1,000", "MB", "lost")


@dataclass(frozen=True)
class Round:
    """rate: instances a second of wall time, senders' start included. cpu: seconds for 1,000. lost: or altered."""

    rate: float
    cpu: float
    megabytes: float
    lost: int


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Measure rates, then the memory of the large request."""
    say(f"# STOW-RS: {INSTANCES} instances of 0.53 MB a round, {rounds} rounds\n")
    slices = [INSTANCES, *[INSTANCES // max(REQUESTS)] * (max(REQUESTS) - 1)]
    series = [load.series(folder / f"load{n}", n, number) for n, number in enumerate(slices)]
    nonces = count(int(time.time()) * 100)
    with ExitStack() as running:
        peer = running.enter_context(receivers.orthanc(folder / "orthanc", [str(PLUGIN)]))
        ours = running.enter_context(receivers.web(folder / "node"))
        found = {(r.name, n): list[Round]() for n in REQUESTS for r in (peer, ours)}
        for receiver in (peer, ours):
            once(receiver, [series[0][:20]], next(nonces))  # nobody is measured cold
        for _ in range(rounds):
            for n in REQUESTS:
                for receiver in (peer, ours):
                    share = [paths[: INSTANCES // n] for paths in series[:n]]
                    found[receiver.name, n].append(once(receiver, share, next(nonces)))
        say(markdown(HEAD, [row(name, n, found[name, n], found[peer.name, n]) for name, n in found]) + "\n")
        before = processes.memory(ours.pid)
        load.renumber(series[0], next(nonces))
        times = LARGE // sum(path.stat().st_size for path in series[0]) + 1
        with Watch(ours.pid) as watch:
            subprocess.run(command(ours, series[0], times), check=True)
        size = times * sum(path.stat().st_size for path in series[0])
        words = f"{before:.0f} MB before, at most {watch.peak:.0f} MB while it came"
        say(f"One request of {size / 1e9:.1f} GB, {times * len(series[0])} instances: {words}; {watch.wall:.0f} s.\n")


def row(name: str, requests: int, ours: Sequence[Round], theirs: Sequence[Round]) -> list[object]:
    """One line of the table."""
    ratio = "1" if ours is theirs else spread(paired([r.rate for r in ours], [r.rate for r in theirs]))
    rate, seconds = f"{median(r.rate for r in ours):.0f}", f"{median(r.cpu for r in ours):.2f}"
    return [name, requests, rate, ratio, seconds, f"{max(r.megabytes for r in ours):.0f}", sum(r.lost for r in ours)]


def once(receiver: Receiver, share: Sequence[Sequence[Path]], nonce: int) -> Round:
    """Store each share with a request of its own, all at once, and look at what arrived."""
    everything = [path for paths in share for path in paths]
    load.renumber(everything, nonce)
    with Watch(receiver.pid) as watch:
        senders = [subprocess.Popen(command(receiver, paths)) for paths in share]
        codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"a request to {receiver.name} was not answered with 200")
    lost = len(everything) - receiver.held()
    if receiver.digests:
        lost = len({receivers.digest(path) for path in everything} - receiver.digests())
    receiver.forget()
    total = len(everything)
    return Round(total / watch.wall, 1000 * watch.seconds / total, watch.peak, lost)


def command(receiver: Receiver, paths: Sequence[Path], times: int = 1) -> list[str]:
    """What stores these files with one request."""
    url = f"http://127.0.0.1:{receiver.http_port}/dicom-web/studies"
    what = [url, receiver.token or "none", str(times), *map(str, paths)]
    return [sys.executable, "-m", "tests.bench.stow_client", *what]
