"""A CT series as Hounsfield units in patient space.

Slices keep their own positions: a gantry tilt is a shear, unequal steps are unequal, and neither is straightened here.
All vectors and positions are in the patient coordinate system (LPS: to the left, to the back, to the head), in mm;
PS3.3 C.7.6.2.1.1.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException

from inference import codecs, codestream
from inference.elements import distinct, floats, integer, name, numbers, text
from inference.refusal import Refused

FEWEST_SLICES = 10
DIRECTION_TOLERANCE = 1e-3  # between the direction cosines of two slices
SPACING_TOLERANCE = 1e-3  # mm, between the pixel spacings of two slices
SAME_POSITION = 0.1  # mm along the normal; the thinnest slices of head CT lie 0.3 mm apart
STEEPEST_NORMAL = 30.0  # degrees from the head-foot axis
LARGEST_SIDE, MOST_VOXELS = 4096, 500_000_000  # pixels; two gigabytes as float32
AIR = -1000.0
THINNEST = -1024.0  # nothing is thinner than vacuum; some scanners write -2000 or -3024 outside the field of view

# What pydicom and its decoder plugins raise over pixels that are missing, cut short or not what the header says.
DECODING_ERRORS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

codecs.register()


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A CT series, one plane per instance, ascending along the normal.

    hu: (slices, rows, columns) float32, Hounsfield units; padding is air.
    positions: (slices, 3) float64, centre of the first voxel of each slice.
    row_direction: (3,) unit vector of increasing column index; column_direction: of increasing row index.
    pixel_spacing: (between rows, between columns); slice_thickness: median over the slices.
    order: order[i] is the index in the given data sets of slice i.
    """

    hu: np.ndarray
    positions: np.ndarray
    row_direction: np.ndarray
    column_direction: np.ndarray
    pixel_spacing: tuple[float, float]
    slice_thickness: float
    order: tuple[int, ...]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slices, row_direction x column_direction; towards the head or towards the feet."""
        return np.cross(self.row_direction, self.column_direction)

    @property
    def offsets(self) -> np.ndarray:
        """(slices,) mm along the normal, ascending."""
        offsets: np.ndarray = self.positions @ self.normal
        return offsets

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the line along which the slices are stacked; 0 without a gantry tilt."""
        line = self.positions[-1] - self.positions[0]
        return float(np.degrees(np.arccos(np.clip(line @ self.normal / np.linalg.norm(line), -1.0, 1.0))))


def from_slices(datasets: Sequence[Dataset], fewest: int = FEWEST_SLICES) -> Volume:
    """Single-frame CT instances, in any order, to a volume. Raises Refused, with the reason in words."""
    _check_kind(datasets, fewest)
    orientation, spacing = _common_geometry(datasets)
    row_direction, column_direction = _directions(orientation)
    normal = np.cross(row_direction, column_direction)
    positions = np.array([numbers(ds, "ImagePositionPatient", 3) for ds in datasets])
    offsets = positions @ normal
    order = tuple(int(i) for i in np.argsort(offsets, kind="stable"))  # never by Instance Number
    _check_positions(offsets[list(order)])
    return Volume(
        hu=np.stack([hounsfield(datasets[i]) for i in order]),
        positions=positions[list(order)],
        row_direction=row_direction,
        column_direction=column_direction,
        pixel_spacing=(float(spacing[0]), float(spacing[1])),
        slice_thickness=_slice_thickness(datasets, offsets),
        order=order,
    )


def hounsfield(ds: Dataset) -> np.ndarray:
    """The pixels of one instance, (rows, columns) float32 in HU, with padding made air before anything else."""
    slope, intercept = _rescale(ds)
    refuse_bomb(ds)
    try:
        stored = ds.pixel_array
    except DECODING_ERRORS as error:
        # The cause goes to the log; it speaks of plugins and bytes.
        raise Refused(
            "truncated", f"the pixels of image {name(ds)} cannot be decoded; send the series again"
        ) from error
    hu = _significant_bits(ds, stored).astype(np.float32) * np.float32(slope) + np.float32(intercept)
    hu[_padding(ds, stored)] = AIR
    if not np.isfinite(hu).all():
        raise Refused("no-rescale", f"image {name(ds)} has values beyond all numbers (Rescale Slope and Intercept)")
    hu[hu < THINNEST] = AIR
    return hu


def refuse_bomb(ds: Dataset) -> None:
    """A stream that says another size than its header would be given memory for what it says."""
    try:
        syntax, pixels = ds.file_meta.TransferSyntaxUID, ds.get("PixelData")
        said = codestream.size(next(generate_frames(pixels, number_of_frames=1))) if syntax.is_encapsulated else None
    except DECODING_ERRORS:
        return  # decoding says it better
    rows, columns = _matrix(ds)
    if said not in (None, (rows, columns)):
        raise Refused(
            "truncated",
            f"the pixels of image {name(ds)} are {said[0]} x {said[1]}, its header says {rows} x {columns}",
        )


