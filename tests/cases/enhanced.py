"""The slices of a series as one enhanced image: as a new scanner writes it, and as an archive converts it."""

from collections.abc import Sequence
from copy import deepcopy

from highdicom import UID
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage


def legacy_converted(slices: Sequence[Dataset]) -> Dataset:
    """Legacy Converted Enhanced CT, by a converter that is not ours."""
    return LegacyConvertedEnhancedCTImage(
        list(slices),
        series_instance_uid=UID.from_uuid("7c2c5e0e-6b8f-4c3a-9a52-0d6a3b0c0e02"),
        series_number=9,
        sop_instance_uid=UID.from_uuid("7c2c5e0e-6b8f-4c3a-9a52-0d6a3b0c0e01"),
        instance_number=1,
    )


def enhanced(slices: Sequence[Dataset]) -> Dataset:
    """Enhanced CT (PS3.3 A.38): what is the same for all frames is said once."""
    ds = deepcopy(slices[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared = Dataset()
    for keyword in MOVED:
        if keyword in ds:
            del ds[keyword]
    shared.PlaneOrientationSequence = [_item(slices[0], "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_item(slices[0], "PixelSpacing", "SliceThickness")]
    shared.CTReconstructionSequence = [_item(slices[0], "ConvolutionKernel")]
    shared.CTImageFrameTypeSequence = [_item(slices[0], ImageType="FrameType")]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame(each) for each in slices]
    ds.NumberOfFrames = len(slices)
    ds.PixelData = b"".join(each.PixelData for each in slices)
    return ds


MOVED = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "ConvolutionKernel"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "AcquisitionDate", "AcquisitionTime"),
)


def _frame(source: Dataset) -> Dataset:
    frame, content = Dataset(), Dataset()
    content.FrameAcquisitionDateTime = f"{source.AcquisitionDate}{source.AcquisitionTime}.000"
    content.FrameAcquisitionNumber = source.AcquisitionNumber
    frame.FrameContentSequence = [content]
    frame.PlanePositionSequence = [_item(source, "ImagePositionPatient")]
    frame.PixelValueTransformationSequence = [_item(source, "RescaleSlope", "RescaleIntercept", "RescaleType")]
    return frame


def _item(source: Dataset, *keywords: str, **renamed: str) -> Dataset:
    item = Dataset()
    for ours, theirs in (*((keyword, keyword) for keyword in keywords), *renamed.items()):
        if ours in source:
            setattr(item, theirs, source[ours].value)
    return item
