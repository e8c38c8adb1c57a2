"""What both data paths do with the data set of a C-STORE, and what they answer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dicomnode import logs
from dicomnode.bookkeeping import BooksAway, CommitInDoubt, Peer
from dicomnode.intake import Intake
from dicomnode.room import NoRoom, Room
from dicomnode.spool import Part
from inference.refusal import Refused

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 Table B.2-1
PROCESSING_FAILURE = 0x0110  # PS3.7 C.4.5: our own mistake


@dataclass(frozen=True, slots=True)
class Store:
    """Where data sets go. largest: bytes of a data set; more are refused. clock: the only source of time."""

    intake: Intake
    room: Room
    largest: int
    clock: Callable[[], datetime]

    def begin(self, meta: bytes) -> Part:
        """Open the file for one instance; raises OSError where there is no room for it."""
        self.room.check()
        return self.intake.spool.part(meta)

    def write(self, part: Part, piece: bytes | memoryview, beginning: int) -> None:
        """Append a piece of the data set, which begins after `beginning` bytes; OSError where it does not fit."""
        if part.bytes - beginning + len(piece) > self.largest:
            raise TooLarge(f"the instance is larger than {self.largest} bytes; see [listen] largest_instance_mib")
        part.write(piece)

    def finish(self, part: Part, peer: Peer) -> int:
        """All bytes are written: keep them; the status, which is Success only once they are safely kept."""
        try:
            with part:
                self.intake.file(part, peer, self.clock())
        except Exception as error:  # an edge: every request gets its answer
            return status_of(error, peer)
        return SUCCESS


class TooLarge(OSError):
    """An instance that nobody sends by good will."""


def status_of(error: Exception, peer: Peer) -> int:
    """The status for what kept us from keeping an instance; the log gets the details."""
    with logs.about(association=peer.association):
        match error:
            case NoRoom():
                return OUT_OF_RESOURCES  # Room has said so once; a line for each instance would fill what is left
            case Refused():
                log.warning("refused an instance from %s: %s", peer.calling_ae_title, error.code)
                return CANNOT_UNDERSTAND
            case OSError() | BooksAway() | CommitInDoubt():
                log.error("could not keep an instance from %s", peer.calling_ae_title, exc_info=error)
                return OUT_OF_RESOURCES
        log.error("failed over an instance from %s", peer.calling_ae_title, exc_info=error)
        return PROCESSING_FAILURE
