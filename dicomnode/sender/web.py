"""DICOMweb: finished files by STOW-RS (PS3.18 10.5), streamed as they lie on disk; QIDO-RS confirms them (10.6)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from pydicom.errors import InvalidDicomError

from dicomnode import notify
from dicomnode.config import Destination
from dicomnode.sender import part10
from dicomnode.sender.association import Status
from dicomnode.sender.inquiry import QueryFailed
from dicomnode.sender.peers import CONNECT, NO_ANSWER, REPLY, NotAdmitted, Stalled, Unreachable, away, words

SOP_INSTANCE, REFERENCED_INSTANCE = "00080018", "00081155"
REFERENCED, FAILED, FAILURE_REASON, WARNING_REASON = "00081199", "00081198", "00081197", "00081196"
ANSWERED = frozenset({200, 202, 409})  # PS3.18 Table 10.5.3-1: all, some or none stored, each with its reason
PROCESSING_FAILURE = 0x0110
LASTING = {
    401: "it wants to know who we are; set the environment variable or credential {secret}",
    403: "it does not let us store; grant it there",
    404: "there is nothing at this address; mend stow_url in [[destination]]",
    405: "this address takes no instances; mend stow_url in [[destination]]",
    413: "it takes no requests as large as ours; raise its limit",
    415: "it does not take application/dicom; is this a STOW-RS address?",
}


def store(paths: Sequence[Path], destination: Destination, reply: float) -> Iterator[Status]:
    """Store these files with one request; yields the status of each, which the peer gives instance by instance.

    Raises NotAdmitted, Unreachable or Stalled; after the answers, what is wrong with a file that cannot be read.
    """
    uids, unreadable = _instances(paths)
    if unreadable and not uids:
        raise unreadable
    ready, boundary = paths[: len(uids)], uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + path.stat().st_size + 2 for path in ready) + len(tail)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(length),
    }
    response = _ask(destination, "POST", "/studies", headers, _body(ready, head, tail), reply)
    if response.status not in ANSWERED:
        raise _refusal(destination, response.status)
    answers = _statuses(response.content)
    unnamed = _status(PROCESSING_FAILURE, "its response does not name the instance")
    for uid in uids:
        yield answers.get(uid, unnamed)
    if unreadable:
        raise unreadable


def _instances(paths: Sequence[Path]) -> tuple[list[str], Exception | None]:
    """The SOP Instance UIDs of these files, up to the first that cannot be read, and what is wrong with that one."""
    uids = list[str]()
    for path in paths:
        try:
            uids.append(part10.meta(path).sop_instance_uid)
        except (OSError, InvalidDicomError) as error:
            return uids, error
    return uids, None


def _body(paths: Sequence[Path], head: bytes, tail: bytes) -> Iterator[bytes]:
    for path in paths:
        yield head
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
        yield b"\r\n"
    yield tail


def _statuses(content: bytes) -> dict[str, Status]:
    """SOP Instance UID -> status, of the data set that answers a STOW-RS request (PS3.18 Annex I)."""
    try:
        answer: dict[str, Any] = json.loads(content)
        found = {_text(item, REFERENCED_INSTANCE): _warning(item) for item in _items(answer, REFERENCED)}
        for item in _items(answer, FAILED):
            reason = _number(item, FAILURE_REASON) or PROCESSING_FAILURE
            found[_text(item, REFERENCED_INSTANCE)] = _status(reason, "")
        return found
    except (ValueError, AttributeError, LookupError, TypeError):
        return {}


def _warning(item: dict[str, Any]) -> Status:
    return _status(_number(item, WARNING_REASON) or 0x0000, "")


def _status(code: int, comment: str) -> Status:
    status = Status(code)
    status.comment = comment
    return status


def _items(ds: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return ds.get(tag, {}).get("Value") or []


def _text(ds: dict[str, Any], tag: str) -> str:
    return str((ds.get(tag, {}).get("Value") or [""])[0])


def _number(ds: dict[str, Any], tag: str) -> int:
    return int((ds.get(tag, {}).get("Value") or [0])[0])


@dataclass(frozen=True, slots=True)
class WebInquiry:
    """Asks by QIDO-RS what dicomnode.sender.inquiry.Inquiry asks by DIMSE; DICOMweb has no storage commitment."""

    destination: Destination
    calling_ae_title: str
    commits: bool = False
    finds: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def find(self, study_instance_uid: str, series_instance_uid: str) -> set[str]:
        """The SOP Instance UIDs that the destination holds of a series; raises QueryFailed or Unreachable."""
        path = f"/studies/{study_instance_uid}/series/{series_instance_uid}/instances"
        response = _ask(self.destination, "GET", path, {}, None, REPLY)
        if response.status == 204:
            return set()
        if response.status >= 500:
            raise _refusal(self.destination, response.status)
        try:
            if response.status != 200:
                raise ValueError
            return {_text(item, SOP_INSTANCE) for item in json.loads(response.content)}
        except (ValueError, AttributeError, TypeError) as error:
            raise QueryFailed(f"it answers a QIDO-RS request with {response.status}") from error


def check(destination: Destination) -> str:
    """What a destination answers to the smallest of queries; raises Unreachable."""
    response = _ask(destination, "GET", "/studies?limit=1", {}, None, REPLY)
    if response.status not in (200, 204):
        raise _refusal(destination, response.status)
    return f"answers QIDO-RS with {response.status}"


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    content: bytes


def _ask(
    destination: Destination,
    method: str,
    path: str,
    headers: dict[str, str],
    body: Iterator[bytes] | None,
    reply: float,
) -> _Response:
    """One request and its whole answer."""
    url = urlsplit(destination.stow_url)
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=CONNECT)
    if authorization := notify.secret(_secret(destination)):
        headers = {**headers, "Authorization": authorization}
    try:
        connection.connect()
        connection.sock.settimeout(reply)
    except (OSError, HTTPException) as error:
        raise away(destination, f"{error}; {NO_ANSWER}") from error
    try:
        connection.request(method, url.path.rstrip("/") + path, body, {"Accept": "application/dicom+json", **headers})
        response: HTTPResponse = connection.getresponse()
        return _Response(response.status, response.read())
    except TimeoutError as error:
        raise Stalled(f"{words(destination)} did not answer within {reply:.0f} s", timed_out=True) from error
    except (OSError, HTTPException) as error:
        raise Stalled(f"{words(destination)} ended the connection ({error})", timed_out=False) from error
    finally:
        connection.close()


def _refusal(destination: Destination, status: int) -> Unreachable:
    if known := LASTING.get(status):
        return NotAdmitted(f"{words(destination)} answers {status}: {known.format(secret=_secret(destination))}")
    return Unreachable(f"{words(destination)} answers {status}")


def _secret(destination: Destination) -> str:
    """Name of the environment variable or credential whose value is sent as the Authorization header."""
    return "DICOMNODE_AUTHORIZATION_" + re.sub("[^A-Z0-9]", "_", destination.name.upper())
