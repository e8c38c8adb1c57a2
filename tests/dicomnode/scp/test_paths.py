"""Both data paths of dicomnode.scp: what arrives is kept byte for byte, and what does not arrive leaves nothing."""

import itertools
import os
import random
import socket
import stat
import subprocess
import threading
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, generate_uid
from pynetdicom.sop_class import MRImageStorage, StudyRootQueryRetrieveInformationModelFind, Verification
from sqlalchemy import text

from dicomnode import bookkeeping
from dicomnode.scp import Listener, direct
from tests.dicomnode.arrivals import only_series, part10
from tests.dicomnode.scp.conftest import limited
from tests.dicomnode.scp.peers import (
    associate,
    associate_request,
    data_set,
    dcmtk,
    eventually,
    pdu,
    pdv,
    store_command,
    wire,
)
from tests.tools import program


@pytest.fixture(scope="module")
def files(head, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("series")
    for n, ds in enumerate(head):
        (folder / f"{n}.dcm").write_bytes(part10(ds))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def encoded(head) -> bytes:
    return data_set(head[0])


def kept(listener: Listener) -> dict[str, Path]:
    """Every file in in/ by SOP Instance UID; each must be in the books too."""
    root = listener.intake.spool.root
    found = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in (root / "in").iterdir()}
    recorded = {i.sop_instance_uid for s in bookkeeping.receiving(listener.intake.books) for i in s.instances}
    assert recorded == set(found)
    return found


def data_set_of(path: Path) -> bytes:
    """What follows the file meta information."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def nothing_left(listener: Listener) -> bool:
    root = listener.intake.spool.root
    return not any(list((root / name).iterdir()) for name in ("tmp", "in", "quarantine"))


def descriptors() -> list[str]:
    """What this process holds open, without the books: their pool opens a connection when two want one at once."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed since it was listed
            found.append(str(path.readlink()))
    return [name for name in found if "books.db" not in name]


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_what_dcmtk_sends_is_kept_byte_for_byte(listener: Listener, files, head, tool):
    sent = dcmtk(listener, tool, files=files)
    assert sent.returncode == 0, sent.stderr
    found = kept(listener)
    assert len(found) == len(head)
    for ds in head:
        assert data_set_of(found[ds.SOPInstanceUID]) == data_set(ds)
    checked = subprocess.run(
        [program("dcmftest"), *map(str, found.values())], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEGLSLossless], ids=lambda s: s.name)
def test_other_transfer_syntaxes_are_kept_as_they_came(listener: Listener, head, syntax):
    ds = deepcopy(head[0])
    if syntax == JPEGLSLossless:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    assoc = associate(listener, (CTImageStorage, syntax))
    assert assoc.send_c_store(ds).Status == 0x0000
    assoc.release()
    (path,) = kept(listener).values()
    read = dcmread(path)
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.PixelData == ds.PixelData
    assert only_series(listener.intake.books).instances[0].transfer_syntax == syntax


def test_both_paths_write_the_same_file_and_the_same_row(start, head):
    found = []
    for data_path in ("direct", "stock"):
        listener = start(data_path=data_path)
        ds = deepcopy(head[0])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{data_path == 'direct':d}"
        assoc = associate(listener)
        assert assoc.send_c_store(ds).Status == 0x0000
        assoc.release()
        instance = only_series(listener.intake.books).instances[-1]
        content = listener.intake.spool.path(instance.path).read_bytes()
        found.append((content.replace(ds.SOPInstanceUID.encode(), b""), instance.bytes, instance.transfer_syntax))
    assert found[0] == found[1]


