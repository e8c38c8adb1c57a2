"""The word SYNTHETIC in the air outside the head, for objects whose voxels are measured and must stay as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dicomnode.writer import burn
from inference.volume import Volume

WORD = "SYNTHETIC"
WORD_SIZES = (0.05, 0.035, 0.025)  # heights of the font as fractions of the smaller side, the first that fits
SMALLEST_WORD = 9  # pixels
AIR_BELOW = -500.0  # HU; halfway between air and soft tissue
CLEARANCE = 5.0  # mm between the word and anything that is not air; scalp and skull come on top of it
EDGE = 0.02  # of the smaller side that stays free along the edges of the frame


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """The word SYNTHETIC in one frame: (row, column) of its upper left corner, and its letters as a bool array."""

    frame: int
    corner: tuple[int, int]
    letters: np.ndarray

    def onto(self, frames: np.ndarray, value: float) -> None:
        """Set the letters to a value in frames (frames, rows, columns), in place."""
        (row, column), (height, width) = self.corner, self.letters.shape
        frames[self.frame, row : row + height, column : column + width][self.letters] = value


def synthetic_words(volume: Volume) -> Iterator[Word]:
    """Where the word SYNTHETIC stands in each frame.

    One place for all frames where the air allows it, else a place of its own for each; a frame filled by the head to
    its edges gets none, because no voxel within CLEARANCE of the head may change.
    """
    body = volume.hu > AIR_BELOW
    everywhere = _fit(np.any(body, axis=0), volume.pixel_spacing)
    for frame, of_frame in enumerate(body):
        if fit := everywhere or _fit(of_frame, volume.pixel_spacing):
            yield Word(frame, *fit)


def _fit(body: np.ndarray, spacing: tuple[float, float]) -> tuple[tuple[int, int], np.ndarray] | None:
    """The largest lettering that fits into the air of a plane, and its place; None where there is no room."""
    for size in WORD_SIZES:
        letters = burn.word(WORD, max(SMALLEST_WORD, round(size * min(body.shape))))
        if corner := clear_place(body, letters.shape, spacing):
            return corner, letters
    return None


def clear_place(body: np.ndarray, box: tuple[int, ...], spacing: tuple[float, float]) -> tuple[int, int] | None:
    """The corner of a box of (rows, columns) that keeps CLEARANCE from the body, nearest to the top centre.

    body: (rows, columns) bool, everything that is not air; spacing: mm between rows, between columns.
    """
    margins = [int(np.ceil(CLEARANCE / mm)) for mm in spacing]
    padded = np.pad(body, [(margin + 1, margin) for margin in margins])
    total = padded.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    height, width = (size + 2 * margin for size, margin in zip(box, margins, strict=True))
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    free = np.argwhere(inside == 0)
    edge = round(EDGE * min(body.shape))
    free = free[((free >= edge) & (free + box <= np.array(body.shape) - edge)).all(axis=1)]
    if not len(free):
        return None
    middle = free + np.array(box) / 2
    wish = np.array(body.shape) * (0.06, 0.5)
    row, column = free[np.argmin(np.abs(middle - wish).sum(axis=1))]
    return int(row), int(column)
