"""What stands in the pixels: warnings, the sides of the patient, the colour bar, and who made the map.

A viewer may hide every attribute, but not the pixels. The overlay of one map is drawn once and laid on all its slices.
Places are fractions of the width and height, sizes are pixels at a smaller side of 512. The corners and the middle of
the edges stay clear: there viewers print the patient, the window and the orientation themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicomnode.writer.palette import RAINBOW

Colour = tuple[int, int, int]
WHITE, GREY, YELLOW, ORANGE, RED = (255, 255, 255), (190, 190, 190), (255, 240, 70), (255, 170, 50), (255, 90, 90)
_SOLID = 96  # alpha from which a pixel of the lettering or of its dark rim replaces the map


@dataclass(frozen=True, slots=True)
class Line:
    """One line of lettering: the text, its height in pixels at 512, its colour."""

    text: str
    size: int
    colour: Colour = WHITE


@dataclass(frozen=True, slots=True)
class Bar:
    """The colour bar: the name and unit above it, and labels at equal steps from the bottom to the top."""

    name: str
    unit: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """Lettering as the flat indices of the pixels it covers and their RGB."""

    where: np.ndarray
    rgb: np.ndarray

    def onto(self, image: np.ndarray) -> None:
        """Lay it on an RGB image (rows, columns, 3) uint8, in place."""
        image.reshape(-1, 3)[self.where] = self.rgb


@cache
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font, so that lettering is the same on every machine."""
    found = ImageFont.load_default(pixels)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so text cannot be burned in; install Pillow's wheel")
    return found


class Sheet:
    """A transparent sheet of the size of the image, on which lettering is drawn."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.scale = min(rows, columns) / 512
        self.image = Image.new("RGBA", (columns, rows))
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, line: Line, anchor: str = "mm") -> None:
        """Put a line at a place given as fractions of the width and height, with a dark rim."""
        self._draw.text(
            (x * self.columns, y * self.rows),
            line.text,
            fill=line.colour,
            font=font(round(line.size * self.scale)),
            anchor=anchor,
            stroke_width=max(1, round(2 * self.scale)),
            stroke_fill=(0, 0, 0),
        )

    def stack(self, x: float, y: float, lines: Iterable[Line], anchor: str = "ma") -> None:
        """Lines one under the other, downwards from y."""
        for line in lines:
            self.text(x, y, line, anchor)
            y += self._height(line)

    def stack_up(self, x: float, bottom: float, width: float, lines: Iterable[Line], anchor: str = "ma") -> None:
        """Lines broken to a width and put one under the other, the last of them ending at `bottom`."""
        broken = [part for line in lines for part in self._broken(line, width * self.columns)]
        self.stack(x, bottom - sum(map(self._height, broken)), broken, anchor)

    def bar(self, bar: Bar) -> None:
        """The colour bar at the right edge; its top is the ceiling of the map."""
        left, right, top, bottom = 0.945, 0.975, 0.31, 0.73
        box = [
            round(v * side) for v, side in zip((left, top, right, bottom), (self.columns, self.rows) * 2, strict=True)
        ]
        levels = RAINBOW[np.linspace(255, 0, box[3] - box[1]).round().astype(int)]
        strip = np.repeat(levels[:, None], box[2] - box[0], axis=1)
        self._draw.rectangle((box[0] - 1, box[1] - 1, box[2], box[3]), fill=WHITE)
        self.image.paste(Image.fromarray(strip), (box[0], box[1]))
        for height, label in zip(np.linspace(bottom, top, len(bar.labels)), bar.labels, strict=True):
            self.text(left - 0.012, height, Line(label, 14), "rm")
        self.stack(right, top - 0.095, [Line(bar.name, 19), Line(bar.unit, 13)], "ra")

    def overlay(self) -> Overlay:
        """What has been drawn."""
        drawn = np.asarray(self.image)
        where = np.flatnonzero(drawn[..., 3] >= _SOLID)
        return Overlay(where, drawn[..., :3].reshape(-1, 3)[where])

    def _height(self, line: Line) -> float:
        return 1.22 * line.size * self.scale / self.rows

    def _broken(self, line: Line, width: float) -> list[Line]:
        measure = font(round(line.size * self.scale)).getlength
        parts: list[str] = []
        for word in line.text.split():
            if parts and measure(f"{parts[-1]} {word}") <= width:
                parts[-1] += f" {word}"
            else:
                parts.append(word)
        return [Line(part, line.size, line.colour) for part in parts]


Box = tuple[float, float, float, float]  # left, top, width, height as fractions of the sheet


def sides(
    sheet: Sheet,
    row_direction: np.ndarray,
    column_direction: np.ndarray,
    box: Box = (0.0, 0.0, 1.0, 1.0),
    size: int = 30,
) -> None:
    """L and R of the patient where they are in an image, computed from the orientation and never assumed.

    They stand left and right where the rows run across the patient, above and below where the patient lies on a side.
    box: where the image is on the sheet.
    """
    across = abs(row_direction[0]) >= abs(column_direction[0])
    towards_left = (row_direction if across else column_direction)[0]
    if abs(towards_left) < 0.5:
        raise ValueError(
            f"planes along {row_direction} and {column_direction} show no left and right; use axial slices"
        )
    first, last = "RL" if towards_left > 0 else "LR"
    places = ((0.09, 0.16), (0.91, 0.16)) if across else ((0.5, 0.22), (0.5, 0.8))
    left, top, width, height = box
    for letter, (x, y) in zip((first, last), places, strict=True):
        sheet.text(left + x * width, top + y * height, Line(letter, size))


def word(text: str, size: int) -> np.ndarray:
    """The letters of a text as a tight bool array, without rim or smoothing; size of the font is in pixels."""
    image = Image.new("L", (size * (len(text) + 1), 2 * size))
    ImageDraw.Draw(image).text((size // 2, size // 2), text, fill=255, font=font(size))
    letters = np.asarray(image) >= 128
    rows, columns = (np.flatnonzero(letters.any(axis=axis)) for axis in (1, 0))
    return letters[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
