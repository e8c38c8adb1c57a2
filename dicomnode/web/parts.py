"""multipart/related (RFC 2387) as it streams in: each part goes to a file of the spool, never whole into memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from dicomnode import header
from dicomnode.scp.store import Store
from dicomnode.spool import Part

LONGEST_META = 65536  # bytes of preamble and file meta information
LONGEST_BOUNDARY = 200  # RFC 2046 5.1.1 says 70, Orthanc sends 73
LONGEST_HEADER = 4096  # bytes of the headers of one part
DICOM = "application/dicom"


class Malformed(ValueError):
    """The body is not what its Content-Type says."""


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart/related body of DICOM files; raises Malformed, or TypeError for another type."""
    message = Message()
    message["Content-Type"] = content_type
    kind = str(message.get_param("type", DICOM)).lower()
    if message.get_content_type() != "multipart/related" or kind != DICOM:
        raise TypeError
    boundary = message.get_boundary()
    if not boundary or not boundary.isascii() or len(boundary) > LONGEST_BOUNDARY:
        raise Malformed("the Content-Type has no boundary")
    return boundary.encode()


@dataclass(slots=True)
class Incoming:
    """One part on its way to disk. error: what keeps us from keeping it; its bytes are then read and forgotten."""

    part: Part | None = None
    error: Exception | None = None
    beginning: int = 0
    head: bytearray = field(default_factory=bytearray)


class Parts:
    """Takes a body piece by piece; `done` is called with each part when all of it is written."""

    def __init__(self, boundary: bytes, store: Store, done: Callable[[Incoming], None]) -> None:
        self._store, self._done = store, done
        self._incoming: Incoming | None = None
        self._header = [b"", b""]
        self._ended = False
        callbacks = {name: getattr(self, f"_{name}") for name in ("on_part_begin", "on_part_data", "on_part_end")}
        names = ("on_header_field", "on_header_value", "on_header_end", "on_end")
        callbacks |= {name: getattr(self, f"_{name}") for name in names}
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        self._begun = False

    def write(self, piece: bytes) -> None:
        """Take a piece; raises Malformed."""
        if not self._begun:
            piece = piece.lstrip(b"\r\n")
            self._begun = bool(piece)
        try:
            if piece and not self._ended:
                self._parser.write(piece)
        except MultipartParseError as error:
            raise Malformed("the body does not have the parts that its Content-Type says") from error

    def finish(self) -> None:
        """There is no more; raises Malformed where the last part has no end."""
        if not self._ended:
            raise Malformed("the body ends before its last boundary")

    def drop(self) -> None:
        """Forget what is half received."""
        if self._incoming and self._incoming.part:
            self._incoming.part.drop()
        self._incoming = None

    def _on_part_begin(self) -> None:
        self._incoming = Incoming()

    def _on_header_field(self, content: bytes, start: int, end: int) -> None:
        self._extend(0, content[start:end])

    def _on_header_value(self, content: bytes, start: int, end: int) -> None:
        self._extend(1, content[start:end])

    def _extend(self, which: int, piece: bytes) -> None:
        self._header[which] += piece
        if len(self._header[which]) > LONGEST_HEADER:
            raise Malformed("a part has longer headers than any DICOM file needs")

    def _on_header_end(self) -> None:
        name, value = self._header[0].strip().lower(), self._header[1].decode("latin-1")
        self._header = [b"", b""]
        kind = value.split(";")[0].strip().lower()
        if self._incoming and name == b"content-type" and kind != DICOM:
            self._incoming.error = TypeError(kind)

    def _on_part_data(self, content: bytes, start: int, end: int) -> None:
        incoming = self._incoming
        if incoming is None or incoming.error:
            return
        piece = memoryview(content)[start:end]
        try:
            if incoming.part is None:
                incoming.head += piece
                self._begin(incoming, last=False)
            else:
                self._store.write(incoming.part, piece, incoming.beginning)
        except OSError as error:
            self._give_up(incoming, error)

    def _begin(self, incoming: Incoming, *, last: bool) -> None:
        """Open the file once the file meta information is here, which is not part of the data set's digest."""
        head = bytes(incoming.head)
        start = header.data_set_start(head) if len(head) >= header.META or last else -1
        if (start < 0 or len(head) < start <= LONGEST_META) and not last:
            return
        start = start if start <= min(len(head), LONGEST_META) else 0
        incoming.part, incoming.beginning = self._store.begin(head[:start]), start
        incoming.head.clear()
        self._store.write(incoming.part, memoryview(head)[start:], start)

    def _give_up(self, incoming: Incoming, error: Exception) -> None:
        if incoming.part:
            incoming.part.drop()
        incoming.part, incoming.error = None, error

    def _on_part_end(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        if incoming.part is None and incoming.error is None:
            try:
                self._begin(incoming, last=True)
            except OSError as error:
                self._give_up(incoming, error)
        self._done(incoming)

    def _on_end(self) -> None:
        self._ended = True
