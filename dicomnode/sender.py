"""The C-STORE SCU: finished files to one destination, byte for byte."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

from dicomnode.config import Destination

log = logging.getLogger(__name__)

_config.STORE_SEND_CHUNKED_DATASET = True  # a path is sent as it lies on disk, neither decoded nor held in memory

# One context for each class and syntax: a peer that may choose among several chooses one the file is not in.
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
CONNECT, REPLY = 10.0, 30.0  # seconds until a peer counts as away, or as hanging
MAXIMUM_PDU = 131072

REJECTIONS = {  # PS3.8 Table 9-21, the reasons an administrator can mend
    (1, 3): "it does not know our AE title {us}; register it there",
    (1, 7): "it says that its AE title is not {them}; mend ae_title in [[destination]]",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has reached its limit of associations",
}


class Unreachable(Exception):
    """No association could be had, or it broke; the message says what to look at."""


class ClassRefused(Exception):
    """The destination does not accept this SOP class in any syntax we can send."""


@dataclass(frozen=True, slots=True)
class File:
    """A finished DICOM file."""

    path: Path
    sop_class: str


def send(files: Sequence[File], destination: Destination, calling_ae_title: str) -> Iterator[int | ClassRefused]:
    """Store each file in turn; yields the C-STORE status of each, or ClassRefused where none was asked for.

    Raises Unreachable before the first answer that did not come; what was yielded before stands.
    """
    assoc = associate(destination, calling_ae_title, sorted({f.sop_class for f in files}))
    try:
        accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
        for file in files:
            yield _store(assoc, file, accepted, destination)
        assoc.release()
    finally:
        if assoc.is_established:
            assoc.abort()


def associate(destination: Destination, calling_ae_title: str, sop_classes: Sequence[str]) -> Association:
    """An established association that proposes these classes; raises Unreachable."""
    ae = AE(calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = CONNECT
    ae.dimse_timeout = ae.network_timeout = REPLY
    ae.maximum_pdu_size = MAXIMUM_PDU
    contexts = [build_context(sop_class, syntax) for sop_class in sop_classes for syntax in SYNTAXES]
    try:
        assoc = ae.associate(destination.host, destination.port, contexts, destination.ae_title, max_pdu=MAXIMUM_PDU)
    except OSError as error:  # a host name that cannot be resolved
        raise Unreachable(f"no association with {_words(destination)}: {error}") from error
    if not assoc.is_established:
        raise Unreachable(
            f"no association with {_words(destination)}: {_why_not(assoc, destination, calling_ae_title)}"
        )
    return assoc


def _store(
    assoc: Association, file: File, accepted: set[tuple[str, str]], destination: Destination
) -> int | ClassRefused:
    if (file.sop_class, ExplicitVRLittleEndian) in accepted:
        content: Path | Dataset = file.path
    elif (file.sop_class, ImplicitVRLittleEndian) in accepted:
        content = _implicit(file.path)
    else:
        return ClassRefused(f"{destination.name} does not accept {UID(file.sop_class).name}")
    if not assoc.is_established:
        raise Unreachable(f"{_words(destination)} ended the association")
    status = assoc.send_c_store(content)
    if "Status" not in status:  # no answer in time, or the connection broke
        raise Unreachable(f"{_words(destination)} did not answer a C-STORE request within {REPLY:.0f} s")
    return int(status.Status)


def _implicit(path: Path) -> Dataset:
    """The file re-encoded for a peer that knows nothing but the default transfer syntax (PS3.5 10.1)."""
    ds, stream = dcmread(path), BytesIO()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(stream, implicit_vr=True, little_endian=True)
    return dcmread(BytesIO(stream.getvalue()))


def _why_not(assoc: Association, destination: Destination, calling_ae_title: str) -> str:
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        reason = REJECTIONS.get((answer.result_source, answer.diagnostic), answer.reason_str)
        return str(reason).format(us=calling_ae_title, them=destination.ae_title)
    if assoc.accepted_contexts or assoc.rejected_contexts:
        return "it accepts none of the classes we offered"
    return "it does not answer there; is it running, and are host and port right in [[destination]]?"


def _words(destination: Destination) -> str:
    return f"{destination.name} ({destination.ae_title} at {destination.host} port {destination.port})"
