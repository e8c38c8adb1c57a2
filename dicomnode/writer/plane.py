"""The plane of a source slice, for single images that lie where it lies (PS3.3 C.7.6.2)."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
from pydicom import Dataset

from dicomnode.writer import codes, common
from dicomnode.writer.study import Study

_AXES = ("LR", "PA", "HF")  # letters of the positive and negative direction of each patient axis (LPS)
_LEAST_COMPONENT = 0.05  # of a direction that earns a letter in Patient Orientation: 3 degrees


def into_frame_of_reference(ds: Dataset, study: Study) -> None:
    """The frame of reference of the source, where it has one."""
    if study.frame_of_reference_uid:
        ds.FrameOfReferenceUID = study.frame_of_reference_uid
        ds.PositionReferenceIndicator = study.source[0].get("PositionReferenceIndicator") or None


def lay(ds: Dataset, source: Dataset, factor: int = 1) -> None:
    """Put an image into the plane of a source slice, of which it is an enlargement by an integer.

    Where it is enlarged, the centre of the first pixel moves by part of a pixel, and the outer edges stay.
    """
    if "SliceThickness" in source:
        ds.SliceThickness = source.SliceThickness
    ds.ImageOrientationPatient = common.decimals(source.ImageOrientationPatient)
    ds.PixelSpacing = common.decimals(source.PixelSpacing)
    ds.ImagePositionPatient = common.decimals(source.ImagePositionPatient)
    if factor > 1:
        orientation = np.array(source.ImageOrientationPatient, float)
        spacing = np.array(source.PixelSpacing, float)
        inwards = (1 / factor - 1) / 2 * (orientation[:3] * spacing[1] + orientation[3:] * spacing[0])
        ds.PixelSpacing = common.decimals(spacing / factor)
        ds.ImagePositionPatient = common.decimals(np.array(source.ImagePositionPatient, float) + inwards)


def reference(source: Dataset, same_grid: bool) -> Dataset:
    """The item of Source Image Sequence for one slice."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if "ReferencedFrameNumber" in source:  # a frame of an enhanced image
        item.ReferencedFrameNumber = source.ReferencedFrameNumber
    item.PurposeOfReferenceCodeSequence = [deepcopy(codes.SOURCE_IMAGE)]
    item.SpatialLocationsPreserved = "YES" if same_grid else "NO"
    return item


def patient_orientation(row_direction: np.ndarray, column_direction: np.ndarray) -> list[str]:
    """Patient Orientation (PS3.3 C.7.6.1.1.1): letters of where rows and columns lead, the strongest first."""
    return ["".join(_letters(direction)) for direction in (row_direction, column_direction)]


def _letters(direction: np.ndarray) -> Iterator[str]:
    for axis in np.argsort(-np.abs(direction), kind="stable"):
        if abs(direction[axis]) > _LEAST_COMPONENT:
            yield _AXES[axis][0 if direction[axis] > 0 else 1]
