"""Colour Secondary Capture: one per slice and map, for every viewer there is (PS3.3 A.8.1).

The frame of reference, position and orientation of the slice are added although the IOD has no such module: a Standard
Extended SOP Class, by which viewers sort the captures like the CT and link their scrolling.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache, partial
from math import ceil

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode import MODEL_NAME
from dicomnode.writer import burn, codes, common
from dicomnode.writer.palette import colour
from dicomnode.writer.study import Study
from inference.maps import MapKind, PerfusionMap

FIRST_SERIES_NUMBER = 9001
SMALLEST_MATRIX = 512  # below it lettering of 13 pixels no longer fits beside the head
_AXES = ("LR", "PA", "HF")  # letters of the positive and negative direction of each patient axis (LPS)
_LEAST_COMPONENT = 0.05  # of a direction that earns a letter in Patient Orientation: 3 degrees


def write(study: Study, perfusion_map: PerfusionMap, brain: np.ndarray, indices: Sequence[int]) -> Iterator[Dataset]:
    """The captures of one map for the slices named, in that order.

    brain: (slices, rows, columns) bool.
    """
    kind = perfusion_map.kind
    factor = enlargement(study.volume.hu.shape[1:])
    template = _template(study, kind, factor)
    overlay = cache(partial(_overlay, study, kind, (template.Rows, template.Columns)))
    for index in indices:
        rgb = enlarged(colour(perfusion_map.values[index], kind.ceiling, brain[index]), factor)
        overlay(not brain[index].any()).onto(rgb)
        ds = deepcopy(template)
        ds.InstanceNumber = index + 1
        _place(ds, study.source[index], factor)
        ds.SourceImageSequence = [_reference(study.source[index], factor)]
        ds.PixelData = rgb.tobytes()
        yield common.finish(ds, SecondaryCaptureImageStorage, study.uid("sc", kind.name, index), study.software_version)


def enlargement(shape: tuple[int, ...]) -> int:
    """The integer by which a matrix (rows, columns) is enlarged so that the lettering can be read."""
    return ceil(SMALLEST_MATRIX / min(shape))


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel repeated `factor` times along rows and columns."""
    return image if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def _template(study: Study, kind: MapKind, factor: int) -> Dataset:
    """What all captures of one map share."""
    ds = common.base(study)
    ds.SeriesInstanceUID = study.uid("sc", kind.name, "series")
    ds.SeriesNumber = common.series_number(FIRST_SERIES_NUMBER, kind)
    ds.SeriesDescription = common.series_description(study, kind)
    ds.Modality, ds.ConversionType = "OT", "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.ImageComments = f"{common.DISCLAIMER}. {common.NOT_AN_EXCLUSION}"
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "YES", "NO"
    ds.DerivationDescription = common.derivation(study, kind)
    ds.DerivationCodeSequence = [deepcopy(codes.SYNTHETIC_PERFUSION)]
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.SecondaryCaptureDeviceManufacturer = ds.Manufacturer
    ds.SecondaryCaptureDeviceManufacturerModelName = ds.ManufacturerModelName
    ds.SecondaryCaptureDeviceSoftwareVersions = ds.SoftwareVersions
    if study.frame_of_reference_uid:
        ds.FrameOfReferenceUID = study.frame_of_reference_uid
        ds.PositionReferenceIndicator = study.source[0].get("PositionReferenceIndicator") or None
    ds.PatientOrientation = patient_orientation(study.volume.row_direction, study.volume.column_direction)
    _, rows, columns = study.volume.hu.shape
    ds.Rows, ds.Columns = rows * factor, columns * factor
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    return ds


def _place(ds: Dataset, source: Dataset, factor: int) -> None:
    """The plane of the source slice; where it is enlarged, the centre of the first pixel moves by part of a pixel."""
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


def _reference(source: Dataset, factor: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [deepcopy(codes.SOURCE_IMAGE)]
    item.SpatialLocationsPreserved = "YES" if factor == 1 else "NO"
    return item


def patient_orientation(row_direction: np.ndarray, column_direction: np.ndarray) -> list[str]:
    """Patient Orientation (PS3.3 C.7.6.1.1.1): letters of where rows and columns lead, the strongest first."""
    return ["".join(_letters(direction)) for direction in (row_direction, column_direction)]


def _letters(direction: np.ndarray) -> Iterator[str]:
    for axis in np.argsort(-np.abs(direction), kind="stable"):
        if abs(direction[axis]) > _LEAST_COMPONENT:
            yield _AXES[axis][0 if direction[axis] > 0 else 1]


def _overlay(study: Study, kind: MapKind, shape: tuple[int, int], empty: bool) -> burn.Overlay:
    """The lettering of one map: what it is, what it is not, which side is which, what a colour means, who made it.

    shape: (rows, columns) of the capture; empty: for the slices without brain, which say so.
    """
    sheet = burn.Sheet(*shape)
    sheet.stack(0.5, 0.05, [burn.Line(common.DISCLAIMER, 20, burn.YELLOW), *_cautions(study)])
    sheet.stack_up(0.03, 0.86, 0.27, [burn.Line(text, 12, burn.ORANGE) for text in study.warnings], "la")
    sheet.stack_up(0.5, 0.98, 0.94, _footer(study, kind))
    if empty:
        sheet.text(0.5, 0.5, burn.Line("no map in this slice", 15, burn.GREY))
    burn.sides(sheet, study.volume.row_direction, study.volume.column_direction)
    sheet.bar(bar(study, kind))
    return sheet.overlay()


def _cautions(study: Study) -> Iterator[burn.Line]:
    if study.manifest.training_domain == "untrained":
        yield burn.Line("UNTRAINED: random weights, no meaning", 18, burn.RED)
    if study.manifest.training_domain == "virtual":
        yield burn.Line("TRAINED ON SIMULATED DATA", 15, burn.ORANGE)
    if study.simulated_input:
        yield burn.Line("SIMULATED PATIENT", 15, burn.ORANGE)


def _footer(study: Study, kind: MapKind) -> list[burn.Line]:
    manifest, stamp = study.manifest, study.written_at
    revision = f"rev {study.revision}, replaces rev {study.supersedes}" if study.supersedes else f"rev {study.revision}"
    return [
        burn.Line(common.DISCLAIMER, 17, burn.YELLOW),
        burn.Line(common.NOT_AN_EXCLUSION, 14),
        burn.Line(f"{kind.title}, {manifest.name} {manifest.version}", 12, burn.GREY),
        burn.Line(f"{MODEL_NAME} {study.software_version}, {revision}, {stamp:%Y-%m-%d %H:%M %Z}", 12, burn.GREY),
    ]


def bar(study: Study, kind: MapKind) -> burn.Bar:
    """The scale of a map: numbers in its unit, the last one ">=", or only low and high where units are relative."""
    if study.manifest.units == "relative":
        return burn.Bar(kind.name, codes.ARBITRARY_UNIT, ("low", "high"))
    steps = next((n for n in (4, 5, 3, 6) if kind.ceiling / n % 0.5 == 0), 4)
    ticks = [f"{kind.ceiling * i / steps:g}" for i in range(steps + 1)]
    return burn.Bar(kind.name, kind.unit, (*ticks[:-1], f">={ticks[-1]}"))
