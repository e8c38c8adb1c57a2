"""Hostile bytes, each from a number: the same number is the same case, so that what breaks can be run again.

Half of what makes a case knows the grammar it breaks: lengths that lie, names that climb out of a folder, items within
items within items, streams that swell when they are unpacked.
"""

import random
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests import phantom
from tests.dicomnode.arrivals import part10
from tests.dicomnode.scp.peers import associate_request, item, pdu, pdv, store_command
from tests.dicomnode.scp.peers import data_set as whole
from tests.dicomnode.scp.peers import element as command_element

LENGTHS = (0, 1, 2, 7, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
NAMES = (
    b"../../../../tmp/escaped",
    b"/etc/passwd",
    b"..\\..\\escaped",
    b"1.2.3\0/../../escaped",
    b"%2e%2e%2fescaped",
    b"",
    b".",
    b"..",
    b"1" * 64,
    b"1." * 40,
    b"1.2.3 ",
    b"\xff\xfe\x00A",
    b"1.2.3\r\n4",
    b"-1.2",
)
DEEPEST = 3000
PIXEL_DATA = 0x7FE00010
SWELL = 64 * 2**20  # bytes that a deflated bomb becomes in the sample; enough to be told from what a slice takes


@cache
def good() -> dict[str, bytes]:
    """One slice as a DICOM file in each of several transfer syntaxes."""
    ds = phantom.head(phantom.even(12), matrix=16)[5]
    files = {}
    for syntax in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGLSLossless,
        RLELossless,
    ):
        copy = deepcopy(ds)
        if syntax in (JPEGLSLossless, RLELossless):
            copy.compress(syntax)
        elif syntax == ExplicitVRBigEndian:
            copy.PixelData = struct.pack(">256h", *struct.unpack("<256h", ds.PixelData))
        copy.file_meta.TransferSyntaxUID = syntax
        files[str(syntax)] = part10(copy)
    return files


def start_of(part10_bytes: bytes) -> int:
    """Where the data set begins."""
    return 144 + int.from_bytes(part10_bytes[140:144], "little")


# Data sets


def data_set(number: int) -> bytes:
    """A DICOM file broken in one to four ways."""
    rng = random.Random(f"data set {number}")
    content = bytearray(rng.choice(list(good().values())))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = bytearray(rng.choice(WAYS)(rng, content))
    return bytes(content)


def _flipped(rng: random.Random, content: bytearray) -> bytearray:
    for _ in range(rng.randint(1, 16)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return content


def _cut(rng: random.Random, content: bytearray) -> bytearray:
    return content[: rng.randrange(len(content) + 1)]


def _spliced(rng: random.Random, content: bytearray) -> bytearray:
    at, other = rng.randrange(len(content) + 1), rng.choice(list(good().values()))
    begin = rng.randrange(len(other))
    return content[:at] + other[begin : begin + rng.randint(1, 500)] + content[at + rng.randint(0, 100) :]


def _lying(rng: random.Random, content: bytearray) -> bytearray:
    """A length, of two or four bytes, that is not the length."""
    places = [at for at in range(start_of(content), len(content) - 8, 2) if content[at : at + 1] in (b"\x08", b"\x20")]
    at = (rng.choice(places) if places and rng.random() < 0.7 else rng.randrange(len(content) + 1)) + rng.choice((4, 6))
    width = rng.choice((2, 4))
    return content[:at] + struct.pack("<I", rng.choice(LENGTHS))[:width] + content[at + width :]


def _misnamed(rng: random.Random, content: bytearray) -> bytearray:
    """A UID, or the identifier of the patient, that would like to be a path."""
    wanted = rng.choice((b"UI", b"LO", b"SH", b"CS"))
    at = content.find(wanted, start_of(content) + rng.randrange(400))
    if at < 0:
        return content
    length = int.from_bytes(content[at + 2 : at + 4], "little")
    name = rng.choice(NAMES)
    name += b"\0" * (len(name) % 2)
    return content[: at + 2] + struct.pack("<H", len(name)) + name + content[at + 4 + length :]


def _nested(rng: random.Random, content: bytearray) -> bytearray:
    """Items within items, at the beginning of the data set, with stated or open lengths."""
    depth = rng.choice((2, 20, 500, DEEPEST))
    open_item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    head = struct.pack("<HH2sHI", 0x0008, 0x0006, b"SQ", 0, 0xFFFFFFFF)
    implicit = struct.pack("<HHI", 0x0008, 0x0006, 0xFFFFFFFF)
    one = (head if rng.random() < 0.7 else implicit) + open_item
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    at = start_of(content)
    closed = depth if rng.random() < 0.5 else rng.randint(0, depth)
    return content[:at] + one * depth + ends * closed + content[at:]


def _swelling(rng: random.Random, content: bytearray) -> bytearray:
    """A deflated stream of zeros, or of a long value, a thousand times as large when it is unpacked."""
    made = bytearray(good()[str(DeflatedExplicitVRLittleEndian)])
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = zlib.decompress(bytes(made[start_of(made) :]), -zlib.MAX_WBITS)[: rng.choice((0, 300, 900))]
    length = rng.choice((SWELL, 0x7FFFFFFE, 0xFFFFFFFF))
    value = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, length)
    swollen = packer.compress(head + value) + packer.compress(bytes(SWELL)) + packer.flush()
    return made[: start_of(made)] + swollen


