"""An enhanced CT instance as the single slices it stands for (PS3.3 A.38 and A.70).

What classic CT says of a slice, enhanced CT says in functional groups, once for all frames or for each: the items of
all groups are laid out flat, so that whoever reads slices need not know the difference.
"""

from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, LegacyConvertedEnhancedCTImageStorage

from inference.elements import integer
from inference.refusal import Refused
from inference.volume import DECODING_ERRORS, MOST_VOXELS, refuse_bomb

ENHANCED = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
NOT_OF_A_FRAME = (SHARED, PER_FRAME, "NumberOfFrames", "PixelData")
# What a functional group calls otherwise than a classic image does.
ACQUISITION = "FrameAcquisitionNumber"
MIXED = "MIXED"  # value of Image Type where it differs from frame to frame


def of(ds: Dataset) -> list[Dataset]:
    """The slices of an instance: itself where it is a classic one, else one data set for each frame.

    Each frame keeps class and UID of its instance and says which it is by Referenced Frame Number. Frames of an
    instance read with its pixels have pixels, uncompressed. Raises Refused where these cannot be decoded.
    """
    if ds.SOPClassUID not in ENHANCED:
        return [ds]
    groups = list(ds.get(PER_FRAME) or ())
    if not groups:
        raise Refused("mixed-geometry", "the enhanced CT image does not say where its frames lie")
    frames = list(_flat(ds, groups))
    if "PixelData" in ds:
        _share_pixels(ds, frames)
    return frames


def _flat(ds: Dataset, groups: list[Dataset]) -> Iterator[Dataset]:
    common = [element for element in ds if element.keyword not in NOT_OF_A_FRAME]
    common += [element for group in ds.get(SHARED) or () for element in _elements(group)]
    for number, group in enumerate(groups, start=1):
        frame = Dataset()
        for element in (*common, *_elements(group)):
            frame[element.tag] = element
        _set(frame, InstanceNumber=number, ReferencedFrameNumber=number)
        if "FrameType" in frame and (MIXED in (frame.get("ImageType") or MIXED)):
            _set(frame, ImageType=frame.FrameType)
        if ACQUISITION in frame:
            _set(frame, AcquisitionNumber=frame[ACQUISITION].value)
        _name_anatomy(frame)
        _time(frame)
        frame.file_meta = FileMetaDataset()
        frame.file_meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
        yield frame


def _elements(group: Dataset) -> Iterator[DataElement]:
    """The elements of the first item of each macro; what has more items (references) says nothing of the slice."""
    for macro in group:
        if macro.VR == "SQ" and len(macro.value) == 1:
            yield from macro.value[0]


def _set(frame: Dataset, **values: object) -> None:
    """Give a frame elements of its own: those it has are shared with the others."""
    for keyword, value in values.items():
        if keyword in frame:
            del frame[keyword]
        setattr(frame, keyword, value)


def _name_anatomy(frame: Dataset) -> None:
    regions = frame.get("AnatomicRegionSequence")
    if regions and not frame.get("BodyPartExamined"):
        _set(frame, BodyPartExamined=str(regions[0].get("CodeMeaning") or "").upper()[:16])


def _time(frame: Dataset) -> None:
    moment = str(frame.get("FrameAcquisitionDateTime") or "")
    if len(moment) >= 14 and not frame.get("AcquisitionTime"):
        _set(frame, AcquisitionDate=moment[:8], AcquisitionTime=moment[8:].split("+")[0].split("-")[0])


def _share_pixels(ds: Dataset, frames: list[Dataset]) -> None:
    counted, rows, columns = (integer(ds, keyword, 0) for keyword in ("NumberOfFrames", "Rows", "Columns"))
    if counted != len(frames) or rows * columns * counted > MOST_VOXELS:
        size = f"{counted} frames of {rows} x {columns} pixels and {len(frames)} places for them"
        raise Refused("truncated", f"the enhanced CT image has {size}, which cannot be")
    refuse_bomb(ds)
    try:
        stored = ds.pixel_array.reshape(counted, rows, columns)
    except DECODING_ERRORS as error:
        raise Refused(
            "truncated", "the frames of the enhanced CT image cannot be decoded; send the image again"
        ) from error
    for frame, pixels in zip(frames, stored, strict=True):  # they have none yet, so nothing shared is changed
        frame.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        frame.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
