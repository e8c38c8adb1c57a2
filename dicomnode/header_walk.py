"""From element to element by their lengths alone, up to the pixels of an ordinary little endian DICOM file in memory.

A general parser takes most of the receiver's time to build objects that nobody asks for. What is in any way unusual is
left to it.
"""

import struct
from collections.abc import Container

IMPLICIT = "1.2.840.10008.1.2"
NOT_WALKED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})  # deflated, big endian
PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD  # PS3.5 7.5
UNDEFINED = 0xFFFFFFFF
# PS3.5 Table 7.1-1: value representations with a length of 32 bits, and those with one of 16.
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT = frozenset(
    {
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"),
        *(b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    }
)
IMPLICIT_HEAD, EXPLICIT_HEAD = struct.Struct("<HHL"), struct.Struct("<HH2sH")


class Unusual(Exception):
    """Here a real parser is needed."""


def before_pixels(head: bytes, at: int, transfer_syntax: str, wanted: Container[int]) -> tuple[dict[int, bytes], int]:
    """The values of the wanted elements of a data set, and where its Pixel Data element begins; raises Unusual.

    head: the first bytes of the file; at: where the data set begins in it.
    """
    if transfer_syntax in NOT_WALKED:
        raise Unusual("syntax")
    implicit, found, before = transfer_syntax == IMPLICIT, dict[int, bytes](), 0
    while True:
        tag, vr, start, length = _head(head, at, implicit)
        if tag == PIXEL_DATA:
            return found, at
        if tag <= before:
            raise Unusual("order")
        before = tag
        if length == UNDEFINED:
            at = _after_items(head, start, vr, implicit)
            continue
        at = start + length
        if tag in wanted:
            found[tag] = head[start:at]


def meta(head: bytes, at: int, end: int) -> dict[int, bytes]:
    """The values of the file meta information, which lies at these places; raises Unusual."""
    found = dict[int, bytes]()
    while at < end:
        tag, _, start, length = _head(head, at, implicit=False)
        at = start + length
        found[tag] = head[start:at]
    return found


def _head(head: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, value representation, where the value begins, its length."""
    try:
        group, element, vr, length = EXPLICIT_HEAD.unpack_from(head, at)
        if implicit or group == 0xFFFE:
            return group << 16 | element, b"", at + 8, IMPLICIT_HEAD.unpack_from(head, at)[2]
        if vr in SHORT:
            return group << 16 | element, vr, at + 8, length
        if vr not in LONG:
            raise Unusual("value representation")
        return group << 16 | element, vr, at + 12, int.from_bytes(head[at + 8 : at + 12], "little")
    except struct.error as error:
        raise Unusual("more than is here") from error


def _after_items(head: bytes, at: int, vr: bytes, implicit: bool) -> int:
    """Where a sequence of undefined length ends of which the items begin here."""
    if vr not in (b"SQ", b""):
        raise Unusual("undefined length")
    while True:
        tag, _, at, length = _head(head, at, implicit)
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise Unusual("item")
        at = at + length if length != UNDEFINED else _after_item(head, at, implicit)


def _after_item(head: bytes, at: int, implicit: bool) -> int:
    while True:
        tag, vr, start, length = _head(head, at, implicit)
        if tag == ITEM_END:
            return start
        at = start + length if length != UNDEFINED else _after_items(head, start, vr, implicit)
