"""Headers of files on disk, and data sets as DICOM JSON (PS3.18 Annex F)."""

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileDataset

MEDIA = "application/dicom+json"
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
BULKY = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})  # VRs that a search does not give out
LARGEST_INLINE = 2**16  # bytes of a value that is sent within the JSON


@lru_cache(maxsize=2048)
def header(path: Path) -> FileDataset:
    """All before the pixels; not to be changed. Files in the spool never change, so each is read once."""
    return dcmread(path, stop_before_pixels=True, defer_size=LARGEST_INLINE)


def metadata(path: Path, url: str) -> dict[str, Any]:
    """The metadata of one instance; what is large stands as an address under `url`, that of the instance."""
    ds = header(path)

    def bulk(element: DataElement) -> str:
        return f"{url}/bulkdata/{int(element.tag):08X}"

    values = ds.to_json_dict(LARGEST_INLINE, bulk, suppress_invalid_tags=True)
    if "Rows" in ds:
        tag, vr = _pixels(ds)
        values[f"{tag:08X}"] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag:08X}"}
    return {tag: finite(value) for tag, value in sorted(values.items()) if not tag.startswith("0002")}


def _pixels(ds: Dataset) -> tuple[int, str]:
    """Which element holds the pixels, and its VR: floats of parametric maps lie elsewhere (PS3.3 C.7.6.24)."""
    if ds.get("BitsAllocated") == 32 and "PixelRepresentation" not in ds:
        return 0x7FE00008, "OF"
    return 0x7FE00010, "OW" if ds.get("BitsAllocated", 8) > 8 else "OB"


def as_json(ds: Dataset) -> dict[str, Any]:
    """A small data set."""
    return {tag: finite(value) for tag, value in ds.to_json_dict(suppress_invalid_tags=True).items()}


@lru_cache(maxsize=4096)
def some_elements(path: Path, keywords: frozenset[str]) -> dict[str, Any]:
    """These elements of a file, or with "all" all that are not bulky; not to be changed. Raises what dcmread does."""
    whole, ds = header(path), Dataset()
    for element in whole if "all" in keywords else (whole[keyword] for keyword in keywords if keyword in whole):
        if element.VR not in BULKY:
            ds.add(element)
    return as_json(ds)


def elements(values: Mapping[str, object]) -> dict[str, Any]:
    """Values by keyword: texts, numbers, or lists of them; empty ones have no Value."""
    return {f"{tag_for_keyword(keyword):08X}": _element(keyword, value) for keyword, value in values.items()}


def _element(keyword: str, value: object) -> dict[str, Any]:
    listed = [each for each in (value if isinstance(value, list) else [value]) if each != ""]
    return {"vr": dictionary_VR(keyword)} | ({"Value": listed} if listed else {})


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value
