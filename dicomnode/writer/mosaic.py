"""Summary mosaic: one page in colour with the source CT and all maps at a few levels, and the volumes of the regions.

A page to look at first and to send on. It lies in no plane, because it shows several.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.writer import burn, capture, codes, common, plane
from dicomnode.writer.palette import RAINBOW, colour
from dicomnode.writer.segmentation import ESTIMATE
from dicomnode.writer.study import Study
from inference import regions
from inference.maps import MapKind

NAME = "summary"
SERIES_NUMBER = 9401
LEVELS = 4
LOWEST, HIGHEST = 0.3, 0.85  # of the slices with brain, from the feet to the head
TILE, HEAD, FOOT = 288, 290, 250  # pixels: side of a tile, heights of what stands above and below them
NARROWEST = 6  # columns of tiles; with fewer the lettering does not fit
WINDOW = (0.0, 80.0)  # HU
MARGIN = 8.0  # mm about the brain
BAR = 16  # pixels, height of a colour bar
NAMES_UP, BAR_UP, SCALE_UP = 100, 70, 36  # pixels above the tiles: names of the columns, colour bar, its numbers


def plan(study: Study) -> list[tuple[str, int]]:
    """One page for every study."""
    return [(NAME, 0)]


def write(study: Study) -> Dataset:
    """The page."""
    ds = common.base(study)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = study.uid("mosaic", NAME, "series"), SERIES_NUMBER, 1
    ds.SeriesDescription = common.series_description(study, NAME)
    ds.ImageComments = common.comments(study)
    ds.DerivationDescription = common.derivation(study, "Summary of all maps")
    ds.DerivationCodeSequence = [deepcopy(codes.SYNTHETIC_PERFUSION)]
    ds.PatientOrientation = plane.patient_orientation(study.volume.row_direction, study.volume.column_direction)
    shown = levels(study)
    ds.SourceImageSequence = [plane.reference(study.source[index], same_grid=False) for index in shown]
    capture.describe(ds)
    capture.set_pixels(ds, page(study, shown))
    return common.finish(ds, SecondaryCaptureImageStorage, study.uid("mosaic", NAME, 0), study.software_version)


def levels(study: Study) -> list[int]:
    """Slices from the feet to the head, evenly through the brain; one of them where most tissue is late."""
    upwards = np.argsort(study.volume.positions[:, 2], kind="stable")
    inside = [int(i) for i in upwards if study.brain[i].any()] or [int(i) for i in upwards]
    places = {round(place * (len(inside) - 1)) for place in np.linspace(LOWEST, HIGHEST, LEVELS)}
    if study.regions is not None and study.regions.hypoperfused.any():
        most = int(study.regions.hypoperfused[inside].sum(axis=(1, 2)).argmax())
        places = places - {min(places, key=lambda place: abs(place - most))} | {most}
    return [inside[place] for place in sorted(places)]


def page(study: Study, shown: list[int]) -> np.ndarray:
    """The page in RGB, (rows, columns, 3) uint8; shown: the slices, from the feet to the head."""
    columns = max(1 + len(study.maps), NARROWEST)
    page = np.zeros((HEAD + len(shown) * TILE + FOOT, columns * TILE, 3), np.uint8)
    crop = _crop(study)
    for row, index in enumerate(shown):
        for column, tile in enumerate(_tiles(study, index, crop)):
            page[HEAD + row * TILE :, column * TILE :][:TILE, :TILE] = tile
    for column in range(1, 1 + len(study.maps)):
        strip = RAINBOW[np.linspace(0, 255, TILE * 3 // 4).astype(int)]
        page[HEAD - BAR_UP : HEAD - BAR_UP + BAR, column * TILE + TILE // 8 :][:, : len(strip)] = strip
    _overlay(study, shown, page.shape[:2]).onto(page)
    return page


def _tiles(study: Study, index: int, crop: tuple[slice, slice]) -> Iterator[np.ndarray]:
    """The source CT of one slice, and each map, (TILE, TILE, 3) uint8."""
    low, high = WINDOW
    grey = (np.clip((study.volume.hu[index] - low) / (high - low), 0.0, 1.0) * 255).astype(np.uint8)
    spacing = study.volume.pixel_spacing
    yield _fitted(np.repeat(grey[crop][..., None], 3, axis=2), spacing, Image.Resampling.BILINEAR)
    for each in study.maps:
        rgb = colour(each.values[index], each.kind.ceiling, study.brain[index])
        yield _fitted(rgb[crop], spacing, Image.Resampling.NEAREST)  # no colour that is not on the bar


def _crop(study: Study) -> tuple[slice, slice]:
    """Rows and columns of the brain in all slices, with a margin; all of them where there is no brain."""
    anywhere = np.argwhere(study.brain.any(axis=0))
    if not len(anywhere):
        return slice(None), slice(None)
    margin = np.ceil(MARGIN / np.array(study.volume.pixel_spacing)).astype(int)
    first, last = np.maximum(anywhere.min(axis=0) - margin, 0), anywhere.max(axis=0) + margin + 1
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _fitted(image: np.ndarray, spacing: tuple[float, float], resampling: Image.Resampling) -> np.ndarray:
    """An image scaled into the middle of a tile, its sides in proportion of millimetres."""
    rows, columns = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
    scale = (TILE - 4) / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(Image.fromarray(image).resize(size, resampling), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return np.asarray(tile)


def _overlay(study: Study, shown: list[int], shape: tuple[int, ...]) -> burn.Overlay:
    rows, columns = shape
    sheet = burn.Sheet(rows, columns)
    sheet.stack(0.5, 0.02, [burn.Line(common.DISCLAIMER, 13, burn.YELLOW), *_smaller(capture.cautions(study))])
    _heads(sheet, study)
    for row, index in enumerate(shown):
        top = (HEAD + row * TILE) / rows
        number = study.source[index].get("InstanceNumber")
        place = f"image {number}, {study.volume.positions[index, 2]:.0f} mm"
        sheet.text(0.004, top + 0.93 * TILE / rows, burn.Line(place, 7, burn.GREY), "lm")
        for column in range(1 + len(study.maps)):
            box = (column * TILE / columns, top, TILE / columns, TILE / rows)
            burn.sides(sheet, study.volume.row_direction, study.volume.column_direction, box, 9)
    bottom = (HEAD + len(shown) * TILE) / rows
    sheet.stack(0.03, bottom + 0.012, list(_figures(study)), "la")
    sheet.stack_up(0.97, 0.985, 0.6, _smaller(capture.footer(study, "Summary of all maps")), "ra")
    sheet.stack_up(0.03, 0.985, 0.34, [burn.Line(text, 7, burn.ORANGE) for text in study.warnings], "la")
    return sheet.overlay()


def _heads(sheet: burn.Sheet, study: Study) -> None:
    """Above each column what it shows, and the scale of its colours."""
    tile = TILE / sheet.columns
    names, scale = ((HEAD - up) / sheet.rows for up in (NAMES_UP, SCALE_UP))
    sheet.text(tile / 2, names, burn.Line("Non-contrast CT", 9))
    for column, each in enumerate(study.maps, start=1):
        low, high = scale_ends(study, each.kind)
        sheet.text((column + 0.5) * tile, names, burn.Line(f"SYNTHETIC {each.kind.name}", 9))
        sheet.text((column + 0.125) * tile, scale, burn.Line(low, 7), "lm")
        sheet.text((column + 0.875) * tile, scale, burn.Line(high, 7), "rm")


def scale_ends(study: Study, kind: MapKind) -> tuple[str, str]:
    """What stands at the two ends of a colour bar; the upper end is open."""
    if study.manifest.units == "relative":
        return "low", "high"
    return "0", f">={kind.ceiling:g} {kind.unit}"


def _figures(study: Study) -> Iterator[burn.Line]:
    """The volumes of the regions (design.md contract 13), each line beside what they are not for."""
    found = study.regions
    if found is None:
        yield burn.Line("No volumes: they need CBF and Tmax in physical units.", 9, burn.GREY)
        return
    late, low = f"Tmax > {regions.HYPOPERFUSED:g} s", f"CBF < {regions.CORE * 100:g} %"
    ratio = "undefined" if found.mismatch_ratio is None else f"{found.mismatch_ratio:.1f}"
    yield burn.Line(ESTIMATE[0].upper() + ESTIMATE[1:] + ":", 10, burn.ORANGE)
    yield burn.Line(f"{late}: {found.hypoperfused_ml:.0f} ml", 10)
    yield burn.Line(f"{late} and {low} of healthy: {found.core_ml:.0f} ml", 10)
    yield burn.Line(f"difference {found.mismatch_ml:.0f} ml, ratio {ratio}", 10)


def _smaller(lines: Iterator[burn.Line] | list[burn.Line]) -> list[burn.Line]:
    """Lines of a capture at the size that suits this larger page."""
    return [burn.Line(line.text, max(7, round(line.size * 0.62)), line.colour) for line in lines]