def _resyntaxed(rng: random.Random, content: bytearray) -> bytearray:
    """The transfer syntax of another."""
    syntaxes = [s.encode() for s in good()]
    for syntax in sorted(syntaxes, key=len, reverse=True):
        at = content.find(syntax, 144, start_of(content))
        if at >= 0:
            other = rng.choice(syntaxes)[: len(syntax)].ljust(len(syntax), b"\0")
            return content[:at] + other + content[at + len(syntax) :]
    return content


WAYS: tuple[Callable[[random.Random, bytearray], bytearray], ...] = (
    *(_flipped, _flipped, _cut, _spliced, _lying, _lying, _misnamed, _misnamed, _nested, _resyntaxed),
)


def bomb(number: int) -> bytes:
    """A deflated data set that swells."""
    return bytes(_swelling(random.Random(f"bomb {number}"), bytearray()))


# PDUs


def stream(number: int) -> bytes:
    """What an established association is sent: messages in pieces, some of them broken."""
    rng = random.Random(f"stream {number}")
    parts = [rng.choice(MESSAGES)(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    content = bytearray(b"".join(parts))
    if rng.random() < 0.6:
        content = _flipped(rng, content) if rng.random() < 0.5 else _short(rng, content)
    return bytes(content)


def request(number: int) -> bytes:
    """An A-ASSOCIATE-RQ, or what stands for one, broken."""
    rng = random.Random(f"request {number}")
    contexts = rng.choice(((CTImageStorage,), (CTImageStorage,) * 128, ("",), ("../" * 30,), ("1" * 300,), ()))
    content = bytearray(associate_request(contexts, rng.choice(("CT1", "", "../../x", "C" * 16))))
    for _ in range(rng.choice((0, 1, 1, 3))):
        content = rng.choice((_flipped, _short, _items))(rng, content)
    return bytes(content)


def _short(rng: random.Random, content: bytearray) -> bytearray:
    at = rng.randrange(len(content) + 1)
    return content[:at] if rng.random() < 0.5 else content[:at] + content[at + rng.randint(1, 8) :]


def _items(rng: random.Random, content: bytearray) -> bytearray:
    at = rng.randrange(len(content) + 1)
    lengths = struct.pack(">BxH", rng.choice((0x10, 0x20, 0x30, 0x40, 0x50, 0x51, 0x58)), rng.choice(LENGTHS) & 0xFFFF)
    return content[:at] + lengths + content[at:]


def _store(rng: random.Random) -> bytes:
    uid = rng.choice((b"1.2.3.4", *NAMES)).decode("latin-1")
    sop_class = rng.choice((str(CTImageStorage), "", "1" * 65, "../../x"))
    changes = {}
    if rng.random() < 0.4:
        changes[rng.choice(("field", "data_set", "uid"))] = rng.choice((None, b"", b"\1", b"\1\1\1", b"\xff\xff"))
    try:
        command = store_command(uid, sop_class=sop_class, **changes)
    except UnicodeEncodeError:
        command = store_command("1.2.3")
    body = data_set(rng.randrange(1 << 30))
    content = body[start_of(body) :][:20000]
    cut = rng.randrange(len(content) + 1)
    ends = rng.choice((2, 0))
    return pdu(4, pdv(1, 3, command)) + pdu(4, pdv(1, 0, content[:cut])) + pdu(4, pdv(1, ends, content[cut:]))


def _lying_pdu(rng: random.Random) -> bytes:
    kind, length = rng.randrange(10), rng.choice((*LENGTHS, 131072, 131073))
    return struct.pack(">BxI", kind, length) + rng.randbytes(rng.randint(0, 200))


def _lying_value(rng: random.Random) -> bytes:
    head = struct.pack(">IBB", rng.choice(LENGTHS), rng.randrange(256), rng.randrange(256))
    return pdu(4, head + rng.randbytes(rng.randint(0, 200)))


def _wild_command(rng: random.Random) -> bytes:
    elements = [
        command_element(rng.choice((0, 2, 0x100, 0x110, 0x800, 0x1000)), rng.randbytes(rng.choice((0, 2, 4, 70))))
    ]
    elements.append(struct.pack("<HHI", rng.choice((0, 8)), 0x0100, rng.choice(LENGTHS)))
    return pdu(4, pdv(rng.choice((0, 1, 3, 255)), rng.choice((1, 3)), b"".join(elements)))


def _other(rng: random.Random) -> bytes:
    """Association control where none belongs."""
    return pdu(rng.randrange(8), rng.choice((b"", bytes(4), rng.randbytes(80), item(0x50, b"x" * 10))))


MESSAGES: tuple[Callable[[random.Random], bytes], ...] = (
    *(_store, _store, _store, _lying_pdu, _lying_value, _wild_command, _other),
)


# Series


def mutated(number: int) -> list[bytes]:
    """A good series of which elements have been deleted, emptied, exchanged or filled with nonsense; DICOM files."""
    rng = random.Random(f"series {number}")
    meta, slices = series()
    spoiled = [dict(elements) for elements in slices]
    for _ in range(rng.randint(1, 3)):
        keyword, value = rng.choice(ELEMENTS), rng.choice((None, b"", *VALUES))
        tag = int(tag_for_keyword(keyword) or 0)
        for elements in spoiled if rng.random() < 0.5 else rng.sample(spoiled, rng.randint(1, 3)):
            if value is None:
                elements.pop(tag, None)
            else:
                elements[tag] = encoded(tag, value + b" " * (len(value) % 2))
    return [meta + b"".join(elements[tag] for tag in sorted(elements)) for elements in spoiled]


@cache
def series() -> tuple[bytes, list[dict[int, bytes]]]:
    """Preamble with file meta information, and of each slice the encoded elements by tag."""
    found = []
    for ds in phantom.head(phantom.even(12), matrix=16):
        elements = {PIXEL_DATA: encoded(PIXEL_DATA, ds.PixelData)}
        for element in ds:
            if element.tag != PIXEL_DATA:
                one = Dataset()
                one.add(element)
                elements[int(element.tag)] = whole(one)
        found.append(elements)
    file = good()[str(ExplicitVRLittleEndian)]
    return file[: start_of(file)], found


def encoded(tag: int, value: bytes) -> bytes:
    """An element as Explicit VR Little Endian, with these bytes for a value, whatever it may hold by right."""
    vr = b"OW" if tag == PIXEL_DATA else dictionary_VR(tag).split(" ")[0].encode()
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    length = struct.pack("<HI", 0, len(value)) if vr == b"OW" else struct.pack("<H", len(value))
    return head + length + value


ELEMENTS = (
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", "RescaleSlope"),
    *("RescaleIntercept", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "SamplesPerPixel", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("Modality", "ImageType", "PatientAge", "BodyPartExamined", "ContrastBolusAgent", "ConvolutionKernel"),
    *("InstanceNumber", "AcquisitionNumber", "FrameOfReferenceUID", "SpecificCharacterSet", "PatientID", "PixelData"),
    *("SeriesDescription", "AcquisitionTime", "PatientPosition", "SyntheticData", "GantryDetectorTilt"),
)
VALUES = (
    *(b"0 ", b"1 ", b"-1", b"65535 ", b"2147483647", b"1e30", b"-1e30 ", b"nan ", b"inf ", b"9" * 40),
    *(b"nonsense", b"1\\2\\3 ", b"../../x ", b"\xc3\x9c" * 70, b"000Y", b"999Y", b"BONE", b"MONOCHROME1 ", b"RGB "),
    *(b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0", b"1e9\\1e9\\1e9 ", b"0\\-1", b"A\\B ", b"\\\\", b"\0\0", b"\0" * 8),
    *(b"\xff\xff", b"\1\0", b"\x10\0", b"\0\x80", b"\x1b$B\x1b", b"\xff" * 8, b" "),
)
