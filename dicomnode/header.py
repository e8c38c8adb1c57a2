"""The few elements of a received instance that the node reads before it decides anything."""

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.config import IGNORE, settings
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, CTImageStorage, DeflatedExplicitVRLittleEndian, EnhancedCTImageStorage, MRImageStorage

from inference.refusal import Refused

# Values are taken as they are; a warning about one would put it, perhaps a patient's name, into a log.
settings.reading_validation_mode = IGNORE

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
BOOKED = (*IDENTITY, "PatientID", "AccessionNumber", "Modality", "SeriesDescription")
JUDGED = (
    *BOOKED,
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
    "BodyPartExamined",
    "PatientAge",
    "NumberOfTemporalPositions",
    "NumberOfFrames",
)
CARRY_PIXELS = frozenset({CTImageStorage, EnhancedCTImageStorage, MRImageStorage})
UID_LIKE = re.compile(r"[0-9.]{1,64}")  # leading zeros break PS3.5 9.1 and harm nobody; scanners write them
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
    NotImplementedError,
    OSError,
    OverflowError,
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

    elements: Mapping[str, str]
    transfer_syntax: str
    sha256: str


def read(part10: bytes) -> Header:
    """Read the elements the books want from a DICOM file; raises Refused where that cannot be done."""
    stream = BytesIO(part10)
    try:
        ds = dcmread(stream, stop_before_pixels=True, specific_tags=list(BOOKED))
        syntax = UID(ds.file_meta.TransferSyntaxUID)
        elements = {keyword: _text(ds, keyword) for keyword in BOOKED}
        start = META + int(ds.file_meta.get("FileMetaInformationGroupLength") or 0)
    except UNREADABLE as error:
        raise Refused("not-dicom", f"the bytes cannot be read as a DICOM data set ({error})") from error
    for keyword in IDENTITY:
        if not UID_LIKE.fullmatch(elements[keyword]):
            words = f"is {elements[keyword]!r}" if elements[keyword] else "is missing"
            raise Refused("not-dicom", f"{keyword} {words}; the instance cannot be filed without a UID there")
    if elements["SOPClassUID"] in CARRY_PIXELS and syntax != DeflatedExplicitVRLittleEndian:
        _refuse_truncated(stream, part10)
    return Header(elements, str(syntax), sha256(part10[start:]).hexdigest())


def _text(ds: Dataset, keyword: str) -> str:
    """A value as text; a broken declaration of the character set must not cost the instance."""
    try:
        return str(ds.get(keyword) or "")
    except UNREADABLE:
        return ""


def _refuse_truncated(stream: BinaryIO, part10: bytes) -> None:
    """The reader stopped at Pixel Data: does the file hold as many bytes as that element promises?"""
    start = stream.tell()
    element = part10[start : start + 12]
    if element[:4] not in (PIXEL_DATA, b"\x7f\xe0\x00\x10"):
        raise Refused("truncated", "the data set ends before its pixel data; send the instance again")
    order: Literal["little", "big"] = "little" if element[:4] == PIXEL_DATA else "big"
    explicit = element[4:6] in (b"OW", b"OB")
    length = int.from_bytes(element[8:12] if explicit else element[4:8], order)
    if length == 0xFFFFFFFF:
        if part10.rfind(SEQUENCE_DELIMITER) < start:
            raise Refused("truncated", "the compressed pixel data has no end; send the instance again")
        return
    held = len(part10) - start - (12 if explicit else 8)
    if held < length:
        raise Refused("truncated", f"the pixel data holds {held} of {length} bytes; send the instance again")


@lru_cache(maxsize=4096)
def of_file(path: Path) -> Dataset:
    """The elements a series is judged by. Files in the spool never change, so each is read once."""
    return dcmread(path, stop_before_pixels=True, specific_tags=list(JUDGED))


def numbers(ds: Dataset, keyword: str, count: int) -> Sequence[float] | None:
    """A numeric element with exactly `count` values, or None where it is absent, empty or not a number."""
    try:
        values = [float(v) for v in (ds.get(keyword) or ())]
    except (TypeError, ValueError):
        return None
    return values if len(values) == count else None
