"""A hundred thousand hostile cases against the parsers; a sample of them in CI, the rest in the slow suite.

Every case ends in a value or in the one exception that stands for a refusal, in a moment and in little memory.
"""

import resource
import time
from collections import Counter
from io import BytesIO
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage
from pynetdicom.dul import DULServiceProvider

from dicomnode import completeness, eligibility, header, places
from dicomnode.bookkeeping import Peer
from dicomnode.scp import direct, wire
from dicomnode.scp.store import CANNOT_UNDERSTAND, SUCCESS
from inference import frames, volume
from inference.refusal import Refused
from tests.conftest import NOW
from tests.dicomnode.arrivals import peer
from tests.fuzz import cases

SAMPLE, DATA_SETS, STREAMS, SERIES = 0.02, 50_000, 45_000, 5_000  # all in all 100,000
MOMENT = 5.0  # seconds of processor time; the slowest honest case takes a hundredth of that
ROOM = 512 * 1024  # KiB by which the whole run may grow
CODES = {"not-dicom", "truncated"}

runs = pytest.mark.parametrize(
    "share", [pytest.param(SAMPLE, id="sample"), pytest.param(1.0, id="all", marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM


def outcomes(count: int, share: float, one) -> Counter:
    """What became of each case, in a word; a case that raises or lingers is named by its number."""
    found: Counter = Counter()
    for number in range(round(count * share)):
        began = time.process_time()
        try:
            found[one(number)] += 1
        except Exception as error:
            raise AssertionError(f"case {number} raised {error!r}") from error
        assert time.process_time() - began < MOMENT, f"case {number} lingers"
    print(dict(found))
    return found


@runs
@pytest.mark.filterwarnings("ignore")
def test_a_hostile_data_set_is_read_or_refused(share):
    def one(number: int) -> str:
        try:
            head = header.read(cases.data_set(number))
        except Refused as refused:
            assert refused.code in CODES
            assert refused.sentence
            return refused.code
        for keyword in header.IDENTITY:
            assert header.UID_LIKE.fullmatch(head.elements[keyword])
        return "read"

    found = outcomes(DATA_SETS, share, one)
    assert set(found) == {"read", *CODES}


class Peerless:
    """The store of an association without disk or books: it counts what it is given."""

    largest = 2**20

    def __init__(self) -> None:
        self.open = 0

    def begin(self, meta: bytes) -> "Peerless":
        self.open += 1
        self.content = bytearray(meta)
        return self

    def write(self, part: "Peerless", piece: memoryview, beginning: int) -> None:
        self.content += piece

    def finish(self, part: "Peerless", of: Peer) -> int:
        self.open -= 1
        try:
            header.read(bytes(self.content))
        except Refused:
            return CANNOT_UNDERSTAND
        return SUCCESS

    def drop(self) -> None:
        self.open -= 1


class Line:
    """A socket whose peer sends these bytes and goes."""

    ready = True

    def __init__(self, content: bytes) -> None:
        self.content, self.at, self.said = content, 0, []
        self.socket = SimpleNamespace(sendall=self.said.append)

    def take(self, count: int) -> memoryview:
        piece = self.content[self.at : self.at + count]
        self.at += len(piece)
        if len(piece) < count:
            raise ConnectionResetError("the peer closed the connection")
        return memoryview(piece)


def association(line: Line) -> SimpleNamespace:
    """What of an association the reader looks at, established, with one context accepted."""
    assoc = SimpleNamespace(
        requestor=SimpleNamespace(address="127.0.0.1"),
        _accepted_cx={1: SimpleNamespace(transfer_syntax=["1.2.840.10008.1.2.1"], abstract_syntax=CTImageStorage)},
        dimse=SimpleNamespace(receive_primitive=lambda primitive: None),
        get_handlers=lambda event: [],
    )
    dul = DULServiceProvider.__new__(DULServiceProvider)
    dul._assoc, dul.socket = assoc, line
    dul.state_machine = SimpleNamespace(current_state=direct.ESTABLISHED)
    dul.event_queue, dul._recv_pdu, dul.to_provider_queue = SimpleQueue(), SimpleQueue(), SimpleQueue()
    dul._idle_timer = SimpleNamespace(restart=lambda: None)
    assoc.dul = dul
    return assoc


@runs
@pytest.mark.filterwarnings("ignore")
def test_hostile_pdus_end_their_association_and_nothing_else(share):
    def one(number: int) -> str:
        line, store = Line(cases.stream(number)), Peerless()
        assoc = association(line)
        reader = direct.Reader(assoc, store, lambda of: peer(NOW))
        while assoc.dul.event_queue.empty():
            reader.read()
        assert store.open == 0, "bytes of an instance that never came are still held"
        for answer in line.said:
            kind, length = wire.PDU_HEAD.unpack_from(answer)
            assert (kind, length) == (wire.P_DATA_TF, len(answer) - wire.PDU_HEAD.size)
        event = assoc.dul.event_queue.get()
        assoc.dul.__dict__.clear()  # which also names the association: a circle that is collected late
        return {direct.CONNECTION_CLOSED: "closed", direct.INVALID_PDU: "aborted"}.get(event, "passed on")

    found = outcomes(STREAMS, share, one)
    assert set(found) == {"closed", "aborted", "passed on"}


@runs
@pytest.mark.filterwarnings("ignore")
def test_a_good_series_with_spoiled_elements_is_judged_or_refused(share, settings):
    def one(number: int) -> str:
        files = cases.mutated(number)
        try:
            for file in files:
                header.read(file)
            headers = [frame for file in files for frame in frames.of(header.parse(BytesIO(file)))]
            eligibility.judge_at_once(headers, settings)
            gaps = completeness.gaps(places.slices(headers))
            eligibility.judge_whole(headers, gaps)
            head = volume.from_slices([frame for file in files for frame in frames.of(dcmread(BytesIO(file)))])
        except Refused as refused:
            assert refused.sentence
            return refused.code
        assert np.isfinite(head.hu).all()
        return "volume"

    found = outcomes(SERIES, share, one)
    assert found["volume"]
