"""The few bytes of PS3.7, PS3.8 and PS3.10 that the direct data path reads and writes itself."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

PDU_HEAD = struct.Struct(">BxI")  # PS3.8 9.3.1: type, reserved, length of what follows
PDV_HEAD = struct.Struct(">IBB")  # PS3.8 9.3.5.1 and E.2: length, presentation context id, message control header
P_DATA_TF, PDU_TYPES = 0x04, range(0x01, 0x08)
COMMAND, LAST = 0x01, 0x02  # bits of the message control header; the others are never to be looked at

ELEMENT_HEAD = struct.Struct("<HHI")  # PS3.7 6.3.1: a command set is Implicit VR Little Endian
# Elements of group 0000, PS3.7 Table E.1-1.
SOP_CLASS, FIELD, MESSAGE_ID, RESPONDED_TO, DATA_SET_TYPE, STATUS, SOP_INSTANCE = (
    0x0002,
    0x0100,
    0x0110,
    0x0120,
    0x0800,
    0x0900,
    0x1000,
)
C_STORE_RQ, C_STORE_RSP, NO_DATA_SET = 0x0001, 0x8001, 0x0101
UID_LENGTH = 64


class EndedHere(OSError):
    """We end the association while the peer is in the middle of a PDU."""


class Malformed(Exception):
    """The peer broke the protocol; the association is aborted."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One presentation data value. It is a view of the buffer, valid until the next PDU is read."""

    context_id: int
    is_command: bool
    is_last: bool
    content: memoryview


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE response repeats from its request; UIDs as sent, without padding."""

    message_id: int
    sop_class_uid: bytes
    sop_instance_uid: bytes
    has_data_set: bool


def fragments(pdu: memoryview) -> Iterator[Fragment]:
    """The presentation data values of the variable field of one P-DATA-TF PDU; raises Malformed."""
    at = 0
    while at < len(pdu):
        if len(pdu) - at < PDV_HEAD.size:
            raise Malformed("a PDU ends within the head of a presentation data value")
        length, context_id, control = PDV_HEAD.unpack_from(pdu, at)
        end = at + 4 + length
        if length < 2 or end > len(pdu):
            raise Malformed(f"a presentation data value of {length} bytes in a PDU of {len(pdu)}")
        yield Fragment(context_id, bool(control & COMMAND), bool(control & LAST), pdu[at + PDV_HEAD.size : end])
        at = end
    if not at:
        raise Malformed("an empty P-DATA-TF PDU")


def command_elements(encoded: bytes) -> dict[int, bytes]:
    """The elements of a command set by element number; raises Malformed."""
    found, at = {}, 0
    while at < len(encoded):
        if len(encoded) - at < ELEMENT_HEAD.size:
            raise Malformed("a command set ends within an element")
        group, element, length = ELEMENT_HEAD.unpack_from(encoded, at)
        at += ELEMENT_HEAD.size
        if group or length > len(encoded) - at:
            raise Malformed(f"element ({group:04X},{element:04X}) of {length} bytes in a command set")
        found[element] = encoded[at : at + length]
        at += length
    return found


def has_data_set(elements: dict[int, bytes]) -> bool:
    """PS3.7 E.1: any value but 0101H says that a data set follows."""
    return _number(elements, DATA_SET_TYPE) != NO_DATA_SET


def store_request(elements: dict[int, bytes]) -> StoreRequest | None:
    """The C-STORE request in a command set, None where it is another message; raises Malformed."""
    if _number(elements, FIELD) != C_STORE_RQ:
        return None
    return StoreRequest(
        _number(elements, MESSAGE_ID), _uid(elements, SOP_CLASS), _uid(elements, SOP_INSTANCE), has_data_set(elements)
    )


def store_response(request: StoreRequest, status: int, context_id: int) -> bytes:
    """A whole P-DATA-TF PDU with the C-STORE response (PS3.7 9.3.1.2)."""
    body = b"".join(
        (
            _element(SOP_CLASS, _padded(request.sop_class_uid)),
            _element(FIELD, C_STORE_RSP.to_bytes(2, "little")),
            _element(RESPONDED_TO, request.message_id.to_bytes(2, "little")),
            _element(DATA_SET_TYPE, NO_DATA_SET.to_bytes(2, "little")),
            _element(STATUS, status.to_bytes(2, "little")),
            _element(SOP_INSTANCE, _padded(request.sop_instance_uid)),
        )
    )
    command = _element(0x0000, len(body).to_bytes(4, "little")) + body
    head = PDV_HEAD.pack(len(command) + 2, context_id, COMMAND | LAST)
    return PDU_HEAD.pack(P_DATA_TF, len(head) + len(command)) + head + command


def file_meta(sop_class_uid: bytes, sop_instance_uid: bytes, transfer_syntax: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1), Explicit VR Little Endian."""
    group = b"".join(
        (
            struct.pack("<HH2sHI2s", 2, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _meta(0x0002, b"UI", _padded(sop_class_uid)),
            _meta(0x0003, b"UI", _padded(sop_instance_uid)),
            _meta(0x0010, b"UI", _padded(transfer_syntax.encode("ascii"))),
            _meta(0x0012, b"UI", _padded(str(PYNETDICOM_IMPLEMENTATION_UID).encode("ascii"))),
            _meta(0x0013, b"SH", _padded(PYNETDICOM_IMPLEMENTATION_VERSION.encode("ascii"), b" ")),
        )
    )
    return bytes(128) + b"DICM" + _meta(0x0000, b"UL", len(group).to_bytes(4, "little")) + group


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise Malformed(f"element (0000,{element:04X}) of a command set is missing or not a number")
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> bytes:
    value = elements.get(element, b"").rstrip(b"\0 ")
    if not 1 <= len(value) <= UID_LENGTH:
        raise Malformed(f"element (0000,{element:04X}) of a command set is missing or too long for a UID")
    return value


def _padded(value: bytes, padding: bytes = b"\0") -> bytes:
    return value + padding * (len(value) % 2)


def _element(element: int, value: bytes) -> bytes:
    return ELEMENT_HEAD.pack(0, element, len(value)) + value


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
