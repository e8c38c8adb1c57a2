"""An association for C-STORE alone: one blocking socket, no threads, the file's bytes straight into P-DATA.

pynetdicom's own sender is bound by two polling threads and re-reads each data set (measured: a third of the speed of
dcmsend, and an answer lost now and then). Its PDU classes do the negotiation; sending and answers are done here
(PS3.8 9.3, PS3.7 9.3.1).
"""

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, build_context
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from dicomnode.config import Destination
from dicomnode.crashpoints import crashpoint
from dicomnode.sender import part10
from dicomnode.sender.part10 import Meta
from dicomnode.sender.peers import (
    CONNECT,
    MAXIMUM_PDU,
    NEGOTIATE,
    NO_ANSWER,
    ClassRefused,
    Stalled,
    away,
    refused,
    rejection,
    words,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 Annex A
ACCEPT, REJECT, DATA, RELEASE = 0x02, 0x03, 0x04, 0x05  # PDU types, PS3.8 9.3.1
RELEASE_REQUEST = struct.pack(">BxL4x", RELEASE, 4)
ABORT_REQUEST = struct.pack(">BxL4x", 0x07, 4)
PDU_HEADER, PDV_HEADER = struct.Struct(">BxL"), struct.Struct(">LBB")
COMMAND, LAST = 0x01, 0x02  # message control header, PS3.8 Annex E.2
STORE_REQUEST, MEDIUM, WITH_DATA_SET = 0x0001, 0x0000, 0x0001  # PS3.7 9.3.1.1
MESSAGE_ID, STATUS, COMMENT = 0x0120, 0x0900, 0x0902  # elements of group 0000, PS3.7 Annex E
BLOCK = 1 << 20  # bytes read from the file at a time
LARGEST_ANSWER = 1 << 20  # bytes of one PDU that we are ready to receive


class Status(int):
    """The status of a C-STORE response, with the peer's own words where it gave any."""

    comment: str = ""


class StoreAssociation:
    """Open while the `with` block runs; released at its end, aborted where it ends with an exception."""

    def __init__(self, destination: Destination, us: str, kinds: Sequence[tuple[str, str]], reply: float) -> None:
        """Negotiate one context for each (SOP class, transfer syntax); raises Unreachable or NotAdmitted.

        reply: seconds to wait for the answer to one C-STORE request.
        """
        self._destination, self._reply, self._message_id = destination, reply, 0
        try:
            self._socket = socket.create_connection((destination.host, destination.port), CONNECT)
        except TimeoutError as error:
            raise away(destination, NO_ANSWER) from error
        except OSError as error:
            known = isinstance(error, ConnectionRefusedError)
            raise away(destination, NO_ANSWER if known else f"{error}; {NO_ANSWER}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._negotiate(us, kinds)
        except (OSError, EOFError, ValueError) as error:
            self._socket.close()
            raise away(destination, f"it takes the connection but does not answer as DICOM does ({error})") from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, EOFError), self._socket:
            self._socket.settimeout(CONNECT)
            self._socket.sendall(ABORT_REQUEST if error else RELEASE_REQUEST)
            if not error:
                self._read_pdu()  # the release response; whatever it is, all was answered before

    def store(self, path: Path) -> Status | ClassRefused:
        """Send one finished file; raises Stalled where the association breaks or no answer comes."""
        meta = part10.meta(path)
        with path.open("rb") as file:
            file.seek(meta.offset)
            if context := self._accepted.get((meta.sop_class, meta.transfer_syntax)):
                return self._exchange(meta, context, file)
            if context := self._accepted.get((meta.sop_class, ImplicitVRLittleEndian)):
                return self._exchange(meta, context, _implicit(path))
        return refused(self._destination, meta.sop_class)

    def _negotiate(self, us: str, kinds: Sequence[tuple[str, str]]) -> None:
        self._socket.settimeout(NEGOTIATE)
        self._socket.sendall(_request(us, self._destination.ae_title, kinds))
        kind, body = self._read_pdu()
        if kind == REJECT:
            raise rejection(self._destination, us, *body[1:4])
        if kind != ACCEPT:
            raise away(self._destination, "it ended the association before it began")
        pdu = A_ASSOCIATE_AC()
        pdu.decode(PDU_HEADER.pack(kind, len(body)) + body)
        answer = pdu.to_primitive()
        accepted = [cx.context_id for cx in answer.presentation_context_definition_results_list if cx.result == 0]
        # Each context holds one syntax, so that its number tells both.
        self._accepted = {kinds[number // 2]: number for number in accepted}
        longest = int(answer.maximum_length_received or MAXIMUM_PDU)
        self._fragment = max(2, (min(longest, MAXIMUM_PDU) - PDV_HEADER.size) & ~1)  # dcmtk takes even lengths only

    def _exchange(self, meta: Meta, context: int, data_set: BinaryIO) -> Status:
        self._message_id = self._message_id % 0xFFFF + 1
        self._socket.settimeout(self._reply)
        try:
            command = _store_request(meta, self._message_id)
            self._socket.sendall(b"".join(_pdus(command, context, COMMAND, self._fragment, ends=True)))
            crashpoint("send.begun")
            for block, ends in _blocks(data_set, self._fragment):
                self._socket.sendall(b"".join(_pdus(block, context, 0, self._fragment, ends=ends)))
            crashpoint("send.sent")
            return self._answer()
        except TimeoutError as error:
            late = f"{words(self._destination)} did not answer a C-STORE request within {self._reply:.0f} s"
            raise Stalled(late, timed_out=True) from error
        except (OSError, EOFError, ValueError) as error:
            broke = f"{words(self._destination)} ended the association while a file was sent ({error})"
            raise Stalled(broke, timed_out=False) from error

    def _answer(self) -> Status:
        response = bytearray()
        while True:
            kind, body = self._read_pdu()
            if kind != DATA:
                raise ValueError(f"PDU type {kind} in place of an answer")
            at = 0
            while at + PDV_HEADER.size <= len(body):
                length, _, control = PDV_HEADER.unpack_from(body, at)
                response += body[at + PDV_HEADER.size : at + 4 + length]
                at += 4 + length
                if control & COMMAND and control & LAST:
                    return self._status(_command(bytes(response)))

    def _status(self, elements: dict[int, bytes]) -> Status:
        if elements.get(MESSAGE_ID) != struct.pack("<H", self._message_id) or len(elements.get(STATUS, b"")) != 2:
            raise ValueError("an answer to another request")
        status = Status(int.from_bytes(elements[STATUS], "little"))
        status.comment = elements.get(COMMENT, b"").decode("ascii", "replace").strip("\0 ")
        return status

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, length = PDU_HEADER.unpack(self._read(PDU_HEADER.size))
        if length > LARGEST_ANSWER:
            raise ValueError(f"a PDU of {length} bytes")
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            # Acknowledge at once: a peer that answers in two small writes would wait 40 ms for us between them.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            piece = self._socket.recv(count - len(found))
            if not piece:
                raise EOFError("the connection was closed")
            found += piece
        return bytes(found)


def _request(us: str, them: str, kinds: Sequence[tuple[str, str]]) -> bytes:
    """The A-ASSOCIATE-RQ PDU (PS3.8 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = us, them
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAXIMUM_PDU
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _store_request(meta: Meta, message_id: int) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), Implicit VR Little Endian."""
    elements = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, _uid(meta.sop_class)),
            (0x0100, struct.pack("<H", STORE_REQUEST)),
            (0x0110, struct.pack("<H", message_id)),
            (0x0700, struct.pack("<H", MEDIUM)),
            (0x0800, struct.pack("<H", WITH_DATA_SET)),
            (0x1000, _uid(meta.sop_instance_uid)),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _uid(value: str) -> bytes:
    return value.encode("ascii") + b"\0" * (len(value) % 2)


def _command(group: bytes) -> dict[int, bytes]:
    """Element number -> value of a command set."""
    found, at = dict[int, bytes](), 0
    while at + 8 <= len(group):
        element, length = struct.unpack_from("<2xHL", group, at)
        found[element] = group[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _blocks(data_set: BinaryIO, fragment: int) -> Iterator[tuple[bytes, bool]]:
    """The data set in blocks of whole fragments, each with whether it is the last."""
    size = max(1, BLOCK // fragment) * fragment
    block = data_set.read(size)
    while block:
        following = data_set.read(size)
        yield block, not following
        block = following


def _pdus(message: bytes, context: int, control: int, fragment: int, *, ends: bool) -> Iterator[bytes | memoryview]:
    """A part of a message as P-DATA-TF PDUs (PS3.8 9.3.5), as pieces to be joined."""
    view = memoryview(message)
    for start in range(0, len(message), fragment):
        piece = view[start : start + fragment]
        last = LAST if ends and start + fragment >= len(message) else 0
        yield PDU_HEADER.pack(DATA, len(piece) + PDV_HEADER.size)
        yield PDV_HEADER.pack(len(piece) + 2, context, control | last)
        yield piece


def _implicit(path: Path) -> BinaryIO:
    """The data set re-encoded for a peer that knows nothing but the default transfer syntax (PS3.5 10.1)."""
    ds = dcmread(path)
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        raise ValueError(f"{path.name} is compressed, and the destination takes only Implicit VR Little Endian")
    encoded = encode(ds, is_implicit_vr=True, is_little_endian=True)
    if encoded is None:
        raise ValueError(f"{path.name} cannot be encoded as Implicit VR Little Endian")
    return BytesIO(encoded)
