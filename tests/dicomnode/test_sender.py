"""dicomnode.sender over real associations with a PACS that remembers, and that can be told to misbehave."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicomnode import sender
from dicomnode.config import Destination
from dicomnode.demo import free_port
from dicomnode.sender import ClassRefused, File, NotAdmitted, Stalled, Status, Unreachable, association, part10
from tests import phantom
from tests.pacs import HangUp, Pacs, swallowing
from tests.tools import program
from tests.walks.node import wait_for


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    """Three captures and one object of another class, as finished files."""
    found = []
    for n, ds in enumerate(phantom.head(phantom.even(12), matrix=16)[:4]):
        ds.SOPClassUID = SecondaryCaptureImageStorage if n < 3 else ParametricMapStorage
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        path = tmp_path / f"{n}.dcm"
        ds.save_as(path, enforce_file_format=True)
        found.append(File(path, str(ds.SOPClassUID)))
    return found


def send(files, pacs: Pacs, **other) -> list:
    return list(sender.send(files, pacs.destination(**other), "DICOMNODE"))


def test_finished_files_arrive_byte_for_byte_over_one_association(files):
    with Pacs().running() as pacs:
        assert send(files, pacs) == [0x0000] * 4
        assert pacs.associations == 1
    for file, encoded in zip(files, pacs.encoded, strict=True):
        assert file.path.read_bytes().endswith(encoded)


@pytest.mark.parametrize("maximum_pdu", [256, 16382, 0])
def test_any_length_of_pdu_carries_the_same_bytes(files, maximum_pdu, monkeypatch):
    monkeypatch.setattr(association, "BLOCK", 1000)  # so that a file is read in several blocks
    with Pacs(maximum_pdu=maximum_pdu).running() as pacs:
        assert send(files[:2], pacs) == [0x0000] * 2
    for file, encoded in zip(files, pacs.encoded, strict=False):
        assert len(encoded) == len(file.path.read_bytes()) - part10.meta(file.path).offset
        assert file.path.read_bytes().endswith(encoded)


def test_a_compressed_file_is_sent_as_it_is_and_only_to_who_takes_it(files, tmp_path: Path):
    ds = dcmread(files[0].path)
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    compressed = [File(tmp_path / "rle.dcm", files[0].sop_class)]
    with Pacs(syntaxes=(ExplicitVRLittleEndian, RLELossless)).running() as pacs:
        assert send(compressed, pacs) == [0x0000]
    assert pacs.received[0].file_meta.TransferSyntaxUID == RLELossless
    assert compressed[0].path.read_bytes().endswith(pacs.encoded[0])
    with Pacs().running() as pacs:
        (answer,) = send(compressed, pacs)
    assert isinstance(answer, ClassRefused)


@given(st.binary(max_size=400))
def test_what_is_not_a_dicom_file_is_said_to_be_none(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("wild") / "x.dcm"
    for head in (b"", bytes(128) + b"DICM", bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00\x80\x00\x00\x00"):
        path.write_bytes(head + content)
        with pytest.raises((InvalidDicomError, UnicodeDecodeError)):
            part10.meta(path)


@contextmanager
def peer(*answers: bytes | float) -> Iterator[Destination]:
    """A peer that accepts our first context, then sends these bytes, or waits, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_converse, args=(listening, answers), daemon=True)
        thread.start()
        yield Destination("pacs", "PACS", "127.0.0.1", listening.getsockname()[1])
        thread.join(10)


def _converse(listening: socket.socket, answers: tuple[bytes | float, ...]) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(accepting())
        connection.recv(65536)
        for each in answers:
            if isinstance(each, bytes):
                connection.sendall(each)
            else:
                time.sleep(each)
        time.sleep(0.1)


