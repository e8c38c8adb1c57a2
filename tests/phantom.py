"""An asymmetric head as CT slices, with marks whose places are known; no patient, ever.

The head is a function of patient space (LPS, mm), so any slice geometry (tilt, unequal steps, feet first, prone,
lying on one side, foot-to-head or head-to-foot) samples the same head and the marks stay where the table says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True, slots=True)
class Mark:
    """A ball in patient space: centre and radius in mm (LPS), value in HU."""

    name: str
    centre: tuple[float, float, float]
    radius: float
    hu: float


MARKS = (
    Mark("left upper", (34.0, -10.0, 34.0), 11.0, 72.0),
    Mark("right lower", (-38.0, 22.0, -6.0), 13.0, 8.0),
    Mark("left front lower", (22.0, -42.0, -2.0), 9.0, 60.0),
)

# PatientPosition -> direction of increasing column index, direction of increasing row index (LPS).
# Supine, prone and the two decubitus positions as an axial scanner reconstructs them, head first and feet first.
POSITIONS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, 1, 0), (1, 0, 0)),
    "FFDL": ((0, -1, 0), (-1, 0, 0)),
}


def hu_at(points: np.ndarray) -> np.ndarray:
    """HU of the head at points (..., 3) in LPS mm: scalp, skull, grey rim, white core, ventricles, marks."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2] - 5.0
    r = np.sqrt((x / 72) ** 2 + (y / 88) ** 2 + (z / 74) ** 2)  # 1 on the inner table
    hu = np.full(r.shape, -1000.0)
    hu[r < 1.17] = 40.0
    hu[r < 1.12] = 1100.0
    hu[r < 1.0] = 9.0
    hu[r < 0.96] = 38.0
    hu[r < 0.80] = 29.0
    hu[np.hypot((np.abs(x) - 12) / 7, (y + 2) / 26) + np.abs(z - 8) / 18 < 1] = 7.0
    for mark in MARKS:
        distance = np.linalg.norm(points - np.array(mark.centre), axis=-1)
        hu[distance < mark.radius] = mark.hu
    return hu


def even(slices: int, step: float = 5.0, first: float = -60.0) -> list[float]:
    """Positions of slice centres along patient z, in mm."""
    return [first + step * i for i in range(slices)]


def head(
    z: Sequence[float] = tuple(even(26)),
    *,
    matrix: int = 128,
    field_of_view: float = 220.0,
    tilt_degrees: float = 0.0,
    patient_position: str = "HFS",
    head_to_foot: bool = False,
    thickness: float = 5.0,
    noise: float = 2.0,
    seed: int = 1,
    rescale: tuple[float, float] = (1.0, -1024.0),
    size: float = 1.0,
) -> list[Dataset]:
    """The head as CT Image Storage instances; a tilt turns the planes while the table still steps along z.

    size: of the head, in parts of the one whose marks stand in the table.
    """
    study, series, frame = (
        generate_uid(entropy_srcs=["phantom", str(seed), level]) for level in ("study", "series", "frame")
    )
    row, column = (np.array(axis, float) for axis in POSITIONS[patient_position])
    turn = _rotation_about_left(tilt_degrees)
    row, column = turn @ row, turn @ column
    spacing = field_of_view / matrix
    index = (np.arange(matrix) - (matrix - 1) / 2) * spacing
    plane = index[None, :, None] * row + index[:, None, None] * column
    rng = np.random.default_rng(seed)
    slices = []
    for number, height in enumerate(sorted(z, reverse=head_to_foot), start=1):
        centre = np.array([0.0, 0.0, height])
        hu = hu_at((plane + centre) / size)
        hu = hu + noise * rng.standard_normal(hu.shape) * (hu > -900)
        ds = header(study, series, frame, number)
        ds.PatientPosition = patient_position
        ds.GantryDetectorTilt = tilt_degrees
        ds.ImageOrientationPatient = [float(v) for v in (*row, *column)]
        ds.ImagePositionPatient = [float(v) for v in centre + plane[0, 0]]
        ds.PixelSpacing = [spacing, spacing]
        ds.SliceThickness = thickness
        set_pixels(ds, hu, rescale)
        slices.append(ds)
    return slices


def _rotation_about_left(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def set_pixels(ds: Dataset, hu: np.ndarray, rescale: tuple[float, float] = (1.0, -1024.0)) -> None:
    """Store HU as signed 16 bit words under the given slope and intercept."""
    slope, intercept = rescale
    stored = np.clip(np.round((hu - intercept) / slope), -32768, 32767).astype("<i2")
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept, "HU"
    ds.PixelData = stored.tobytes()


def header(study: str, series: str, frame: str, number: int, when: datetime = datetime(2026, 3, 2, 8, 30)) -> Dataset:
    """What a scanner writes around the pixels of one head CT slice."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    uid = generate_uid(entropy_srcs=[series, str(number)])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = when.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = when.strftime("%H%M%S")
    ds.StudyID, ds.AccessionNumber, ds.StudyDescription = "PH1", "PHANTOM1", "CT head"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = (
        "Phantom^Asymmetric",
        "PHANTOM-1",
        "19600101",
        "O",
    )
    ds.PatientAge, ds.ReferringPhysicianName = "066Y", "Referrer^Test"
    ds.Modality, ds.Manufacturer, ds.BodyPartExamined = "CT", "Test scanner", "HEAD"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 2, number, 1
    ds.SeriesDescription, ds.ProtocolName = "Head 5 mm", "Head routine"
    ds.KVP, ds.ConvolutionKernel, ds.PositionReferenceIndicator = 120, "H31s", ""
    return ds
