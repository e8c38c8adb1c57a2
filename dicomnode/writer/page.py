"""The page that stands in a study instead of maps: "No synthetic perfusion", and why.

Without it a reader cannot tell a study that was refused from one that is still under way, and silence is easily read as
normal. One for each study and reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import MODEL_NAME
from dicomnode.writer import burn, capture, common, plane
from dicomnode.writer.study import on_clock_of, result_uid

KIND, NAME = "page", "refusal"
SERIES_NUMBER = 9901
ROWS, COLUMNS = 768, 1024
TITLE = "No synthetic perfusion"
NO_FINDING = "This page says nothing about the perfusion of the brain."


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """Why a study that had a candidate series got no maps.

    source: headers of the series that came nearest to being used, at least one; pixels may be absent.
    reason_code, reason: of design.md contract 15, and in words that a radiographer understands.
    created_at: when it was refused, with its time zone; fixed, so that a second rendering is identical.
    software_version, device_serial_number: of this node.
    """

    source: Sequence[Dataset]
    reason_code: str
    reason: str
    created_at: datetime
    software_version: str
    device_serial_number: str

    @property
    def key(self) -> str:
        """What stands for the key of a job: the study and the reason, so the same refusal is the same page."""
        return "|".join((str(self.source[0].StudyInstanceUID), self.reason_code, self.reason, self.software_version))


def write(refusal: Refusal) -> Dataset:
    """The page, a secondary capture in the study of the source."""
    source, stamp = refusal.source, on_clock_of(refusal.source[0], refusal.created_at)
    made = f"{TITLE}: {refusal.reason_code}. No map was made."
    ds = common.of_node(source, stamp, refusal.device_serial_number, [refusal.software_version], made)
    ds.SeriesInstanceUID, ds.SeriesNumber = result_uid(refusal.key, KIND, NAME, "series"), SERIES_NUMBER
    ds.InstanceNumber = 1
    ds.SeriesDescription = f"{TITLE}: {refusal.reason_code}"[:64]
    ds.ImageComments = f"{TITLE}: {refusal.reason} {NO_FINDING}"
    ds.DerivationDescription = f"{TITLE}: {refusal.reason}"[:1024]
    ds.PatientOrientation = None  # a page of words
    ds.SourceImageSequence = [plane.reference(each, same_grid=False) for each in source]
    capture.describe(ds)
    capture.set_pixels(ds, _page(refusal, stamp))
    uid = result_uid(refusal.key, KIND, NAME, 0)
    return common.finish(ds, SecondaryCaptureImageStorage, uid, refusal.software_version)


def _page(refusal: Refusal, stamp: datetime) -> np.ndarray:
    """RGB (rows, columns, 3) uint8."""
    sheet = burn.Sheet(ROWS, COLUMNS)
    series = refusal.source[0].get("SeriesNumber")
    sheet.stack_up(0.5, 0.3, 0.9, [burn.Line(TITLE, 34, burn.YELLOW)])
    sheet.stack_up(0.5, 0.62, 0.8, [burn.Line(_sentence(refusal.reason), 19)])
    sheet.stack_up(0.5, 0.72, 0.9, [burn.Line(f"Reason code: {refusal.reason_code}", 15, burn.GREY)])
    lines = [
        burn.Line(NO_FINDING, 16, burn.ORANGE),
        burn.Line("It does not exclude stroke.", 16, burn.ORANGE),
        burn.Line(f"Series {series}" if series is not None else "", 12, burn.GREY),
        burn.Line(f"{MODEL_NAME} {refusal.software_version}, {stamp:%Y-%m-%d %H:%M %Z}", 12, burn.GREY),
    ]
    sheet.stack_up(0.5, 0.96, 0.9, [line for line in lines if line.text])
    page = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    sheet.overlay().onto(page)
    return page


def _sentence(reason: str) -> str:
    """The reason as a sentence; what the font cannot draw is a question mark."""
    drawn = reason.encode("latin-1", "replace").decode("latin-1").strip()
    return drawn[:1].upper() + drawn[1:] + ("" if drawn.endswith(".") else ".")