def test_four_senders_at_once_lose_and_double_nothing(listener: Listener, head):
    def send(series: list[Dataset], answers: list[int]) -> None:
        assoc = associate(listener)
        answers += [assoc.send_c_store(ds).Status for ds in series]
        assoc.release()

    batches, answers = [], []
    for _ in range(4):
        copies = deepcopy(head)
        for ds in copies:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        batches.append(copies)
    threads = [threading.Thread(target=send, args=(batch, answers)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0x0000] * 4 * len(head)
    assert set(kept(listener)) == {ds.SOPInstanceUID for batch in batches for ds in batch}


@pytest.mark.parametrize("how", ["abort", "vanish"])
def test_a_transfer_that_breaks_off_leaves_nothing(listener: Listener, head, encoded, how):
    with wire(listener) as sender:
        command = pdv(1, 3, store_command(head[0].SOPInstanceUID))
        sender.send(pdu(4, command), pdu(4, pdv(1, 0, encoded[:1500])))
        time.sleep(0.2)
        if how == "abort":
            sender.send(pdu(7, bytes(4)))
            assert sender.receive() == (0, b"")
    assert eventually(lambda: not listener._peers)
    assert eventually(lambda: nothing_left(listener))
    assert bookkeeping.receiving(listener.intake.books) == []
    with wire(listener) as sender:  # and the node goes on
        sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)) + pdv(1, 2, encoded)))
        assert sender.status() == 0x0000


def test_no_thread_and_no_descriptor_is_left_of_twenty_associations(listener: Listener, head, encoded):
    def once(n: int) -> None:
        with wire(listener) as sender:
            sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)) + pdv(1, 2 if n % 2 else 0, encoded)))
            if n % 2:
                assert sender.status() == 0x0000
                sender.send(pdu(5, bytes(4)))
                assert sender.receive()[0] == 6

    once(1)
    assert eventually(lambda: not listener._peers)
    assert eventually(lambda: len(listener._server.active_associations) == 0)
    threads, held = threading.active_count(), descriptors()
    for n in range(20):
        once(n)
    assert eventually(lambda: threading.active_count() <= threads), threading.enumerate()
    assert eventually(lambda: len(descriptors()) <= len(held)), (held, descriptors())
    assert len(list((listener.intake.spool.root / "in").iterdir())) == 1


def test_books_that_refuse_are_answered_out_of_resources_and_no_file_is_left(listener: Listener, head):
    with bookkeeping.store.writing(listener.intake.books) as session:
        session.execute(text("ALTER TABLE instance RENAME TO away"))
    assoc = associate(listener)
    assert assoc.send_c_store(head[0]).Status == 0xA700
    assert nothing_left(listener)
    with bookkeeping.store.writing(listener.intake.books) as session:
        session.execute(text("ALTER TABLE away RENAME TO instance"))
    assert assoc.send_c_store(head[0]).Status == 0x0000
    assoc.release()
    assert list(kept(listener)) == [head[0].SOPInstanceUID]


def test_below_the_watermark_instances_are_refused_and_echo_lives(listener: Listener, head):
    limited(listener, keep_free_gib=1e6)
    fresh = listener.__class__(listener.settings, listener.intake)
    listener.shutdown()
    fresh.start()
    assoc = associate(fresh, (CTImageStorage, ExplicitVRLittleEndian), (Verification,))
    assert assoc.send_c_store(head[0]).Status == 0xA700
    assert assoc.send_c_echo().Status == 0x0000
    assert nothing_left(fresh)
    assoc.release()
    fresh.shutdown()


def test_what_is_larger_than_the_limit_is_refused_and_the_next_is_taken(start, head):
    for data_path in ("direct", "stock"):
        listener = start(data_path=data_path, largest_instance_mib=1)
        large = deepcopy(head[0])
        large.Rows = large.Columns = 1024
        large.PixelData = bytes(2 * 1024 * 1024)
        assoc = associate(listener)
        assert assoc.send_c_store(large).Status == 0xA700
        assert assoc.send_c_store(head[1]).Status == 0x0000
        assoc.release()
        assert list(kept(listener)) == [head[1].SOPInstanceUID]


