"""Where the data set of a DICOM file begins, and in which transfer syntax: all that sending it needs to know."""

import struct
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError

PREAMBLE = 132  # 128 bytes and "DICM" (PS3.10 7.1)
GROUP_LENGTH = 12  # (0002,0000) UL, the first element
LONG = frozenset({b"OB", b"UN"})  # the VRs of group 0002 whose length has four bytes (PS3.5 7.1.2)
CLASS, INSTANCE, SYNTAX = 0x0002, 0x0003, 0x0010  # elements of group 0002
LARGEST = 1 << 20  # bytes of file meta that we are ready to read; ours has a few hundred


@dataclass(frozen=True, slots=True)
class Meta:
    """The file meta information that matters here; `offset` is where the data set begins."""

    sop_class: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int


def meta(path: Path) -> Meta:
    """Read the file meta information (PS3.10 7.1); raises InvalidDicomError where it is not as it must be."""
    with path.open("rb") as file:
        head = file.read(PREAMBLE + GROUP_LENGTH)
        if head[PREAMBLE - 4 : PREAMBLE + 8] != b"DICM\x02\x00\x00\x00UL\x04\x00":
            raise InvalidDicomError(f"{path.name} does not begin as a DICOM file with a group length does")
        (length,) = struct.unpack("<I", head[-4:])
        elements = _elements(file.read(length)) if length <= LARGEST else {}
    try:
        sop_class, instance, syntax = (_uid(elements[element]) for element in (CLASS, INSTANCE, SYNTAX))
    except KeyError as missing:
        raise InvalidDicomError(f"the file meta of {path.name} lacks (0002,{missing.args[0]:04X})") from missing
    return Meta(sop_class, instance, syntax, len(head) + length)


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii")


def _elements(group: bytes) -> dict[int, bytes]:
    """Element number -> value of group 0002, Explicit VR Little Endian."""
    found, at = dict[int, bytes](), 0
    while at + 8 <= len(group):
        element, vr = struct.unpack_from("<2xH2s", group, at)
        (length,) = struct.unpack_from("<I", group, at + 8) if vr in LONG else struct.unpack_from("<H", group, at + 6)
        at += 12 if vr in LONG else 8
        found[element] = group[at : at + length]
        at += length
    return found
