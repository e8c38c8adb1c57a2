"""The few elements of a received instance that the node reads before it decides anything."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.config import IGNORE, settings
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import UID, CTImageStorage, DeflatedExplicitVRLittleEndian, MRImageStorage

from dicomnode import charsets, header_walk, inflate
from inference.frames import ENHANCED
from inference.refusal import Refused

# Values are taken as they are; a warning about one would put it, perhaps a patient's name, into a log.
settings.reading_validation_mode = IGNORE

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
BOOKED = (*IDENTITY, "PatientID", "AccessionNumber", "Modality", "SeriesDescription")
JUDGED = (
    *BOOKED,
    "PatientName",
    "StudyDate",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "PixelSpacing",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
    "SyntheticData",
    "ContributingEquipmentSequence",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "BodyPartExamined",
    "PatientAge",
    "PatientBirthDate",
    "StudyDate",
    "SeriesDate",
    "SeriesTime",
    "SeriesNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "InstanceNumber",
    "ConvolutionKernel",
    "LossyImageCompression",
    "NumberOfTemporalPositions",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
WANTED = {int(tag_for_keyword(keyword) or 0): keyword for keyword in BOOKED}
TRANSFER_SYNTAX = 0x00020010
UNUSUAL = frozenset("\\\0\x1b\r\n\t\f")  # several values, another character set, control characters
CARRY_PIXELS = frozenset({CTImageStorage, *ENHANCED, MRImageStorage})
UID_LIKE = re.compile(r"[0-9.]{1,64}")  # leading zeros break PS3.5 9.1 and harm nobody; scanners write them
Elements = Mapping[str, str]  # by keyword; empty where absent or illegible
BLOCK = 65536  # bytes read at once where the end of a file is looked for
PREAMBLE = 128  # bytes before the prefix DICM
META = 144  # bytes: preamble, prefix and the group length element, after which that length counts (PS3.10 7.1)
PIXEL_DATA = b"\xe0\x7f\x10\x00"
SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"  # PS3.5 A.4: the last item of encapsulated pixel data


# What pydicom raises over bytes that are not what they claim to be.
UNREADABLE = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,  # a length of gigabytes
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,  # sequences within sequences without end
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """A received instance as far as it has been read: elements by keyword, empty where absent or illegible.

    sha256: of the data set; the file meta information around it is the receiver's own.
    """

    elements: Elements
    transfer_syntax: str
    sha256: str


def read(part10: bytes) -> Header:
    """Read the elements the books want from a DICOM file; raises Refused where that cannot be done."""
    elements, syntax = of_stream(BytesIO(part10), len(part10))
    return Header(elements, syntax, sha256(part10[data_set_start(part10) :]).hexdigest())


def of_path(path: Path) -> Header:
    """Read what the books want of a DICOM file on disk; raises Refused."""
    with path.open("rb") as file:
        elements, syntax = of_stream(file, path.stat().st_size)
        file.seek(0)
        file.seek(data_set_start(file.read(META)))
        digest = sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return Header(elements, syntax, digest.hexdigest())


def data_set_start(part10: bytes) -> int:
    """Where the data set begins in a DICOM file of which these are the first bytes; 0 where it is no DICOM file."""
    if part10[PREAMBLE : PREAMBLE + 4] != b"DICM":
        return 0
    tag, vr, length = struct.unpack("<4s2s2xI", part10[PREAMBLE + 4 : META].ljust(12, b"\0"))
    return META + (length if (tag, vr) == (b"\x02\x00\x00\x00", b"UL") else 0)


def of_stream(stream: BinaryIO, size: int) -> tuple[Elements, str]:
    """Elements by keyword and transfer syntax of a DICOM file of `size` bytes; raises Refused.

    No more is read than what stands before the pixels, and the end where only the end tells whether all is there.
    """
    elements, syntax = _walked(stream) or _parsed(stream)
    for keyword in IDENTITY:
        if not UID_LIKE.fullmatch(elements[keyword]):
            words = f"is {elements[keyword]!r}" if elements[keyword] else "is missing"
            raise Refused("not-dicom", f"{keyword} {words}; the instance cannot be filed without a UID there")
    if elements["SOPClassUID"] in CARRY_PIXELS and syntax != DeflatedExplicitVRLittleEndian:
        _refuse_truncated(stream, size)
    return elements, syntax


def _walked(stream: BinaryIO) -> tuple[Elements, str] | None:
    """Elements and transfer syntax of an ordinary file, the stream left where Pixel Data begins; None: parse it."""
    head = stream.read(BLOCK)
    start = data_set_start(head)
    try:
        syntax = header_walk.meta(head, META, start)[TRANSFER_SYNTAX].decode("ascii").rstrip("\0 ")
        values, pixels = header_walk.before_pixels(head, start, syntax, WANTED)
        texts = {WANTED[tag]: value.decode("ascii").rstrip("\0 ") for tag, value in values.items()}
    except (header_walk.Unusual, KeyError, RecursionError, UnicodeDecodeError):
        return None
    if any(set(text) & UNUSUAL for text in texts.values()):
        return None
    stream.seek(pixels)
    return dict.fromkeys(BOOKED, "") | texts, syntax


def _parsed(stream: BinaryIO) -> tuple[Elements, str]:
    """The same by a parser that knows all there is, the stream left where it stopped; raises Refused."""
    stream.seek(0)
    try:
        read_preamble(stream, False)
        meta = _read_file_meta_info(stream)  # as dcmread does, which would unpack before anybody can look
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            inflate.check(stream, stream.tell())
        stream.seek(0)
        ds = dcmread(stream, stop_before_pixels=True, specific_tags=list(BOOKED))
        syntax = UID(ds.file_meta.TransferSyntaxUID)
        return {keyword: text(ds, keyword) for keyword in BOOKED}, str(syntax)
    except UNREADABLE as error:
        raise Refused("not-dicom", f"the bytes cannot be read as a DICOM data set ({error})") from error


def text(ds: Dataset, keyword: str) -> str:
    """A value as text; a broken declaration of the character set must not cost the instance."""
    try:
        return str(ds.get(keyword) or "").replace("\0", "")  # PostgreSQL keeps no NUL
    except UNREADABLE:
        return ""


def _refuse_truncated(stream: BinaryIO, size: int) -> None:
    """The reader stopped at Pixel Data: does the file hold as many bytes as that element promises?"""
    start = stream.tell()
    element = stream.read(12)
    if element[:4] not in (PIXEL_DATA, b"\x7f\xe0\x00\x10"):
        raise Refused("truncated", "the data set ends before its pixel data; send the instance again")
    order: Literal["little", "big"] = "little" if element[:4] == PIXEL_DATA else "big"
    explicit = element[4:6] in (b"OW", b"OB")
    length = int.from_bytes(element[8:12] if explicit else element[4:8], order)
    if length == 0xFFFFFFFF:
        if not _stands_after(stream, start, size, SEQUENCE_DELIMITER):
            raise Refused("truncated", "the compressed pixel data has no end; send the instance again")
        return
    held = size - start - (12 if explicit else 8)
    if held < length:
        raise Refused("truncated", f"the pixel data holds {held} of {length} bytes; send the instance again")


def _stands_after(stream: BinaryIO, start: int, size: int, wanted: bytes) -> bool:
    """True where these bytes stand somewhere after `start`; looked for from the end, where they should be."""
    end = size
    while end > start:
        begin = max(start, end - BLOCK)
        stream.seek(begin)
        if wanted in stream.read(end - begin + len(wanted) - 1):
            return True
        end = begin
    return False


@lru_cache(maxsize=4096)
def of_file(path: Path) -> Dataset:
    """The elements a series is judged by. Files in the spool never change, so each is read once."""
    return parse(path)


def parse(file: Path | BinaryIO) -> Dataset:
    """The elements a series is judged by; raises Refused where the bytes are no DICOM data set."""
    try:
        with silence():
            return charsets.settle(dcmread(file, stop_before_pixels=True, specific_tags=list(JUDGED)))
    except OSError:
        raise
    except UNREADABLE as error:
        raise Refused("not-dicom", f"an image cannot be read as a DICOM data set ({error})") from error


def whole(path: Path, *, pixels: bool = True) -> Dataset:
    """All elements of an instance, its text as far as it can be read."""
    with silence():
        return charsets.settle(dcmread(path, stop_before_pixels=not pixels))


@contextmanager
def silence() -> Iterator[None]:
    """Odd values are expected here and dealt with; what pydicom has to say of them helps nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def numbers(ds: Dataset, keyword: str, count: int) -> Sequence[float] | None:
    """A numeric element with exactly `count` values, or None where it is absent, empty or not a number."""
    try:
        values = [float(v) for v in (ds.get(keyword) or ())]
    except (TypeError, ValueError):
        return None
    return values if len(values) == count else None
