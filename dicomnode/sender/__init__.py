"""Finished files to one destination, byte for byte: by C-STORE, or by STOW-RS where it has a stow_url."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.config import Destination
from dicomnode.sender import part10, web
from dicomnode.sender.association import Status, StoreAssociation
from dicomnode.sender.peers import REPLY, ClassRefused, NotAdmitted, Rejected, Stalled, Unreachable, associate

__all__ = [
    "REPLY",
    "ClassRefused",
    "File",
    "NotAdmitted",
    "Rejected",
    "Stalled",
    "Status",
    "Unreachable",
    "associate",
    "send",
]


@dataclass(frozen=True, slots=True)
class File:
    """A finished DICOM file; plain: the same uncompressed, for a peer that does not take it as it is."""

    path: Path
    sop_class: str
    plain: Path | None = None


def send(
    files: Sequence[File], destination: Destination, calling_ae_title: str, reply: float = REPLY
) -> Iterator[Status | ClassRefused]:
    """Store each file in turn; yields the C-STORE status of each, or ClassRefused where none was asked for.

    reply: seconds to wait for each answer.
    Raises Unreachable before the first answer that did not come; what was yielded before stands.
    """
    if destination.stow_url:
        yield from web.store([file.path for file in files], destination, reply)
        return
    kinds = list(dict.fromkeys(kind for file in files for kind in _kinds(file)))
    with StoreAssociation(destination, calling_ae_title, kinds, reply) as assoc:
        for file in files:
            status = assoc.store(file.path)
            yield assoc.store(file.plain) if isinstance(status, ClassRefused) and file.plain else status


def _kinds(file: File) -> Iterator[tuple[str, str]]:
    """The contexts that a file can be sent over: its own syntax, and the default one that all peers know (PS3.5 10.1).

    Each is proposed by itself: a peer that may choose among several chooses one that the file is not in.
    """
    for path in (file.path, file.plain):
        if path is None:
            continue
        try:
            syntax = UID(part10.meta(path).transfer_syntax)
        except (OSError, InvalidDicomError):
            syntax = ExplicitVRLittleEndian  # its own turn tells what is wrong with it
        yield file.sop_class, str(syntax)
        if not syntax.is_compressed:
            yield file.sop_class, str(ImplicitVRLittleEndian)
