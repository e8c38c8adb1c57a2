"""A picture of what a radiologist finds in the PACS: the source slice beside its five maps."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from pydicom import Dataset

TILE = 384  # pixels; small enough for a page, large enough to read the burned-in text
ROWS = 4
WINDOW = (0.0, 80.0)  # HU


def contact_sheet(source: Sequence[Dataset], received: Sequence[Dataset]) -> Image.Image:
    """Rows: slices from the lower to the upper brain. Columns: the source CT, then each series of secondary captures.

    Slices and captures are matched by Image Position (Patient), as a viewer would.
    """
    captures = {(ds.SeriesNumber, _place(ds)): ds for ds in received if ds.get("PhotometricInterpretation") == "RGB"}
    series = sorted({number for number, _ in captures})
    placed = [ds for ds in sorted(source, key=_height) if all((number, _place(ds)) in captures for number in series)]
    if not placed or not series:
        raise ValueError("no secondary capture lies where a source slice does")
    chosen = [placed[round(i)] for i in np.linspace(0.3, 0.8, ROWS) * (len(placed) - 1)]
    sheet = Image.new("RGB", (TILE * (1 + len(series)), TILE * ROWS))
    for row, ds in enumerate(chosen):
        tiles = [_grey(ds), *(Image.fromarray(captures[number, _place(ds)].pixel_array) for number in series)]
        for column, tile in enumerate(tiles):
            sheet.paste(tile.resize((TILE, TILE), Image.Resampling.LANCZOS), (column * TILE, row * TILE))
    return sheet


def _grey(ds: Dataset) -> Image.Image:
    hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    low, high = WINDOW
    return Image.fromarray((np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)).convert("RGB")


def _place(ds: Dataset) -> float:
    """Rounded height of the slice centre; captures of enlarged matrices begin elsewhere in the plane."""
    cosines = np.array(ds.ImageOrientationPatient, float)
    return round(float(np.dot(np.cross(cosines[:3], cosines[3:]), np.array(ds.ImagePositionPatient, float))), 2)


def _height(ds: Dataset) -> float:
    return float(ds.ImagePositionPatient[2])
