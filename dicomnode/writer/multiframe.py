"""What parametric maps and segmentations need of highdicom and around it: stand-ins for the source, order of frames.

highdicom sorts frames against the normal; web viewers and Slicer's reader lay frame i on slice i along it.
"""

from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from dicomnode.writer import common
from dicomnode.writer.study import Study

FRAME = "ReferencedFrameNumber"  # of a source that is a frame of an enhanced image


def stand_ins(study: Study) -> Iterator[Dataset]:
    """The source slices as far as highdicom needs them.

    Patient and study are left empty and filled in afterwards: highdicom refuses standard character sets of Japan and
    Korea, absent attributes of type 2 and values of Patient's Sex that hospitals do send. A frame of an enhanced image
    passes for a classic one, until `name_frames`: highdicom takes one enhanced image whole, in the order of its frames.
    """
    for source in study.source:
        ds = Dataset()
        ds.StudyInstanceUID = source.StudyInstanceUID
        ds.SOPClassUID = CTImageStorage if FRAME in source else source.SOPClassUID
        ds.SOPInstanceUID = _stand_in_uid(study, source)
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


def _stand_in_uid(study: Study, source: Dataset) -> UID:
    return study.uid("frame", "source", str(source[FRAME].value)) if FRAME in source else UID(source.SOPInstanceUID)


def name_frames(ds: Dataset, study: Study) -> None:
    """Where stand-ins of frames are referred to, name the enhanced image, and the frame where one place is meant."""
    of = {_stand_in_uid(study, source): source for source in study.source if FRAME in source}
    for element in ds.iterall() if of else ():
        if element.VR != "SQ":
            continue
        for item in element.value:
            if (source := of.get(item.get("ReferencedSOPInstanceUID"))) is not None:
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
                item.ReferencedFrameNumber = source.ReferencedFrameNumber
        if element.keyword == "ReferencedInstanceSequence":  # of a series: each instance once, and whole
            once = {item.ReferencedSOPInstanceUID: item for item in element.value}
            for item in once.values():
                del item.ReferencedFrameNumber
            element.value = list(once.values())


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


def complete(ds: Dataset, study: Study, organization: UID) -> None:
    """Replace the random UID of the dimension organization, and fill a hole of type 2 (PS3.3 table 10-12).

    organization: a UID of the study, so that a second rendering is identical.
    """
    name_frames(ds, study)
    ds.ContentCreatorName = None
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in ds.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
