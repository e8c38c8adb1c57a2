"""Several series of one study: which is used, and what becomes of the others."""

from collections.abc import Callable

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from tests import phantom
from tests.cases.case import LOWEST, Arrival, head, other_series, process

SELECTED, NOT_SELECTED = "SELECTED", "NOT_SELECTED"


def _scout() -> list[Dataset]:
    return other_series(head()[:1], 11, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def _dose_page() -> list[Dataset]:
    page = other_series(head()[:1], 12, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    page[0].file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    return page


def _bone() -> list[Dataset]:
    return other_series(head(), 13, ConvolutionKernel="H60s")


def _thin() -> list[Dataset]:
    """Slices of 1.25 mm, of which a few stand for all."""
    return other_series(head(z=tuple(phantom.even(72, 1.25, -45.0)), thickness=1.25, matrix=16), 14)


def _thick() -> list[Dataset]:
    """Slices of 5 mm."""
    return other_series(head(z=tuple(phantom.even(31, 5.0, LOWEST)), thickness=5.0), 15)


def _reformat(number: int, angle: str) -> list[Dataset]:
    lying = {"coronal": [1, 0, 0, 0, 0, -1], "sagittal": [0, 1, 0, 0, 0, -1]}[angle]
    return other_series(head(), number, ImageOrientationPatient=lying, ImageType=["DERIVED", "SECONDARY", "MPR"])


def _arterial() -> list[Dataset]:
    return other_series(head(), 18, ContrastBolusAgent="Iomeprol", SeriesDescription="Head arterial")


def _venous() -> list[Dataset]:
    return other_series(head(), 19, SeriesDescription="Head venous")


def _perfusion_frames() -> list[Dataset]:
    return other_series(head(), 20, SeriesDescription="Perfusion 4D", NumberOfTemporalPositions=20)


def _repeated() -> list[Dataset]:
    return other_series(head(), 21, AcquisitionTime="084500")


def _part() -> list[Dataset]:
    """A rescan of the upper half alone."""
    return other_series(head()[8:], 22, AcquisitionTime="084500")


def _unknown_kernel() -> list[Dataset]:
    return other_series(head(), 23, ConvolutionKernel="in-house")


EVERYTHING = (
    (_scout, "localizer"),
    (_dose_page, "unsupported-class"),
    (_bone, "bone-kernel"),
    (_thin, NOT_SELECTED),
    (head, NOT_SELECTED),
    (_thick, SELECTED),
    (lambda: _reformat(16, "coronal"), "derived"),
    (lambda: _reformat(17, "sagittal"), "derived"),
    (_arterial, "contrast"),
    (_venous, "contrast"),
    (_perfusion_frames, "no-route"),
)


def _at_once(*makers: Callable[[], list[Dataset]]) -> Callable[[], list[Dataset]]:
    return lambda: [ds for make in makers for ds in make()]


def _one_by_one(*makers: Callable[[], list[Dataset]]) -> Callable[[], list[Arrival]]:
    return lambda: [Arrival(10.0 * i, make()) for i, make in enumerate(makers)]


def _study(name: str, order: list[int]):
    rows = [EVERYTHING[i] for i in order]
    return process(name, _at_once(*(make for make, _ in rows)), states=tuple(state for _, state in rows))


CASES = (
    _study("localizer, dose page, bone, thin, 7 mm, 5 mm, reformats, contrast phases, perfusion frames",
           list(range(11))),
    _study("the same in another order", [int(i) for i in np.random.default_rng(8).permutation(11)]),
    process("soft and bone kernel", _at_once(head, _bone), states=(SELECTED, "bone-kernel")),
    process("a repeated scan", _at_once(head, _repeated), states=(NOT_SELECTED, SELECTED)),
    process("a rescan of the upper half", _at_once(head, _part), states=(SELECTED, NOT_SELECTED)),
    process("known and unknown kernel", _at_once(_unknown_kernel, head), states=(NOT_SELECTED, SELECTED)),
    process("a better series comes later: 5 mm after 7 mm", _one_by_one(head, _thick), states=(NOT_SELECTED, SELECTED),
            revisions=2),
    process("a worse series comes later: thin after 5 mm", _one_by_one(_thick, _thin), states=(SELECTED, NOT_SELECTED)),
    process("the repeated scan comes later", _one_by_one(head, _repeated), states=(NOT_SELECTED, SELECTED),
            revisions=2),
    process("contrast comes later", _one_by_one(head, _arterial), states=(SELECTED, "contrast")),
    process("a copy of the series comes later", _one_by_one(head, lambda: other_series(head(), 24)),
            states=(SELECTED, NOT_SELECTED)),
)  # fmt: skip
