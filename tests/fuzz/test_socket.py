"""Five thousand hostile peers, one after the other, on the socket of a running listener; a sample of them in CI.

Afterwards an honest sender is served, no association, thread or half-written file is left, and nothing lies outside the
spool.
"""

import random
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage

from dicomnode.scp import Listener
from tests.dicomnode.scp.conftest import direct, empty_books, head, start  # noqa: F401
from tests.dicomnode.scp.peers import associate, associate_request, eventually
from tests.fuzz import cases

SAMPLE, PEERS = 100, 5_000
PATIENCE = 60.0  # seconds for an answer, on a machine that is busy with other things
ROOM = 256 * 1024  # KiB by which the whole run may grow
HONEST_EVERY = 500
NOW_AND_THEN = b"\x05\0\0\0\0\4\0\0\0\0"  # A-RELEASE-RQ


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What ended a thread."""
    found: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_value))
    return found


def one(port: int, number: int) -> str:
    """What the node does about one peer: nothing it says ("closed"), or the type of the last PDU it sends."""
    rng = random.Random(f"peer {number}")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(PATIENCE)
        if rng.random() < 0.3:
            content = cases.request(number)
        else:
            content = associate_request((CTImageStorage,)) + cases.stream(number) + rng.choice((b"", NOW_AND_THEN))
        ending = rng.choice(("shut", "shut", "shut", "reset"))
        try:
            for piece in pieces(rng, content):
                connection.sendall(piece)
            if ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return "reset by us"
            connection.shutdown(socket.SHUT_WR)
            return answer(connection)
        except TimeoutError:
            raise
        except OSError:
            return "reset by the node"


def pieces(rng: random.Random, content: bytes) -> Iterator[bytes]:
    """One packet, or a few."""
    while content:
        length = rng.choice((len(content), rng.randint(1, len(content))))
        yield content[:length]
        content = content[length:]


def answer(connection: socket.socket) -> str:
    said = b""
    while piece := connection.recv(65536):
        said += piece
    last = 0
    while len(said) >= 6:
        kind, length = struct.unpack_from(">BxI", said)
        assert kind in range(1, 8), f"the node sent a PDU of type {kind:02X}H"
        assert len(said) >= 6 + length, "the node sent half a PDU"
        said, last = said[6 + length :], kind
    assert not said
    return f"PDU {last:02X}H" if last else "closed"


def outside(spool: Path) -> set[str]:
    """Every file beside the spool, and where a name that climbs would come out."""
    around = {str(p) for p in spool.parent.rglob("*") if spool not in p.parents}
    return around | {str(p) for p in (Path("/tmp/escaped"), Path("/escaped"), Path.cwd() / "escaped") if p.exists()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "peers", [pytest.param(SAMPLE, id="sample"), pytest.param(PEERS, id="all", marks=pytest.mark.slow)]
)
def test_hostile_peers_harm_nobody_but_themselves(direct: Listener, head, failures, peers):  # noqa: F811
    direct._server.ae.acse_timeout = 5.0  # for a request that does not come
    spool, port = direct.intake.spool.root, direct.settings.listen.port
    before, threads, began = outside(spool), threading.active_count(), time.monotonic()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: Counter = Counter()
    for number in range(peers):
        found[one(port, number)] += 1
        if number % HONEST_EVERY == 0:
            honest(direct, head)
    honest(direct, head)
    print(dict(found), f"{time.monotonic() - began:.0f} s", Counter(type(e).__name__ for e in failures))
    assert eventually(lambda: not direct._peers), "an association was never ended"
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threading.active_count() <= threads, threading.enumerate()
    assert not list((spool / "tmp").iterdir())
    assert outside(spool) <= before | {str(p) for p in spool.parent.glob("books.db*")}
    assert all(set(name.name) <= NAME for folder in ("in", "quarantine") for name in (spool / folder).iterdir())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < ROOM
    assert not failures


NAME = set("0123456789ABCDEFGHJKMNPQRSTVWXYZabcdefghijklmnopqrstuvwxyz.")


def honest(listener: Listener, series) -> None:
    assoc = associate(listener)
    assert assoc.is_established
    assert assoc.send_c_store(series[0]).Status == 0x0000
    assoc.release()
