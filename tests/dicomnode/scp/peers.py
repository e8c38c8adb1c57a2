"""Senders: pynetdicom's, DCMTK's, and one that puts its bytes on the wire as a test wants them."""

import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicomnode.scp import Listener
from tests.tools import program


def associate(listener: Listener, *contexts, calling: str = "CT1", called: str = "DICOMNODE", **others) -> Association:
    ae = AE(calling)
    for context in contexts or ((CTImageStorage, ExplicitVRLittleEndian),):
        ae.add_requested_context(*context)
    return ae.associate("127.0.0.1", listener.settings.listen.port, ae_title=called, **others)


def eventually(condition: Callable[[], object]) -> bool:
    """Wait up to ten seconds for what another thread does."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def dcmtk(listener: Listener, tool: str, *options: str, files: Iterable[Path]) -> subprocess.CompletedProcess[str]:
    """storescu or dcmsend."""
    command = [program(tool), "-v", "-aet", "CT1", "-aec", "DICOMNODE", *options, "127.0.0.1"]
    command += [str(listener.settings.listen.port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "TCP_NODELAY": "1"})


def data_set(ds: Dataset) -> bytes:
    """The data set as Explicit VR Little Endian, without file meta information."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, ds)
    return stream.getvalue()


# By hand, from PS3.7 and PS3.8, sharing nothing with the code under test.


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(content)) + content


def pdv(context_id: int, control: int, content: bytes) -> bytes:
    return struct.pack(">IBB", len(content) + 2, context_id, control) + content


def associate_request(contexts: Sequence[str] = (CTImageStorage,), calling: str = "CT1") -> bytes:
    """A-ASSOCIATE-RQ with contexts 1, 3, 5..., each Explicit VR Little Endian."""
    items = [item(0x10, b"1.2.840.10008.3.1.1.1")]
    for n, abstract in enumerate(contexts):
        syntaxes = item(0x30, abstract.encode()) + item(0x40, ExplicitVRLittleEndian.encode())
        items.append(item(0x20, bytes([2 * n + 1, 0, 0, 0]) + syntaxes))
    items.append(item(0x50, item(0x51, struct.pack(">I", 0)) + item(0x52, b"1.2.3")))
    titles = b"DICOMNODE".ljust(16) + calling.encode().ljust(16)
    return pdu(0x01, struct.pack(">Hxx", 1) + titles + bytes(32) + b"".join(items))


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def store_command(sop_instance_uid: str, message_id: int = 1, sop_class: str = CTImageStorage, **replaced) -> bytes:
    """The command set of a C-STORE request; replaced: field=, data_set=, uid= with other bytes, None leaves it out."""
    values = {
        "sop_class": (0x0002, sop_class.encode() + b"\0" * (len(sop_class) % 2)),
        "field": (0x0100, b"\x01\x00"),
        "message_id": (0x0110, struct.pack("<H", message_id)),
        "priority": (0x0700, b"\0\0"),
        "data_set": (0x0800, b"\x01\x00"),
        "uid": (0x1000, sop_instance_uid.encode() + b"\0" * (len(sop_instance_uid) % 2)),
    }
    for name, value in replaced.items():
        values[name] = (values[name][0], value)
    body = b"".join(element(number, value) for number, value in values.values() if value is not None)
    return element(0, struct.pack("<I", len(body))) + body


class Wire:
    """A connection on which PDUs are read and written as they are."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(20)

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def receive(self) -> tuple[int, bytes]:
        """Type and variable field of the next PDU; (0, b"") where the connection has ended."""
        try:
            head = self._exactly(6)
            kind, length = struct.unpack(">BxI", head)
            return kind, self._exactly(length)
        except (EOFError, ConnectionError, ssl.SSLError):
            return 0, b""

    def status(self) -> int:
        """The status of the C-STORE response that comes next."""
        kind, content = self.receive()
        assert kind == 0x04, f"PDU type {kind:02X}H instead of a response"
        length, _, control = struct.unpack_from(">IBB", content)
        assert (length + 4, control) == (len(content), 3)
        return int(self.elements(content[6:])[0x0900])

    @staticmethod
    def elements(command: bytes) -> dict[int, int | bytes]:
        found, stream = {}, BytesIO(command)
        while head := stream.read(8):
            _, number, length = struct.unpack("<HHI", head)
            value = stream.read(length)
            found[number] = int.from_bytes(value, "little") if length == 2 else value
        return found

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            piece = self.socket.recv(count - len(content))
            if not piece:
                raise EOFError
            content += piece
        return content


@contextmanager
def wire(
    listener: Listener, contexts: Sequence[str] = (CTImageStorage,), tls: ssl.SSLContext | None = None
) -> Iterator[Wire]:
    """An association that has been accepted, as bytes."""
    with socket.create_connection(("127.0.0.1", listener.settings.listen.port)) as plain:
        connection = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        with connection:
            opened = Wire(connection)
            opened.send(associate_request(contexts))
            kind, _ = opened.receive()
            assert kind == 0x02, f"the association was not accepted: PDU type {kind:02X}H"
            yield opened
