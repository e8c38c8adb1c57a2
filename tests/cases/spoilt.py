"""A series with other Hounsfield units: what was done to its volume is written back into its slices."""

from collections.abc import Callable, Sequence
from copy import deepcopy

from pydicom import Dataset

from inference.volume import Volume, from_slices
from tests import phantom


def rewritten(slices: Sequence[Dataset], spoil: Callable[[Volume], Volume]) -> list[Dataset]:
    """The slices as a scanner would have written the spoilt head."""
    head = from_slices(slices)
    spoilt = spoil(head)
    written = []
    for hu, position, source in zip(spoilt.hu, spoilt.positions, head.order, strict=True):
        ds = deepcopy(slices[source])
        if "PixelPaddingValue" in ds:
            del ds.PixelPaddingValue
        phantom.set_pixels(ds, hu)
        ds.ImagePositionPatient = [f"{v:.9g}" for v in position]
        written.append(ds)
    return written