def test_tls_carries_both_paths(start, tls, files, head):
    server, client = tls
    for data_path in ("direct", "stock"):
        listener = start(tls=server, data_path=data_path)
        assoc = associate(listener, tls_args=(client, "localhost"))
        ds = deepcopy(head[0])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        assert assoc.send_c_store(ds).Status == 0x0000
        assoc.release()
        assert data_set_of(kept(listener)[ds.SOPInstanceUID]) == data_set(ds)


def test_a_caller_that_never_shakes_hands_keeps_nobody_waiting(start, tls, head, encoded):
    server, client = tls
    listener = start(tls=server, data_path="direct")
    mute = socket.create_connection(("127.0.0.1", listener.settings.listen.port))
    with mute, wire(listener, tls=client) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)) + pdv(1, 2, encoded)))
        assert sender.status() == 0x0000


@pytest.mark.parametrize("cut", ["one", "many"])
def test_tls_records_and_pdus_need_not_agree(start, tls, head, encoded, cut):
    server, client = tls
    listener = start(tls=server, data_path="direct")
    message = pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID))) + pdu(4, pdv(1, 2, encoded))
    with wire(listener, tls=client) as sender:
        for _ in range(3):
            for at in range(0, len(message), len(message) if cut == "one" else 700):
                sender.send(message[at : at + (len(message) if cut == "one" else 700)])
            assert sender.status() == 0x0000


# How a message is cut is the sender's business.


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({c % len(content) for c in cuts} - {0}), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(edges)]


def pdvs(content: bytes, cuts: list[int], command: bool) -> list[bytes]:
    parts = pieces(content, cuts)
    return [pdv(1, command + (2 if n == len(parts) - 1 else 0), part) for n, part in enumerate(parts)]


CUTS = st.lists(st.integers(1, 5000), max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command_cuts=CUTS, data_cuts=CUTS, grouping=st.lists(st.booleans(), min_size=30, max_size=30), sending=CUTS)
def test_a_message_may_be_cut_into_values_pdus_and_packets_anywhere(
    direct: Listener, sender, head, encoded, command_cuts, data_cuts, grouping, sending
):
    values = pdvs(store_command(head[0].SOPInstanceUID), command_cuts, True) + pdvs(encoded, data_cuts, False)
    message, group = b"", b""
    for value, ends in zip(values, [*grouping[: len(values) - 1], True], strict=False):
        group += value
        if ends:
            message, group = message + pdu(4, group), b""
    for part in pieces(message + (pdu(4, group) if group else b""), sending):
        sender.send(part)
    assert sender.status() == 0x0000
    (path,) = kept(direct).values()
    assert data_set_of(path) == encoded


@pytest.fixture
def sender(direct: Listener):
    with wire(direct) as opened:
        yield opened


# A malformed A-ABORT raises in pynetdicom's thread of that association, which then ends: that is what is asked here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=400), kind=st.integers(0, 9), where=st.sampled_from(["pdu", "value", "command"]))
def test_wild_bytes_end_the_association_and_nothing_else(direct: Listener, junk, kind, where):
    wild = {
        "pdu": pdu(kind, junk),
        "value": pdu(4, junk),
        "command": pdu(4, pdv(1, 3, junk)),
    }[where]
    with wire(direct) as sender:
        sender.send(wild, pdu(7, bytes(4)))
        while sender.receive()[0]:
            pass
    assert list((direct.intake.spool.root / "in").iterdir()) == []