def accepting() -> bytes:
    """An A-ASSOCIATE-AC PDU that accepts context 1 in Explicit VR Little Endian (PS3.8 9.3.3)."""
    syntax = str(ExplicitVRLittleEndian).encode()
    context = struct.pack(">BxHBxBx", 0x21, 8 + len(syntax), 1, 0) + struct.pack(">BxH", 0x40, len(syntax)) + syntax
    application = struct.pack(">BxH", 0x10, 21) + b"1.2.840.10008.3.1.1.1"
    user = struct.pack(">BxH", 0x50, 8) + struct.pack(">BxHL", 0x51, 4, 16384)
    body = struct.pack(">Hxx16s16s32x", 1, b"PACS".ljust(16), b"DICOMNODE".ljust(16)) + application + context + user
    return struct.pack(">BxL", 0x02, len(body)) + body


def response(status: int, message_id: int = 1, comment: bytes = b"") -> bytes:
    """A C-STORE response (PS3.7 9.3.1.2) in one P-DATA-TF PDU."""
    elements = struct.pack("<HHLH", 0, 0x0100, 2, 0x8001) + struct.pack("<HHLH", 0, 0x0120, 2, message_id)
    elements += struct.pack("<HHLH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHLH", 0, 0x0900, 2, status)
    elements += struct.pack("<HHL", 0, 0x0902, len(comment)) + comment if comment else b""
    command = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
    return struct.pack(">BxLLBB", 0x04, len(command) + 6, len(command) + 2, 1, 0x03) + command


def one(destination: Destination, files, reply: float = 5.0) -> Status:
    (status,) = sender.send(files[:1], destination, "DICOMNODE", reply)
    assert isinstance(status, Status)
    return status


def test_an_answer_in_small_pieces_is_read_whole_with_the_words_of_the_peer(files):
    answer = response(0xA900, comment=b"no such patient ")
    with peer(answer[:3], 0.05, answer[3:20], 0.05, answer[20:]) as destination:
        status = one(destination, files)
    assert (status, status.comment) == (0xA900, "no such patient")


@pytest.mark.parametrize(
    ("answers", "timed_out"),
    [
        ((), False),
        ((response(0x0000)[:9],), False),
        ((response(0x0000, message_id=7),), False),
        ((struct.pack(">BxL4x", 0x07, 4),), False),
        ((struct.pack(">BxL", 0x04, 2**31),), False),
        ((1.5,), True),
    ],
)
def test_an_association_that_breaks_or_hangs_is_a_stall_and_never_an_answer(files, answers, timed_out):
    with peer(*answers) as destination, pytest.raises(Stalled) as stall:
        one(destination, files, reply=1.0)
    assert stall.value.timed_out is timed_out
    assert "pacs (PACS at 127.0.0.1 port" in str(stall.value)


def test_a_port_that_swallows_everything_is_away_within_the_time_limit(files, monkeypatch):
    monkeypatch.setattr(association, "NEGOTIATE", 0.5)
    with swallowing() as port, pytest.raises(Unreachable, match="does not answer as DICOM does"):
        one(Destination("pacs", "PACS", "127.0.0.1", port), files)


@pytest.mark.slow
def test_ten_thousand_sends_under_contention_never_stall(files):
    """No answer takes longer than five seconds while other threads want the processor too."""
    longest, done = 0.0, threading.Event()
    spinners = [threading.Thread(target=_spin, args=(done,), daemon=True) for _ in range(4)]
    with Pacs().running() as pacs:
        for thread in spinners:
            thread.start()
        began = time.monotonic()
        for status in sender.send(files[:1] * 10_000, pacs.destination(), "DICOMNODE"):
            assert status == 0x0000
            pacs.received.clear()
            pacs.encoded.clear()
            longest, began = max(longest, time.monotonic() - began), time.monotonic()
        done.set()
    assert pacs.requests == 10_000
    assert longest < 5.0


def _spin(done: threading.Event) -> None:
    while not done.is_set():
        sum(range(1000))


