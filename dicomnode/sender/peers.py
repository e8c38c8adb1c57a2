"""A destination as a DIMSE peer: its name in words, what can go wrong with it, and an ordinary association with it."""

from collections.abc import Sequence

from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from dicomnode.config import Destination

# Seconds until a peer counts as away: small, because one that swallows packets must not hold up the others.
CONNECT, NEGOTIATE, REPLY = 3.0, 5.0, 30.0
MAXIMUM_PDU = 131072
PERMANENT = 1  # PS3.8 Table 9-21, result

REJECTIONS = {  # PS3.8 Table 9-21, source and reason: those an administrator can mend
    (1, 2): "it does not speak DICOM's application context; is that the right port?",
    (1, 3): "it does not know our AE title {us}; register it there",
    (1, 7): "it says that its AE title is not {them}; mend ae_title in [[destination]]",
    (2, 2): "it speaks another version of the protocol; is that the right port?",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has reached its limit of associations",
}
LASTING = frozenset({(1, 2), (1, 3), (1, 7), (2, 2)})  # asking again changes nothing until somebody mends it


class Unreachable(Exception):
    """No association could be had, or it broke; the message says what to look at."""


class Rejected(Unreachable):
    """The destination is there and ends this association before it begins; another one it may take."""


class NotAdmitted(Rejected):
    """The destination refuses every association with us until somebody mends it there or here."""


class NothingAccepted(Unreachable):
    """The destination took the association and none of the classes that we offered."""


class Stalled(Unreachable):
    """The association broke, or its answer did not come in time, while a file was being sent."""

    def __init__(self, words: str, *, timed_out: bool) -> None:
        super().__init__(words)
        self.timed_out = timed_out


class ClassRefused(Exception):
    """The destination does not accept this SOP class in any syntax we can send."""


def refused(destination: Destination, sop_class: str) -> ClassRefused:
    """The refusal of one class, with the remedy."""
    name = UID(sop_class).name
    return ClassRefused(f"{destination.name} does not accept {name}; enable it there, or take it out of objects here")


def associate(
    destination: Destination,
    calling_ae_title: str,
    sop_classes: Sequence[str],
    handlers: Sequence[object] = (),
    roles: Sequence[object] = (),
) -> Association:
    """An established association that proposes these classes, for anything but C-STORE; raises Unreachable.

    roles: SCP/SCU role selections to negotiate.
    """
    ae = AE(calling_ae_title)
    ae.connection_timeout, ae.acse_timeout = CONNECT, NEGOTIATE
    ae.dimse_timeout = ae.network_timeout = REPLY
    ae.maximum_pdu_size = MAXIMUM_PDU
    contexts = [build_context(sop_class) for sop_class in sop_classes]
    address = (destination.host, destination.port)
    try:
        assoc = ae.associate(*address, contexts, destination.ae_title, max_pdu=MAXIMUM_PDU, evt_handlers=list(handlers))
    except OSError as error:  # a host name that cannot be resolved
        raise Unreachable(f"no association with {words(destination)}: {error}") from error
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        raise rejection(destination, calling_ae_title, answer.result, answer.result_source, answer.diagnostic)
    if not assoc.is_established:
        if assoc.rejected_contexts:
            raise NothingAccepted(f"{words(destination)} accepts none of the classes we offered")
        raise away(destination, NO_ANSWER)
    return assoc


NO_ANSWER = "it does not answer there; is it running, and are host and port right in [[destination]]?"


def away(destination: Destination, why: str) -> Unreachable:
    """No association for the moment."""
    return Unreachable(f"no association with {words(destination)}: {why}")


def rejection(destination: Destination, us: str, result: int, source: int, reason: int) -> Unreachable:
    """What an A-ASSOCIATE-RJ means (PS3.8 Table 9-21)."""
    known = REJECTIONS.get((source, reason), f"it rejects us (source {source}, reason {reason}) and does not say why")
    why = f"no association with {words(destination)}: {known.format(us=us, them=destination.ae_title)}"
    if result != PERMANENT:
        return Unreachable(why)
    return NotAdmitted(why) if (source, reason) in LASTING else Rejected(why)


def words(destination: Destination) -> str:
    """The destination as a person knows it."""
    if destination.stow_url:
        return f"{destination.name} ({destination.stow_url})"
    return f"{destination.name} ({destination.ae_title} at {destination.host} port {destination.port})"
