"""STOW-RS (PS3.18 10.5): instances in, through the same intake as C-STORE; Success only for what is safely kept."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydicom import Dataset
from ulid import ULID

from dicomnode import bookkeeping, header
from dicomnode.bookkeeping import Peer, Visitor
from dicomnode.roles import Right
from dicomnode.room import NoRoom
from dicomnode.scp.listener import STORAGE_CLASSES
from dicomnode.scp.store import CANNOT_UNDERSTAND, SUCCESS, status_of
from dicomnode.spool import Part
from dicomnode.web.body import Silent, pieces
from dicomnode.web.gate import address_of, may
from dicomnode.web.parts import Incoming, Malformed, Parts, boundary_of
from dicomnode.web.site import DICOMWEB, Site, site_of
from inference.refusal import Refused

log = logging.getLogger(__name__)
router = APIRouter(prefix=DICOMWEB)

CLASS_NOT_SUPPORTED, DOES_NOT_MATCH = 0x0122, 0xA900  # PS3.18 Table I.2-2, PS3.4 Table B.2-1
AHEAD = 8  # instances of a request that are being made durable while the next ones arrive
MARK = "-web"  # what ids of associations end with that are requests to us
# Threads: one for each request that is read, and those in which files are synced, which is waiting and not computing.
REQUESTS, SYNCS = 8, 8
_readers = ThreadPoolExecutor(REQUESTS, "stow")
_filers = ThreadPoolExecutor(SYNCS, "file")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part; UIDs are empty where nothing could be read of it."""

    status: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""


@dataclass(slots=True)
class Storing:
    """One request: its parts are filed side by side, a few at a time. study: that they must be of, or empty."""

    site: Site
    peer: Peer
    study: str
    outcomes: list[Outcome] = field(default_factory=list)
    _under_way: deque["Future[Outcome]"] = field(default_factory=deque)

    def read(self, body: Iterator[bytes], boundary: bytes) -> list[Outcome]:
        """Take the whole body; raises Malformed or Silent. What was complete by then is kept."""
        parts = Parts(boundary, self.site.store, self._begin)
        try:
            for piece in body:
                parts.write(piece)
            parts.finish()
        finally:
            parts.drop()
            while self._under_way:
                self._take_one()
        return self.outcomes

    def _begin(self, incoming: Incoming) -> None:
        if len(self._under_way) >= AHEAD:
            self._take_one()
        self._under_way.append(_filers.submit(self._file, incoming))

    def _take_one(self) -> None:
        self.outcomes.append(self._under_way.popleft().result())

    def _file(self, incoming: Incoming) -> Outcome:
        if incoming.part is None:
            error = incoming.error
            wrong_type = isinstance(error, TypeError)
            return Outcome(CANNOT_UNDERSTAND if wrong_type or error is None else status_of(error, self.peer))
        with incoming.part as part:
            try:
                return self._judge(part)
            except Exception as error:  # an edge: every instance gets its answer
                return Outcome(status_of(error, self.peer))

    def _judge(self, part: Part) -> Outcome:
        try:
            with part.reading() as stream:
                elements, _ = header.of_stream(stream, part.bytes)
        except Refused:
            return Outcome(self.site.store.finish(part, self.peer))  # to quarantine, with the reason
        uids = [elements[keyword] for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")]
        if uids[0] not in STORAGE_CLASSES:
            return Outcome(CLASS_NOT_SUPPORTED, *uids)
        if self.study not in ("", uids[2]):
            return Outcome(DOES_NOT_MATCH, *uids)
        return Outcome(self.site.store.finish(part, self.peer), *uids)


@router.post("/studies", summary="Store instances")
@router.post("/studies/{study}", summary="Store instances of one study")
async def store(
    request: Request,
    who: Annotated[Visitor, Depends(may(Right.STORE))],
    site: Annotated[Site, Depends(site_of)],
    study: str = "",
) -> JSONResponse:
    """200 all stored, 202 some, 409 none; the answer says which, and why the others were not."""
    peer, boundary = _peer(request, who, site), _boundary(request)
    try:
        site.store.room.check()
    except NoRoom as error:
        raise HTTPException(503, str(error.strerror), {"Retry-After": "60"}) from error
    loop = asyncio.get_running_loop()
    try:
        body = pieces(request, loop)
        outcomes = await loop.run_in_executor(_readers, Storing(site, peer, study).read, body, boundary)
    except Malformed as error:
        raise HTTPException(400, str(error)) from error
    except Silent as error:
        raise HTTPException(408, "the body did not come") from error
    finally:
        await loop.run_in_executor(_filers, bookkeeping.release, site.books, peer.association, site.clock())
    if not outcomes:
        raise HTTPException(400, "the body has no parts")
    return JSONResponse(answer(outcomes, site.address(request)), _status(outcomes), media_type="application/dicom+json")


def _peer(request: Request, who: Visitor, site: Site) -> Peer:
    """The sender must be an account and a [[source]] at this address."""
    address, now = address_of(request), site.clock()
    source = site.settings.source_of(who.name, address)
    if source is None:
        why = f"{who.name} at {address} is not a [[source]] in node.toml; add it there if it may send"
        bookkeeping.note_rejection(site.books, who.name, address, "unlisted-source", why, now)
        raise HTTPException(403, why)
    return Peer(f"{ULID.from_datetime(now)}{MARK}", source.ae_title, address, now, source.lane)


def _boundary(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "compressed bodies are not taken")
    try:
        return boundary_of(request.headers.get("content-type", ""))
    except TypeError as error:
        raise HTTPException(415, 'send multipart/related; type="application/dicom"') from error
    except Malformed as error:
        raise HTTPException(400, str(error)) from error


def _status(outcomes: list[Outcome]) -> int:
    """PS3.18 Table 10.5.3-1."""
    stored = sum(outcome.status == SUCCESS for outcome in outcomes)
    return 200 if stored == len(outcomes) else 202 if stored else 409


def answer(outcomes: list[Outcome], address: str) -> dict[str, Any]:
    """The data set of PS3.18 Annex I.2, as DICOM JSON."""
    ds = Dataset()
    studies = {outcome.study_instance_uid for outcome in outcomes if outcome.status == SUCCESS}
    if len(studies) == 1:
        ds.RetrieveURL = _url(address, *studies)
    ds.ReferencedSOPSequence = [_item(outcome, address) for outcome in outcomes if outcome.status == SUCCESS]
    failed = [outcome for outcome in outcomes if outcome.status != SUCCESS]
    ds.FailedSOPSequence = [_item(outcome, address) for outcome in failed if outcome.sop_instance_uid]
    ds.OtherFailuresSequence = [_item(outcome, address) for outcome in failed if not outcome.sop_instance_uid]
    for keyword in ("ReferencedSOPSequence", "FailedSOPSequence", "OtherFailuresSequence"):
        if not ds[keyword].value:
            del ds[keyword]
    return ds.to_json_dict()


def _item(outcome: Outcome, address: str) -> Dataset:
    ds = Dataset()
    if outcome.sop_instance_uid:
        ds.ReferencedSOPClassUID = outcome.sop_class_uid
        ds.ReferencedSOPInstanceUID = outcome.sop_instance_uid
    if outcome.status != SUCCESS:
        ds.FailureReason = outcome.status
    else:
        ds.RetrieveURL = _url(address, outcome.study_instance_uid)
    return ds


def _url(address: str, study: str) -> str:
    return f"{address}{DICOMWEB}/studies/{study}"
