"""The few elements of a received instance that the node reads before it decides anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, EnhancedCTImageStorage, MRImageStorage

from inference.refusal import Refused

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
PIXEL_DATA = b"\xe0\x7f\x10\x00"
SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"  # PS3.5 A.4: the last item of encapsulated pixel data


@dataclass(frozen=True, slots=True)
class Header:
    """A received instance as far as it has been read. ds holds the elements named in JUDGED, no pixels."""

    ds: Dataset
    transfer_syntax: str
    sha256: str


def read(part10: bytes) -> Header:
    """Read the elements the books want from a DICOM file; raises Refused where that cannot be done."""
    stream = BytesIO(part10)
    try:
        ds = dcmread(stream, stop_before_pixels=True, specific_tags=list(BOOKED))
    except (InvalidDicomError, EOFError, ValueError, OSError, NotImplementedError, KeyError) as error:
        raise Refused("not-dicom", f"the bytes cannot be read as a DICOM data set ({error})") from error
    missing = [keyword for keyword in IDENTITY if not ds.get(keyword)]
    if missing:
        raise Refused("not-dicom", f"the data set has no {', '.join(missing)}; the instance cannot be filed without it")
    syntax = ds.file_meta.TransferSyntaxUID
    if ds.SOPClassUID in CARRY_PIXELS and syntax != DeflatedExplicitVRLittleEndian:
        _refuse_truncated(stream, part10)
    return Header(ds, str(syntax), sha256(part10).hexdigest())


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


@lru_cache(maxsize=8192)
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
