"""Ten thousand associations leave nothing behind in the receiver: no memory, no thread, no descriptor."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from tests.dicomnode.scp.peers import data_set, pdu, pdv, store_command, wire
from tests.dicomnode.test_notify import children, service
from tests.walks.node import Node, wait_for

ASSOCIATIONS, SENDERS, SAMPLES = 10_000, 4, 100
STEEPEST = 1.0  # kB an association, over the last four fifths
RESTING = 4  # threads of a receiver without associations
RELEASE = pdu(0x05, bytes(4))


def resident(pid: int) -> int:
    """Kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def held(pid: int) -> tuple[int, int]:
    """Threads, and descriptors but those of the books, which keep up to five connections open."""
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            names.append(str(descriptor.readlink()))
    return len(list(Path(f"/proc/{pid}/task").iterdir())), sum("/books.db" not in name for name in names)


def associate(node: Node, numbers: range) -> None:
    """Associations one after the other, each of which brings a small instance."""
    (ds,) = phantom.head(phantom.even(1), matrix=16)
    for number in numbers:
        ds.SOPInstanceUID = f"1.2.3.{number}"
        with wire(node) as peer:
            peer.send(pdu(0x04, pdv(1, 3, store_command(ds.SOPInstanceUID))), pdu(0x04, pdv(1, 2, data_set(ds))))
            assert peer.status() == 0
            peer.send(RELEASE)
            assert peer.receive()[0] == 0x06


def together(node: Node, numbers: range) -> None:
    """The same by several senders at once."""
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda n: associate(node, numbers[n::SENDERS]), range(SENDERS)))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_thousand_associations_leave_nothing_behind(tmp_path: Path):
    node = Node.init(tmp_path / "node", "--source", "CT1@127.0.0.1", "--source", "STORESCU@127.0.0.1")
    toml = node.folder / "node.toml"
    toml.write_text(toml.read_text().replace("processes = 2", "processes = 1"))
    with service(node, "listen") as listener:
        wait_for(node.listens, "the listener")
        (receiver,) = children(listener.pid)
        together(node, range(SENDERS))  # the books keep a connection open for each that has written at once
        wait_for(lambda: held(receiver)[0] <= RESTING, "the end of the first associations")
        before, steps = held(receiver), range(SENDERS, ASSOCIATIONS, ASSOCIATIONS // SAMPLES)
        kilobytes = []
        for start in steps:
            together(node, range(start, start + ASSOCIATIONS // SAMPLES))
            kilobytes.append(resident(receiver))
        late = np.arange(len(steps))[SAMPLES // 5 :]
        slope = np.polyfit(late * (ASSOCIATIONS // SAMPLES), np.array(kilobytes)[late], 1)[0]
        print(f"{ASSOCIATIONS} associations: {kilobytes[0]} to {kilobytes[-1]} kB, {slope:.2f} kB an association")
        assert slope < STEEPEST
        try:
            wait_for(lambda: all(np.less_equal(held(receiver), before)), "the threads and descriptors of the start")
        finally:
            print(f"threads and descriptors: {before} at the start, {held(receiver)} at the end")
