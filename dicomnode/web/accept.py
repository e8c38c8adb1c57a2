"""What the Accept header of a DICOMweb request takes (PS3.18 8.7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from fastapi import HTTPException, Request

ANYTHING = "*/*"
MULTIPART = "multipart/related"


@dataclass(frozen=True, slots=True)
class Media:
    """One media type that is accepted; type: of the parts, of multipart/related. q: how much it is wanted."""

    name: str
    type: str = ""
    transfer_syntax: str = "*"
    q: float = 1.0

    def takes(self, offer: str, transfer_syntax: str = "*") -> bool:
        """True where this is, or includes, what is offered; parts are offered as multipart/related;TYPE."""
        if self.transfer_syntax not in ("*", transfer_syntax) and transfer_syntax != "*":
            return False
        whole, _, part = offer.partition(";")
        if not _includes(self.name, whole):
            return False
        return self.name != MULTIPART or not self.type or _includes(self.type, part)


def _includes(pattern: str, name: str) -> bool:
    return pattern in (ANYTHING, name, f"{name.partition('/')[0]}/*")


def accepted(request: Request) -> list[Media]:
    """What is accepted, the most wanted first."""
    given = request.query_params.get("accept") or request.headers.get("accept") or ANYTHING
    return sorted((media for media in map(_media, _elements(given)) if media.q > 0), key=lambda media: -media.q)


def _elements(header: str) -> Iterator[str]:
    """The elements of a list, whose quoted strings may have commas."""
    element, quoted = "", False
    for letter in header:
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            yield element
            element = ""
        else:
            element += letter
    yield element


def _media(text: str) -> Media:
    message = Message()
    try:
        message["Content-Type"] = text.strip()
        part = str(message.get_param("type", "")).lower()
        syntax = str(message.get_param("transfer-syntax", "*"))
        name = text.partition(";")[0].strip().lower()
        return Media(name, part, syntax, float(str(message.get_param("q", "1"))))
    except ValueError:
        return Media("", q=0.0)


def choose(request: Request, offers: tuple[str, ...], transfer_syntax: str = "*") -> str:
    """The offer that is wanted most; of equals the first offered. Raises 406."""
    for media in accepted(request):
        for offer in offers:
            if media.takes(offer, transfer_syntax):
                return offer
    raise HTTPException(406, f"this can be had as {' or '.join(offers)}")