def test_a_class_the_peer_does_not_take_is_said_and_the_others_are_stored(files):
    with Pacs(classes=(SecondaryCaptureImageStorage,)).running() as pacs:
        answers = send(files, pacs)
    assert answers[:3] == [0x0000] * 3
    assert isinstance(answers[3], ClassRefused)
    assert str(answers[3]).startswith("pacs does not accept Parametric Map Storage; enable it there")


def test_a_peer_that_knows_only_implicit_gets_implicit(files):
    with Pacs(syntaxes=(ImplicitVRLittleEndian,)).running() as pacs:
        assert send(files, pacs) == [0x0000] * 4
    assert {ds.file_meta.TransferSyntaxUID for ds in pacs.received} == {ImplicitVRLittleEndian}
    assert pacs.received[0].PixelData == dcmread(files[0].path).PixelData
    assert dcmread(files[0].path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_nobody_there_says_what_to_look_at(files):
    with pytest.raises(Unreachable) as away:
        send(files, Pacs())
    assert "is it running" in str(away.value)
    assert "127.0.0.1" in str(away.value)


@pytest.mark.parametrize(
    ("pacs", "other", "words"),
    [
        (Pacs(known=("SOMEONE",)), {}, "does not know our AE title DICOMNODE; register it there"),
        (Pacs(), {"ae_title": "WRONG"}, "says that its AE title is not WRONG"),
    ],
)
def test_a_rejection_names_its_remedy(files, pacs: Pacs, other, words):
    with pacs.running(), pytest.raises(NotAdmitted) as away:
        send(files, pacs, **other)
    assert words in str(away.value)


def test_a_peer_that_takes_none_of_our_classes_refuses_each_file_by_its_class(files):
    with Pacs(classes=("1.2.840.10008.5.1.4.1.1.4",)).running() as pacs:
        answers = send(files, pacs)
    assert [isinstance(answer, ClassRefused) for answer in answers] == [True] * 4
    assert pacs.requests == 0


def test_what_was_answered_before_the_peer_hung_up_stands(files):
    def hang_up(n: int) -> int:
        if n == 2:
            raise HangUp
        return 0x0000

    answers = []
    with Pacs(answer=hang_up).running() as pacs, pytest.raises(Unreachable):
        for status in sender.send(files, pacs.destination(), "DICOMNODE"):
            answers.append(status)
    assert answers == [0x0000, 0x0000]


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0xB000, 0x0110, 0x0124])
def test_every_status_is_handed_on_as_it_is(files, status):
    with Pacs(answer=lambda n: status).running() as pacs:
        assert send(files[:1], pacs) == [status]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_sends_on_a_busy_machine_and_none_stalls(tmp_path: Path):
    """Twice as many busy loops as cores; each file is answered within 5 s of the one before."""
    made = [File(path, SecondaryCaptureImageStorage) for path in _captures(tmp_path, 100)]
    port, busy = free_port(), [sys.executable, "-c", "while True: pass"]
    receiving = [program("storescp"), "-q", "-aet", "PACS", "--ignore", str(port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    commands = [receiving, *[busy] * (2 * (os.cpu_count() or 1))]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    longest, sent = 0.0, 0
    try:
        wait_for(lambda: _listens(port), "storescp")
        destination = Destination("pacs", "PACS", "127.0.0.1", port)
        for _ in range(100):
            before = time.monotonic()
            for status in sender.send(made, destination, "DICOMNODE"):
                now = time.monotonic()
                longest, before, sent = max(longest, now - before), now, sent + (status == 0x0000)
    finally:
        for process in running:
            process.kill()
            process.wait()
    print(f"{sent} files, the longest wait for an answer {longest:.2f} s")
    assert sent == 10_000
    assert longest < 5.0


def _captures(folder: Path, count: int) -> list[Path]:
    ds, paths = phantom.head(phantom.even(12), matrix=64)[0], []
    for n in range(count):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.4{n:03d}"
        paths.append(folder / f"{n:03d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
