"""Frames of a file as bytes, and as pictures."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_rescale
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode import header

NATIVE = ExplicitVRLittleEndian  # in which frames are given out
FLOATS = {"FloatPixelData": "<f4", "DoubleFloatPixelData": "<f8"}
LUMINANCE = frozenset({"MONOCHROME1", "MONOCHROME2"})
FAILURES = (*header.UNREADABLE, MemoryError, RuntimeError)  # what codecs raise over broken pixels


class NoPicture(ValueError):
    """There is nothing to draw, or not by us; says why."""


def frame_count(ds: Dataset) -> int:
    """Frames of an image; 0 of what is none."""
    try:
        return int(ds.get("NumberOfFrames") or 1) if "Rows" in ds else 0
    except (TypeError, ValueError):
        return 0


def value(path: Path, tag: int) -> bytes | None:
    """The bytes of one element at the top of a data set; None where it has none."""
    ds = dcmread(path, specific_tags=[tag])
    element = ds.get(tag)
    return element.value if element is not None and isinstance(element.value, bytes) else None


def frame(path: Path, number: int) -> bytes:
    """One frame (from 1), not compressed, little endian, samples by pixel; raises NoPicture."""
    return np.ascontiguousarray(_array(path, number)).tobytes()


def picture(path: Path, number: int, media: str, window: tuple[float, float] | None) -> bytes:
    """One frame as image/png or image/jpeg, 8 bits; raises NoPicture.

    window: centre and width in units of the modality, else the file's own, else all values.
    """
    ds = dcmread(path, stop_before_pixels=True)
    if ds.get("Modality") == "SEG":
        raise NoPicture("segments have no picture without the image that they lie on")
    pixels = _array(path, number)
    grey = ds.get("PhotometricInterpretation") in LUMINANCE
    drawn = _windowed(pixels, ds, window) if grey else pixels
    if drawn.dtype != np.uint8:
        raise NoPicture(f"{ds.get('PhotometricInterpretation')} with {ds.get('BitsAllocated')} bits is not drawn")
    with io.BytesIO() as stream:
        Image.fromarray(drawn).save(stream, media.partition("/")[2].upper())
        return stream.getvalue()


def _array(path: Path, number: int) -> np.ndarray:
    """(rows, columns) or (rows, columns, samples) as stored."""
    try:
        ds = dcmread(path, stop_before_pixels=True)
        if ds.get("BitsAllocated") in (32, 64) and "PixelRepresentation" not in ds:
            whole = dcmread(path)
            shape = (frame_count(ds), int(ds.Rows), int(ds.Columns))
            keyword = next(each for each in FLOATS if each in whole)
            return np.asarray(np.frombuffer(whole[keyword].value, FLOATS[keyword]).reshape(shape)[number - 1])
        return np.asarray(pixel_array(path, index=number - 1))
    except FAILURES as error:
        raise NoPicture(f"the pixels cannot be read ({type(error).__name__})") from error


def _windowed(pixels: np.ndarray, ds: Dataset, window: tuple[float, float] | None) -> np.ndarray:
    """Grey levels of 0 to 255 (PS3.3 C.11.2.1.3.2, LINEAR_EXACT)."""
    try:
        values = np.asarray(apply_rescale(pixels, ds), np.float64)
        centre, width = window or _own_window(ds) or _all_of(values)
    except FAILURES as error:
        raise NoPicture(f"the window cannot be read ({type(error).__name__})") from error
    levels = (np.nan_to_num(values) - centre) / width + 0.5
    if ds.PhotometricInterpretation == "MONOCHROME1":
        levels = 1 - levels
    return np.asarray((levels.clip(0, 1) * 255).round(), np.uint8)


def _own_window(ds: Dataset) -> tuple[float, float] | None:
    """The first window of the file, at the top or shared by all frames (PS3.3 C.7.6.16.2.10)."""
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    holders = [ds, *(shared[0].get("FrameVOILUTSequence") or [])]
    for holder in holders:
        centre, width = (holder.get(keyword) for keyword in ("WindowCenter", "WindowWidth"))
        if centre is not None and width is not None:
            first = [float(each[0] if isinstance(each, MultiValue) else each) for each in (centre, width)]
            return first[0], max(first[1], 1e-6)
    return None


def _all_of(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low + high) / 2, max(high - low, 1e-6)
