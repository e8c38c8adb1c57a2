"""A finished file as one destination wants it encoded: compressed, in another character set, under another modality.

The finished file stays as it is. What is made of it lies beside it, so that a second sending has the same bytes; equal
wishes of two destinations share it. Nothing but the encoding and the modality of captures ever differs.
"""

import logging
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, JPEGLSLossless, RLELossless, SecondaryCaptureImageStorage

from dicomnode.bookkeeping import Due
from dicomnode.config import Destination
from dicomnode.sender import File
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

COMPRESSED = {"rle": RLELossless, "jpeg-ls": JPEGLSLossless}  # lossless both; PS3.5 A.4.2 and A.4.3
COMPRESSIBLE = frozenset({CTImageStorage, SecondaryCaptureImageStorage})  # floats and bits are not
TAG, UNICODE = "SpecificCharacterSet", "ISO_IR 192"
BYTES = frozenset({"OB", "OW", "OF", "OD"})  # VRs of pixels and profiles
# What pydicom and its codecs raise over a file, or a name that a character set has no letters for.
CANNOT = (AttributeError, LookupError, NotImplementedError, OSError, RuntimeError, UserWarning, ValueError)


@dataclass(frozen=True, slots=True)
class Wish:
    """How a destination wants its files; all of it empty where it takes them as they are.

    transfer_syntax: a key of COMPRESSED; character_set: values of Specific Character Set; modality: of captures.
    """

    transfer_syntax: str = ""
    character_set: tuple[str, ...] = ()
    modality: str = ""

    @property
    def name(self) -> str:
        """By which files made for this wish are known: ours, whatever stands in the settings."""
        return sha256(repr(self).encode()).hexdigest()[:8]


def wish(destination: Destination, source: Path | None) -> Wish:
    """What a destination wishes; source: a received instance of the study, whose character set may be wanted."""
    syntax = destination.transfer_syntax if destination.transfer_syntax in COMPRESSED else ""
    modality = destination.capture_modality if destination.capture_modality != "OT" else ""
    return Wish(syntax, _character_set(source) if destination.character_set == "source" else (), modality)


def _character_set(source: Path | None) -> tuple[str, ...]:
    try:
        stated = dcmread(source, specific_tags=[TAG]).get(TAG) if source else None
    except CANNOT:
        return ()
    return (stated,) if isinstance(stated, str) else tuple(stated or ())


def file_for(due: Due, wanted: Wish, spool: Spool) -> File:
    """The file to send for one result: as wished, or the finished one where that cannot be had."""
    path = spool.path(due.path)
    if wanted == Wish():
        return File(path, due.sop_class)
    made = path.with_name(f"{path.stem}.{wanted.name}.dcm")
    try:
        if not made.exists():
            content = _encoded(path, wanted)
            with spool.result(path.parent.name, made.name) as (_, file):
                file.write(content)
        return File(made, due.sop_class, path)
    except CANNOT:
        log.warning("%s cannot be encoded as its destination wishes; it goes as it is", path.name, exc_info=True)
        return File(path, due.sop_class)


def _encoded(path: Path, wanted: Wish) -> bytes:
    ds = dcmread(path)
    if wanted.modality and ds.SOPClassUID == SecondaryCaptureImageStorage:
        ds.Modality = wanted.modality
    if wanted.character_set and ds.get("SpecificCharacterSet") == UNICODE:
        _say_in(ds, wanted.character_set)
    if wanted.transfer_syntax and ds.SOPClassUID in COMPRESSIBLE:
        ds.compress(COMPRESSED[wanted.transfer_syntax], generate_instance_uid=False)
    content = BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _say_in(ds: Dataset, character_set: tuple[str, ...]) -> None:
    """Put the texts into another character set, unless it lacks a letter of one of them; then they stay as they are."""
    ds.decode()
    texts, trial = Dataset(), BytesIO()
    texts.update({element.tag: element for element in ds if element.VR not in BYTES})
    texts.SpecificCharacterSet = list(character_set)
    texts.save_as(trial, implicit_vr=False, little_endian=True)
    if _values(dcmread(BytesIO(trial.getvalue()), force=True)) == _values(texts):
        ds.SpecificCharacterSet = list(character_set)


def _values(ds: Dataset) -> dict[str, object]:
    return ds.to_json_dict()
