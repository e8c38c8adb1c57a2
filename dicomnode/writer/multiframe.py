"""What parametric maps and segmentations need of highdicom and around it: stand-ins for the source, order of frames.

highdicom sorts frames against the normal; web viewers and Slicer's reader lay frame i on slice i along it.
"""

from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from dicomnode.writer import common
from dicomnode.writer.study import Study


def stand_ins(study: Study) -> Iterator[Dataset]:
    """The source slices as far as highdicom needs them.

    Patient and study are left empty and filled in afterwards: highdicom refuses standard character sets of Japan and
    Korea, absent attributes of type 2 and values of Patient's Sex that hospitals do send.
    """
    for source in study.source:
        ds = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
            setattr(ds, keyword, source[keyword].value)
        ds.SeriesInstanceUID = study.source[0].SeriesInstanceUID
        for keyword in common.TYPE_2:
            setattr(ds, keyword, "")
        ds.FrameOfReferenceUID = study.frame_of_reference_uid
        ds.PositionReferenceIndicator = study.source[0].get("PositionReferenceIndicator") or None
        ds.ImagePositionPatient = common.decimals(source.ImagePositionPatient)
        ds.ImageOrientationPatient = common.decimals(study.source[0].ImageOrientationPatient)
        ds.PixelSpacing = common.decimals(study.source[0].PixelSpacing)
        ds.SliceThickness = study.volume.slice_thickness
        _, ds.Rows, ds.Columns = study.volume.hu.shape
        yield ds


def ascend(ds: Dataset, normal: np.ndarray) -> np.ndarray:
    """Put the functional groups into ascending order along the normal, segment by segment where there are segments.

    Returns (frames,) the former index of each frame, by which the pixels are to be ordered too.
    """
    groups = list(ds.PerFrameFunctionalGroupsSequence)
    segments = [_segment(group) for group in groups]
    positions = np.array([g.PlanePositionSequence[0].ImagePositionPatient for g in groups], float)
    _, place = np.unique((positions @ normal).round(3), return_inverse=True)
    order: np.ndarray = np.lexsort(np.stack([place, [segment or 0 for segment in segments]]))
    for group, segment, at in zip(groups, segments, place, strict=True):
        values = [int(at) + 1] if segment is None else [segment, int(at) + 1]
        group.FrameContentSequence[0].DimensionIndexValues = values
    ds.PerFrameFunctionalGroupsSequence = [groups[i] for i in order]
    return order


def _segment(group: Dataset) -> int | None:
    named = group.get("SegmentIdentificationSequence")
    return int(named[0].ReferencedSegmentNumber) if named else None


def complete(ds: Dataset, organization: UID) -> None:
    """Replace the random UID of the dimension organization, and fill a hole of type 2 (PS3.3 table 10-12).

    organization: a UID of the study, so that a second rendering is identical.
    """
    ds.ContentCreatorName = None
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in ds.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
