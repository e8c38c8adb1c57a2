"""WADO-RS (PS3.18 10.4): studies, series, instances, their metadata, frames and pictures."""

from collections.abc import Iterable, Iterator
from json import dumps
from pathlib import Path
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Held, Visitor
from dicomnode.web import pixels
from dicomnode.web.accept import MULTIPART, choose
from dicomnode.web.dicom_json import MEDIA, header, metadata
from dicomnode.web.qido import Here, Reader, sees_sources, url_of
from dicomnode.web.site import DICOMWEB, Site

router = APIRouter(prefix=DICOMWEB)

DICOM, BYTES = "application/dicom", "application/octet-stream"
BLOCK = 2**18  # bytes read at once
OBJECT = "/studies/{study}/series/{series}/instances/{instance}"


@router.get("/studies/{study}", summary="Retrieve a study")
@router.get("/studies/{study}/series/{series}", summary="Retrieve a series")
@router.get(OBJECT, summary="Retrieve an instance")
def instances(request: Request, who: Reader, site: Here, study: str, series: str = "", instance: str = "") -> Response:
    """The files as they lie here, in their own transfer syntax."""
    held = _held(site, who, study, series, instance)
    paths = [_path(site, each) for each in held]
    for path in paths:
        offers = (f"{MULTIPART};{DICOM}", DICOM) if instance else (f"{MULTIPART};{DICOM}",)
        offer = choose(request, offers, _syntax(path))
    if offer == DICOM:
        return FileResponse(paths[0], media_type=DICOM)
    return _multipart(DICOM, (_file(path) for path in paths))


@router.get("/studies/{study}/metadata", summary="Retrieve the metadata of a study")
@router.get("/studies/{study}/series/{series}/metadata", summary="Retrieve the metadata of a series")
@router.get(OBJECT + "/metadata", summary="Retrieve the metadata of an instance")
def all_metadata(
    request: Request, who: Reader, site: Here, study: str, series: str = "", instance: str = ""
) -> Response:
    """All elements but the bulk data, for which there are addresses."""
    choose(request, (MEDIA, "application/json"))
    held = _held(site, who, study, series, instance)
    pairs = [(_path(site, each), url_of(site, request, each, "instance")) for each in held]

    def array() -> Iterator[str]:
        for n, (path, url) in enumerate(pairs):
            yield ("," if n else "[") + dumps(metadata(path, url), separators=(",", ":"))
        yield "]"

    return StreamingResponse(array(), media_type=MEDIA)


@router.get(OBJECT + "/frames/{frames}", summary="Retrieve frames")
def some_frames(
    request: Request, who: Reader, site: Here, study: str, series: str, instance: str, frames: str
) -> Response:
    """Frames (numbers from 1, with commas), not compressed."""
    (held,) = _held(site, who, study, series, instance)
    offer = choose(request, (f"{MULTIPART};{BYTES}", BYTES), pixels.NATIVE)
    path = _path(site, held)
    numbers = _numbers(frames, pixels.frame_count(header(path)))
    if offer == BYTES and len(numbers) == 1:
        return Response(_pixels(path, numbers[0]), media_type=BYTES)
    return _multipart(BYTES, ([_pixels(path, number)] for number in numbers))


@router.get(OBJECT + "/bulkdata/{tag}", summary="Retrieve bulk data")
def bulk_data(request: Request, who: Reader, site: Here, study: str, series: str, instance: str, tag: str) -> Response:
    """The value of one element at the top of the data set, as it lies in the file."""
    (held,) = _held(site, who, study, series, instance)
    offer = choose(request, (f"{MULTIPART};{BYTES}", BYTES))
    if len(tag) != 8 or not set(tag) <= set("0123456789abcdefABCDEF"):
        raise HTTPException(400, f"a tag has eight hexadecimal digits: {tag[:16]!r}")
    value = pixels.value(_path(site, held), int(tag, 16))
    if value is None:
        raise HTTPException(404, "the instance has no such bulk data")
    return Response(value, media_type=BYTES) if offer == BYTES else _multipart(BYTES, ([value],))


@router.get(OBJECT + "/rendered", summary="Retrieve a picture of an instance")
@router.get(OBJECT + "/frames/{frames}/rendered", summary="Retrieve a picture of a frame")
def rendered(
    request: Request, who: Reader, site: Here, study: str, series: str, instance: str, frames: str = "1"
) -> Response:
    """A frame as PNG or JPEG: by its own window, or by `window=CENTRE,WIDTH,FUNCTION`; of many frames the first."""
    (held,) = _held(site, who, study, series, instance)
    path = _path(site, held)
    (number, *more) = _numbers(frames, pixels.frame_count(header(path)))
    if more:
        raise HTTPException(400, "one frame at a time is drawn")
    media = choose(request, ("image/png", "image/jpeg"))
    window = _window(request.query_params.get("window", ""))
    try:
        return Response(pixels.picture(path, number, media, window), media_type=media)
    except pixels.NoPicture as error:
        raise HTTPException(406, str(error)) from error


def _held(site: Site, who: Visitor, study: str, series: str, instance: str) -> list[Held]:
    found = bookkeeping.find_held(site.books, study, series=series, instance=instance, received=sees_sources(who))
    if not found:
        raise HTTPException(404, "there is no such object here that you may read")
    return found[:1] if instance else found


def _path(site: Site, held: Held) -> Path:
    path = site.spool.path(held.path)
    if not path.is_file():
        raise HTTPException(410, "the file of this instance has gone")
    return path


def _syntax(path: Path) -> str:
    return str(header(path).file_meta.TransferSyntaxUID)


def _numbers(frames: str, count: int) -> list[int]:
    """Frame numbers from 1; raises 400, or 404 where there are not so many."""
    parts = frames.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise HTTPException(400, "frames are numbers with commas between them")
    numbers = [int(part) for part in parts]
    if not all(1 <= number <= count for number in numbers):
        raise HTTPException(404, f"the instance has frames 1 to {count}")
    return numbers


def _pixels(path: Path, number: int) -> bytes:
    try:
        return pixels.frame(path, number)
    except pixels.NoPicture as error:
        raise HTTPException(406, str(error)) from error


def _window(given: str) -> tuple[float, float] | None:
    """Centre and width; the function is the file's own."""
    if not given:
        return None
    try:
        centre, width, *_ = (float(part) for part in given.split(",")[:2])
    except ValueError as error:
        raise HTTPException(400, "a window is CENTRE,WIDTH,FUNCTION") from error
    if not (abs(centre) < 1e9 and 0 < width < 1e9):
        raise HTTPException(400, "a window has a finite centre and a width above 0")
    return centre, width


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _multipart(media: str, parts: Iterable[Iterable[bytes]]) -> Response:
    boundary = uuid4().hex

    def body() -> Iterator[bytes]:
        for part in parts:
            yield f"--{boundary}\r\nContent-Type: {media}\r\n\r\n".encode()
            yield from part
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return StreamingResponse(body(), media_type=f'{MULTIPART}; type="{media}"; boundary={boundary}')
