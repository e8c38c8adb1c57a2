"""Values of a data set that may be absent, empty, or not at all what they should be: read, or refused by name."""

import struct
from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue

from inference.refusal import Refused

# What pydicom raises over the bytes of an element that are not what its value representation says.
BROKEN = (
    *(AttributeError, BytesLengthException, KeyError, LookupError, NotImplementedError, OverflowError),
    *(TypeError, ValueError, struct.error),
)


def text(ds: Dataset, keyword: str, absent: str = "") -> str:
    """The value as text, the first of several; `absent` where there is none or it cannot be read."""
    try:
        value = ds.get(keyword)
        if isinstance(value, MultiValue | list | tuple):
            value = value[0] if value else None
        return absent if value is None or value == "" else str(value)
    except BROKEN:
        return absent


def floats(ds: Dataset, keyword: str) -> list[float]:
    """The finite values of a numeric element; none where it is absent, empty or not numbers."""
    try:
        value = ds.get(keyword)
        several = value if isinstance(value, MultiValue | list | tuple) else [value]
        numbers = [float(v) for v in several]
    except BROKEN:
        return []
    return numbers if np.isfinite(numbers).all() else []


def numbers(ds: Dataset, keyword: str, count: int) -> np.ndarray:
    """(count,) values that place an image; raises Refused("mixed-geometry") where there are not so many."""
    values = floats(ds, keyword)
    if len(values) != count:
        raise Refused(
            "mixed-geometry", f"image {name(ds)} carries no usable {keyword}: its place in the head is unknown"
        )
    return np.array(values)


def integer(ds: Dataset, keyword: str, absent: int | None = None) -> int:
    """The one whole number of an element; raises Refused where there is none and `absent` does not stand for it."""
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            value = absent
        return int(value)  # what is no number raises, and is told below
    except BROKEN as error:
        raise Refused("not-dicom", f"image {name(ds)} carries no usable {keyword}; send the series again") from error


def name(ds: Dataset) -> str:
    """What a radiographer calls the image; the books know the UIDs."""
    return text(ds, "InstanceNumber") or text(ds, "SOPInstanceUID") or "without a number"


def distinct(datasets: Sequence[Dataset], keyword: str) -> set[str]:
    """All that the data sets say of one element, without those that say nothing."""
    return {said for ds in datasets if (said := text(ds, keyword))}
