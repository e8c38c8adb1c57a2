"""Colour captures of a console as values, placed by their own geometry or by the slices they were made from."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from inference.maps import KINDS, MapKind
from inference.volume import DECODING_ERRORS
from training.cohort import Rejected, colours
from training.cohort.lattice import FEWEST_SLICES, Frame, Placed, stack, whole
from training.cohort.series import Series

SAME_HEIGHT = 0.5  # mm between the Slice Location of a capture and that of the slice it was made from
LOSSY = "01"  # Lossy Image Compression; PS3.3 C.7.6.1.1.5


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Style:
    """How a site's console draws one kind. ceiling: the value at the top of its bar, in the unit of the kind.

    table: a file of colours, low to high; empty to read the bar that is burned in.
    """

    ceiling: float
    table: str = ""


@dataclass(frozen=True, slots=True)
class Styles:
    """The styles of a site, and the folder that the names of tables start from; a kind without one ends at its ceiling.

    Ceilings of kinds that are not named are those of inference.maps.
    """

    of: Mapping[str, Style] = field(default_factory=dict)
    folder: Path = Path()

    def ceiling(self, kind: MapKind) -> float:
        """The value of the highest colour."""
        return self.of[kind.name].ceiling if kind.name in self.of else kind.ceiling

    def table(self, kind: MapKind) -> np.ndarray | None:
        """(256, 3) RGB of a file, None where the bar is to be read."""
        style = self.of.get(kind.name)
        return colours.read_table(self.folder / style.table) if style and style.table else None


def read_styles(path: Path | None) -> Styles:
    """A TOML file with a table for each kind ([CBF] ceiling = 60.0, table = "cbf.csv"); ValueError if it is wrong."""
    if path is None:
        return Styles()
    try:
        styles = TypeAdapter(dict[str, Style]).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as problem:
        raise ValueError(f"{path}: {problem}") from problem
    if unknown := sorted(set(styles) - set(KINDS)):
        raise ValueError(f"{path} names {', '.join(unknown)}; the kinds are {', '.join(KINDS)}")
    found = Styles(styles, path.parent)
    for name in styles:
        found.table(KINDS[name])  # read once now, so that a mistake is told before any study
    return found


def read_captures(series: Series, lenders: Sequence[Series], styles: Styles) -> Placed:
    """Colour captures, placed by their own geometry or by the slices they were made from."""
    kind, datasets = KINDS[series.kind], whole(series)
    rgb = _colours(series, datasets)
    table = styles.table(kind)
    bar = colours.find_bar(rgb) if table is None else None
    level = colours.levels(rgb, bar.table if bar else table)  # type: ignore[arg-type]  # one of the two is there
    if bar:
        level[:, bar.where] = np.nan
    values = level * np.float32(styles.ceiling(kind) / (colours.LEVELS - 1))
    sources, lender = _sources(series, datasets, lenders)
    frames = [
        Frame(
            plane,
            np.array([float(v) for v in ds.ImagePositionPatient]),
            np.array([float(v) for v in ds.ImageOrientationPatient]),
            (float(ds.PixelSpacing[0]), float(ds.PixelSpacing[1])),
            float(ds.get("SliceThickness") or 0.0),
        )
        for plane, ds in zip(values, sources, strict=True)
    ]
    return Placed(kind, stack(frames, series), lender.frame_of_reference, tuple(_warnings(series, datasets, lender)))


def _warnings(series: Series, datasets: Sequence[Dataset], lender: Series) -> list[str]:
    found = []
    if any(ds.get("LossyImageCompression") == LOSSY for ds in datasets):
        found.append(f"{series} was compressed with loss; its colours are less certain")
    if lender is not series:
        found.append(f"{series} has no geometry of its own; place and sides are those of {lender}")
    return found


def _colours(series: Series, datasets: Sequence[Dataset]) -> np.ndarray:
    """(slices, rows, columns, 3) uint8 of captures that are one picture each, all of one size."""
    if len(datasets) < FEWEST_SLICES or len({(ds.Rows, ds.Columns) for ds in datasets}) > 1:
        raise Rejected(f"{series} holds {len(datasets)} captures, too few or of different sizes; a mosaic is not cut")
    if any(int(ds.get("NumberOfFrames") or 1) != 1 for ds in datasets):
        raise Rejected(f"{series} holds several frames in one capture; one slice per image is needed")
    try:
        pictures = [_rgb(ds) for ds in datasets]
    except DECODING_ERRORS as problem:
        raise Rejected(f"{series} cannot be decoded: {type(problem).__name__}") from problem
    if any(picture.ndim != 3 or picture.dtype != np.uint8 for picture in pictures):
        raise Rejected(f"{series} is {datasets[0].PhotometricInterpretation}; colours of 8 bits are needed")
    return np.stack(pictures)


def _rgb(ds: Dataset) -> np.ndarray:
    pixels = pixel_array(ds)  # YBR becomes RGB there
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        coloured: np.ndarray = apply_color_lut(pixels, ds)
        return (coloured >> 8).astype(np.uint8) if coloured.dtype == np.uint16 else coloured
    return pixels


def _sources(series: Series, datasets: Sequence[Dataset], lenders: Sequence[Series]) -> tuple[list[Dataset], Series]:
    """For each capture the header that places it, and the series that lends it."""
    if all(ds.get("ImagePositionPatient") and ds.get("PixelSpacing") for ds in datasets):
        return list(datasets), series
    if not all(_number(ds) is not None for ds in datasets):
        raise Rejected(f"{series} has neither Image Position (Patient) nor Slice Location; its place is unknown")
    for lender in lenders:
        slices = [ds for _, ds in lender.files if (ds.Rows, ds.Columns) == (datasets[0].Rows, datasets[0].Columns)]
        found = [_at(slices, _number(ds)) for ds in datasets]
        if all(found):
            sources = [source for source in found if source is not None]
            _check_sides(series, datasets, sources)
            return sources, lender
    raise Rejected(
        f"{series} has no geometry, and neither the perfusion nor the head CT has slices of "
        f"{datasets[0].Rows} x {datasets[0].Columns} pixels at its Slice Locations"
    )


def _at(slices: Sequence[Dataset], height: float | None) -> Dataset | None:
    """The slice whose Slice Location is nearest, if near enough."""
    placed = [(abs(place - height), ds) for ds in slices if (place := _number(ds)) is not None and height is not None]
    distance, ds = min(placed, key=lambda pair: pair[0], default=(np.inf, None))
    return ds if distance <= SAME_HEIGHT else None


def _number(ds: Dataset) -> float | None:
    value = ds.get("SliceLocation")
    return None if value in (None, "") else float(value)


def _check_sides(series: Series, captures: Sequence[Dataset], sources: Sequence[Dataset]) -> None:
    """Raise Rejected where captures say that their rows or columns run another way than those of their source."""
    for capture, source in zip(captures, sources, strict=True):
        said = list(capture.get("PatientOrientation") or ())
        cosines = np.array([float(v) for v in source.ImageOrientationPatient]).reshape(2, 3)
        runs = [_towards(line) for line in cosines]
        if len(said) == 2 and [letters[:1] for letters in said] != runs:
            raise Rejected(f"{series} says Patient Orientation {'/'.join(said)}, its source slice {'/'.join(runs)}")


def _towards(direction: np.ndarray) -> str:
    """The letter of the main direction of a line: L or R, P or A, H or F."""
    axis = int(np.abs(direction).argmax())
    return ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]
