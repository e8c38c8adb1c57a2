"""Sending the captures of a thin series to Orthanc: as the node delivers them, beside dcmsend and dicomweb-client."""

import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from statistics import median

from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Due
from dicomnode.config import Destination
from dicomnode.delivery import Channel
from dicomnode.jobs import DeliveryState
from dicomnode.spool import Spool
from tests.bench import load, receivers
from tests.bench.receivers import Receiver
from tests.bench.table import markdown, paired, spread
from tests.tools import program

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
HEAD = ("sender", "files/s", "times the peer (least to most)", "CPU s/1,000 of the sender", "not stored")
Series = Sequence[Sequence[Path]]


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Measure and say the table; each of ours is compared with the peer above it."""
    series, nonces = load.captures(folder / "captures"), count(int(time.time()) * 100)
    files = list(chain.from_iterable(series))
    say(f"# Sending: {len(files)} secondary captures of 0.79 MB to Orthanc, {rounds} rounds\n")
    books_url = f"sqlite:///{folder}/books.db"
    bookkeeping.migrate(books_url)
    books = bookkeeping.open_books(books_url)
    with receivers.orthanc(folder / "orthanc", [PLUGIN]) as pacs:
        web = f"http://127.0.0.1:{pacs.http_port}/dicom-web"
        dimse = Destination("pacs", pacs.ae_title, "127.0.0.1", pacs.port)
        ways: dict[str, Callable[[], None]] = {
            "dcmsend": lambda: _dcmsend(pacs, files),
            "node, C-STORE": lambda: _node(dimse, files, folder, books),
            "dicomweb-client": lambda: _dicomweb_client(web, series),
            "node, STOW-RS": lambda: _node(Destination("pacs", stow_url=web), files, folder, books),
        }
        found = {name: list[tuple[float, float, int]]() for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                load.renumber(files, next(nonces))
                once = _timed(way, pacs, len(files))
                if number:  # nobody is measured cold
                    found[name].append(once)
    say(markdown(HEAD, _rows(found)) + "\n")
    bookkeeping.close(books)


def _rows(found: dict[str, list[tuple[float, float, int]]]) -> list[list[object]]:
    rows, peer = list[list[object]](), list[float]()
    for name, rounds in found.items():
        rates = [rate for rate, _, _ in rounds]
        ours = name.startswith("node")
        ratio = spread(paired(rates, peer)) if ours else "1"
        peer = peer if ours else rates
        cpu, lost = median(seconds for _, seconds, _ in rounds), sum(missing for _, _, missing in rounds)
        rows.append([name, f"{median(rates):.0f}", ratio, f"{cpu:.2f}", lost])
    return rows


def _timed(way: Callable[[], None], pacs: Receiver, total: int) -> tuple[float, float, int]:
    """Files a second, seconds of the sender's time for 1,000, files that did not arrive."""
    seconds, start = _cpu(), time.perf_counter()
    way()
    wall, seconds = time.perf_counter() - start, _cpu() - seconds
    missing = total - pacs.held()
    pacs.forget()
    return total / wall, 1000 * seconds / total, missing


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _dcmsend(pacs: Receiver, files: Sequence[Path]) -> None:
    where = ["-aec", pacs.ae_title, "127.0.0.1", str(pacs.port)]
    subprocess.run([program("dcmsend"), "-q", "-nuc", *where, *map(str, files)], check=True)


def _node(destination: Destination, files: Sequence[Path], folder: Path, books: bookkeeping.Books) -> None:
    names = (SecondaryCaptureImageStorage, "", "", 0)
    due = [Due(n, str(path.relative_to(folder)), *names) for n, path in enumerate(files)]
    channel = Channel(destination, "DICOMNODE", Spool(folder), books)
    states = {answer.state for answers in channel.send(due) for answer in answers}
    if states != {DeliveryState.SENT}:
        raise RuntimeError(f"files ended {states}: {channel.away or channel.not_admitted}")


def _dicomweb_client(url: str, series: Series) -> None:
    client = DICOMwebClient(url)
    for paths in series:
        client.store_instances([dcmread(path) for path in paths])