def _check_kind(datasets: Sequence[Dataset], fewest: int) -> None:
    for ds in datasets:
        if (modality := text(ds, "Modality")) != "CT":
            raise Refused("wrong-modality", f"the series is {modality or 'of no modality'}; a CT series is needed")
        if integer(ds, "NumberOfFrames", 1) != 1:
            raise Refused("unsupported-class", f"image {name(ds)} holds several frames; one slice per image is needed")
        # MONOCHROME1 inverts the display alone: the rescale still gives Hounsfield units (PS3.3 C.11.1).
        photometric = text(ds, "PhotometricInterpretation", "MONOCHROME2")
        if not photometric.startswith("MONOCHROME"):
            raise Refused(
                "unsupported-class",
                f"image {name(ds)} is stored as {photometric}; measured grey values are needed",
            )
    if len(datasets) < fewest:
        slices = "1 slice" if len(datasets) == 1 else f"{len(datasets)} slices"
        raise Refused("too-few-slices", f"the series holds {slices}; at least {fewest} are needed")


def _common_geometry(datasets: Sequence[Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Image Orientation (Patient) and Pixel Spacing of all slices, refused unless they are one."""
    cosines = partial(numbers, keyword="ImageOrientationPatient", count=6)
    orientation = _same(datasets, "orientation", cosines, DIRECTION_TOLERANCE)
    spacing = _same(datasets, "pixel spacing", partial(numbers, keyword="PixelSpacing", count=2), SPACING_TOLERANCE)
    rows, columns = _same(datasets, "matrix", _matrix, 0)
    if min(rows, columns) < 2 or max(rows, columns) > LARGEST_SIDE or rows * columns * len(datasets) > MOST_VOXELS:
        size = f"{len(datasets)} images of {rows} x {columns} pixels"
        raise Refused("unsupported-class", f"the series holds {size}, which no CT of a head does")
    if len(frames := distinct(datasets, "FrameOfReferenceUID")) > 1:
        raise Refused("mixed-geometry", f"the images belong to {len(frames)} frames of reference; one is needed")
    if spacing.min() <= 0:
        raise Refused("mixed-geometry", f"the pixel spacing {spacing.tolist()} mm is not a distance")
    return orientation, spacing


def _matrix(ds: Dataset) -> np.ndarray:
    return np.array([integer(ds, "Rows", 0), integer(ds, "Columns", 0)])


def _same(datasets: Sequence[Dataset], what: str, of: Callable[[Dataset], np.ndarray], tolerance: float) -> np.ndarray:
    first = of(datasets[0])
    for ds in datasets[1:]:
        if np.abs((found := of(ds)) - first).max() > tolerance:
            raise Refused(
                "mixed-geometry",
                f"the images differ in {what}: {first.tolist()} in image {name(datasets[0])}, "
                f"{found.tolist()} in image {name(ds)}",
            )
    return first


def _directions(orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column direction, made orthonormal; refused when the slices do not lie across the head."""
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(row @ column) > DIRECTION_TOLERANCE or max(abs(length - 1.0) for length in lengths) > DIRECTION_TOLERANCE:
        raise Refused("mixed-geometry", f"the orientation {orientation.tolist()} is not two perpendicular unit vectors")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    angle = np.degrees(np.arccos(min(1.0, abs(np.cross(row, column)[2]))))
    if angle > STEEPEST_NORMAL:
        raise Refused(
            "oblique",
            f"the slices lie {angle:.0f} degrees off the axial plane; at most {STEEPEST_NORMAL:.0f} are possible",
        )
    return row, column


def _check_positions(ascending: np.ndarray) -> None:
    steps = np.diff(ascending)
    if steps.min() < SAME_POSITION:
        where = ascending[int(steps.argmin())]
        raise Refused(
            "mixed-geometry",
            f"two images lie at the same position, {where:.1f} mm along the normal; one image per position is needed",
        )


def _slice_thickness(datasets: Sequence[Dataset], offsets: np.ndarray) -> float:
    stated = [
        thickness[0] for ds in datasets if len(thickness := floats(ds, "SliceThickness")) == 1 and thickness[0] > 0
    ]
    return float(np.median(stated)) if stated else float(np.median(np.diff(np.sort(offsets))))


def _rescale(ds: Dataset) -> tuple[float, float]:
    slope, intercept = floats(ds, "RescaleSlope"), floats(ds, "RescaleIntercept")
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0.0:
        raise Refused(
            "no-rescale",
            f"image {name(ds)} does not say how its values become Hounsfield units (Rescale Slope and Intercept)",
        )
    return slope[0], intercept[0]


def _significant_bits(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values, sign extended, without what old scanners keep in unused high bits; PS3.5 section 8.1.1."""
    width = stored.dtype.itemsize * 8
    bits = integer(ds, "BitsStored")
    high = integer(ds, "HighBit", bits - 1)
    if bits >= width:
        return stored
    if not 0 < bits <= high + 1 <= width:
        raise Refused("not-dicom", f"image {name(ds)} keeps {bits} bits up to bit {high}, which cannot be")
    shifted: np.ndarray = np.right_shift(np.left_shift(stored, width - 1 - high), width - bits)
    return shifted


def _padding(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """Where the scanner stored no measurement; PS3.3 C.7.5.1.1.2. The limit may lie on either side of the value."""
    if not floats(ds, "PixelPaddingValue"):
        return np.zeros(stored.shape, bool)
    value = integer(ds, "PixelPaddingValue")
    limit = integer(ds, "PixelPaddingRangeLimit", value)
    # A value written with the wrong sign (63536 for -2000) means the same stored bits.
    low, high = sorted(int(np.array(v).astype(stored.dtype)) for v in (value, limit))
    return (stored >= low) & (stored <= high)
