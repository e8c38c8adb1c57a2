"""Headers of files on disk, and data sets as DICOM JSON (PS3.18 Annex F)."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.dataset import FileDataset

MEDIA = "application/dicom+json"
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
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


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value