UID = "1.2.3.4"
DATA = pdv(1, 2, b"data")
BROKEN = {
    "a length that goes beyond the PDU": pdu(4, pdv(1, 3, store_command(UID))[:-7]),
    "a value too short for its head": pdu(4, b"\0\0\0\1\1"),
    "an empty PDU": pdu(4, b""),
    "a PDU larger than agreed": b"\4\0" + (direct.MAXIMUM_PDU + 1).to_bytes(4, "big"),
    "a PDU of four gigabytes": b"\4\0\xff\xff\xff\xff",
    "another PDU of four gigabytes": b"\5\0\xff\xff\xff\xff",
    "an unknown PDU": pdu(9, b""),
    "an element longer than the command": pdu(4, pdv(1, 3, store_command(UID)[:-3])),
    "a command without end": pdu(4, pdv(1, 1, bytes(50000))) * 3,
    "data without a command": pdu(4, DATA),
    "a command in the middle of data": pdu(
        4, pdv(1, 3, store_command(UID)) + pdv(1, 0, b"data") + pdv(1, 3, store_command(UID))
    ),
    "a command over two contexts": pdu(4, pdv(1, 1, store_command(UID)[:40]) + pdv(3, 3, store_command(UID)[40:])),
    "data over another context": pdu(4, pdv(1, 3, store_command(UID)) + pdv(3, 2, b"data")),
    "a context that was not accepted": pdu(4, pdv(5, 3, store_command(UID)) + pdv(5, 2, b"data")),
    "a request without a UID": pdu(4, pdv(1, 3, store_command(UID, uid=None)) + DATA),
    "a request without a class": pdu(4, pdv(1, 3, store_command(UID, sop_class="")) + DATA),
    "a UID of a kilobyte": pdu(4, pdv(1, 3, store_command("1" * 1024)) + DATA),
    "a message without a field": pdu(4, pdv(1, 3, store_command(UID, field=None)) + DATA),
    "a request for an association within one": pdu(1, bytes(100)),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_protocol_aborts_the_association_and_leaves_nothing(direct: Listener, broken):
    with wire(direct, (CTImageStorage, MRImageStorage)) as sender:
        sender.send(broken)
        assert sender.receive()[0] == 7, "no A-ABORT came"
    assert eventually(lambda: not direct._peers)
    assert nothing_left(direct)


def test_an_error_of_ours_in_the_middle_of_a_transfer_ends_the_association(
    direct: Listener, head, encoded, monkeypatch
):
    """pynetdicom sends an A-ABORT then, and tells no handler of the end."""
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID))), pdu(4, pdv(1, 0, encoded[:1500])))
        assert eventually(lambda: list((direct.intake.spool.root / "tmp").iterdir()))
        monkeypatch.setattr("dicomnode.scp.wire.fragments", lambda _: 1 // 0)
        sender.send(pdu(4, pdv(1, 2, encoded[1500:])))
        assert sender.receive()[0] == 7, "no A-ABORT came"
    assert eventually(lambda: not direct._peers)
    assert eventually(lambda: nothing_left(direct))
    assert bookkeeping.receiving(direct.intake.books) == []


def test_a_peer_that_is_gone_before_its_request_is_looked_at_leaves_nothing(direct: Listener, monkeypatch):
    late = Listener._peer

    def gone_meanwhile(listener: Listener, source: object, address: str) -> object:
        assert eventually(lambda: not any(a.dul.is_alive() for a in listener._server.active_associations))
        seen.set()
        return late(listener, source, address)

    seen = threading.Event()
    monkeypatch.setattr(Listener, "_peer", gone_meanwhile)
    with socket.create_connection(("127.0.0.1", direct.settings.listen.port)) as connection:
        connection.sendall(associate_request((CTImageStorage,)))
    assert seen.wait(20)
    assert eventually(lambda: not direct._server.active_associations)
    assert eventually(lambda: not direct._peers)


def test_a_message_of_another_service_cannot_fill_the_memory(direct: Listener, monkeypatch):
    monkeypatch.setattr("dicomnode.scp.direct.MAXIMUM_OTHER_MESSAGE", 100_000)
    find = store_command(UID, sop_class=StudyRootQueryRetrieveInformationModelFind, field=b"\x20\x00")
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, find)), *[pdu(4, pdv(1, 0, bytes(60_000)))] * 2)
        assert sender.receive()[0] == 7


def test_a_request_without_a_data_set_is_answered_cannot_understand(direct: Listener):
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(UID, data_set=b"\x01\x01"))))
        assert sender.status() == 0xC000


