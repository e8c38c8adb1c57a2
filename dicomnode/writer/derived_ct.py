"""Derived CT, one 16 bit image per slice and map: values in physical units for viewers that read nothing newer.

Stored values are unsigned and stay below 32768, so a reader that takes them for signed reads the same. Some viewers
print HU behind a value because the modality is CT; the series description says what it is.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
from highdicom.pm import RealWorldValueMapping
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.writer import codes, common, plane
from dicomnode.writer.study import Study
from inference.maps import MapKind, PerfusionMap

FIRST_SERIES_NUMBER = 9201
STEPS = 20_000  # stored values from 0 to the ceiling of the map
LARGEST = 32_767  # 1.6 times the ceiling; what would be larger is clipped
TYPE_2 = ("PatientPosition", "KVP", "AcquisitionNumber", "SliceThickness")  # the source's, or empty (PS3.3 C.8.2.1)


def possible(study: Study) -> bool:
    """Whether the study can have CT images: they must lie in a frame of reference (PS3.3 A.3.3)."""
    return study.frame_of_reference_uid is not None


def write(study: Study, perfusion_map: PerfusionMap, indices: Sequence[int]) -> Iterator[Dataset]:
    """The images of one map for the slices named, in that order."""
    kind = perfusion_map.kind
    stored = _stored(study, perfusion_map)
    template = _template(study, kind)
    for index in indices:
        ds, source = deepcopy(template), study.source[index]
        ds.InstanceNumber = index + 1
        plane.lay(ds, source)
        ds.SourceImageSequence = [plane.reference(source, same_grid=True)]
        ds.PixelData = stored[index].tobytes()
        yield common.finish(ds, CTImageStorage, study.uid("ct", kind.name, index), study.software_version)


def _stored(study: Study, perfusion_map: PerfusionMap) -> np.ndarray:
    """(slices, rows, columns) little endian uint16, with the word SYNTHETIC in the air."""
    scaled = perfusion_map.values * np.float32(STEPS / perfusion_map.kind.ceiling)
    stored = np.clip(scaled.round(), 0, LARGEST).astype("<u2")
    for word in study.words:
        word.onto(stored, STEPS)
    return stored


def _template(study: Study, kind: MapKind) -> Dataset:
    """What all images of one map share."""
    ds = common.base(study)
    ds.SeriesInstanceUID = study.uid("ct", kind.name, "series")
    ds.SeriesNumber = common.series_number(FIRST_SERIES_NUMBER, kind)
    ds.SeriesDescription = common.series_description(study, kind.name, f"{common.extent(study, kind)} CT".strip())
    ds.Modality, ds.ImageType = "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    ds.ImageComments = common.comments(study)
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    ds.DerivationDescription = common.derivation(study, kind.title)
    ds.DerivationCodeSequence = [deepcopy(codes.SYNTHETIC_PERFUSION)]
    plane.into_frame_of_reference(ds, study)
    ds.update(common.in_unicode(study.source[0], TYPE_2))
    for keyword in (keyword for keyword in TYPE_2 if keyword not in ds):
        setattr(ds, keyword, None)
    _, ds.Rows, ds.Columns = study.volume.hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    _scale(ds, study, kind)
    return ds


def _scale(ds: Dataset, study: Study, kind: MapKind) -> None:
    """From stored values to the unit of the map, and the range of display."""
    slope = kind.ceiling / STEPS
    (ds.RescaleSlope,) = common.decimals([slope])
    ds.RescaleIntercept, ds.RescaleType = 0, "US"  # unspecified: the modality has no word for the unit
    # LINEAR from 0 to the ceiling (PS3.3 C.11.2.1.2.1). Not LINEAR_EXACT: OHIF up to 3.13.2 shows nothing at all of an
    # image that has a VOI LUT Function.
    ds.WindowCenter, ds.WindowWidth = kind.ceiling / 2 + 0.5, kind.ceiling + 1
    ds.WindowCenterWidthExplanation = common.extent(study, kind) or "low to high"
    ds.RealWorldValueMappingSequence = [
        RealWorldValueMapping(
            lut_label=kind.name,
            lut_explanation=f"SYNTHETIC {kind.title}"[:64],
            unit=codes.unit(kind, study.manifest),
            value_range=(0, LARGEST),
            slope=slope,
            intercept=0.0,
            quantity_definition=codes.quantity(kind, study.manifest),
        )
    ]