@pytest.mark.parametrize("where", ["in a PDU", "between PDUs"])
def test_a_sender_that_falls_silent_is_let_go(direct: Listener, head, encoded, where):
    direct._server.ae.network_timeout = 1.0
    with wire(direct) as sender:
        half = pdu(4, pdv(1, 0, encoded[:1500]))
        command = pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)))
        sender.send(command, half[:700] if where == "in a PDU" else half)
        began = time.monotonic()
        while sender.receive()[0]:
            pass
        assert time.monotonic() - began < 5
    assert eventually(lambda: not direct._peers and nothing_left(direct))


def test_a_slow_sender_is_not_taken_for_a_silent_one(direct: Listener, head, encoded):
    direct._server.ae.network_timeout = 1.0
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID))))
        for piece in pieces(encoded, [500, 1000, 1500, 2000]):
            sender.send(pdu(4, pdv(1, 0, piece)))
            time.sleep(0.5)
        sender.send(pdu(4, pdv(1, 2, b"")))
        assert sender.status() == 0x0000


def test_the_listener_ends_at_once_while_data_sets_are_arriving(direct: Listener, head, encoded):
    with wire(direct) as between, wire(direct) as within:
        command = pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)))
        half = pdu(4, pdv(1, 0, encoded[:1500]))
        between.send(command, half)
        assert eventually(lambda: list((direct.intake.spool.root / "tmp").iterdir()))
        within.send(command, half[:700])
        time.sleep(0.5)  # what was sent last is read meanwhile; nothing tells when
        began = time.monotonic()
        direct.shutdown()
        assert time.monotonic() - began < 5
        assert between.receive()[0] == 7
        assert within.receive()[0] == 7
    assert eventually(lambda: nothing_left(direct))


def test_echo_and_store_may_take_turns_on_one_association(listener: Listener, head):
    assoc = associate(listener, (CTImageStorage, ExplicitVRLittleEndian), (Verification,))
    for ds in head[:4]:
        assert assoc.send_c_echo().Status == 0x0000
        assert assoc.send_c_store(ds).Status == 0x0000
    assoc.release()
    assert len(kept(listener)) == 4


def test_the_response_repeats_what_was_asked(direct: Listener, head, encoded):
    uid, number = head[0].SOPInstanceUID, random.Random(1).randrange(65536)
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(uid, message_id=number)) + pdv(1, 2, encoded)))
        _, content = sender.receive()
    said = sender.elements(content[6:])
    assert said[0x0000] == len(content[6:]) - 12 or int.from_bytes(said[0x0000], "little") == len(content[6:]) - 12
    assert (said[0x0100], said[0x0120], said[0x0800], said[0x0900]) == (0x8001, number, 0x0101, 0x0000)
    assert said[0x0002].rstrip(b"\0").decode() == CTImageStorage
    assert said[0x1000].rstrip(b"\0").decode() == uid


def test_file_name_folder_row_and_response_come_in_this_order(direct: Listener, head, encoded, monkeypatch):
    """fsync(file) < rename < fsync(directory) < record < response (design contract 5)."""
    passed = []
    for place in ("dicomnode.spool", "dicomnode.bookkeeping.arrivals", "dicomnode.intake", "dicomnode.scp.direct"):
        monkeypatch.setattr(f"{place}.crashpoint", passed.append)
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        fsync(descriptor)
        passed.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", lambda *a, **k: (replace(*a, **k), passed.append("rename")))
    with wire(direct) as sender:
        sender.send(pdu(4, pdv(1, 3, store_command(head[0].SOPInstanceUID)) + pdv(1, 2, encoded)))
        assert sender.status() == 0x0000
        assert eventually(lambda: passed[-1] == "receive.answered")
    wanted = ["fsync file", "rename", "fsync folder", "receive.noted", "receive.recorded", "receive.answered"]
    assert [step for step in passed if step in wanted] == wanted
