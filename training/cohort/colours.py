"""What the colours of a console's map mean: the table read from its bar or a file, and colours looked up in it.

A colour is taken as the entry of the table nearest to it (L2 in RGB). Grey pixels, and colours farther than 12 from
every entry, are no data, which is not zero: letters, blends of two colours at an edge, what JPEG made of them, and
everything that the console left black.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from training.cohort import Rejected

LEVELS = 256  # entries of a table, low to high
FARTHEST = 12.0  # L2 in RGB between a pixel and its entry
GREY = 0  # R, G and B that differ by no more are grey
LEAST_BAR = 0.25  # of the height of the image, or the width
NARROWEST = 4  # pixels
COLOURFUL = 40.0  # mean difference between the largest and the smallest of R, G and B along a bar


@dataclass(frozen=True, slots=True, eq=False)
class Bar:
    """A colour bar found in the pixels: table (256, 3) float RGB low to high; where (rows, columns) bool."""

    table: np.ndarray
    where: np.ndarray


def read_table(path: Path) -> np.ndarray:
    """(256, 3) RGB from a text file, a line of R, G and B from 0 to 255 for each level from low to high."""
    try:
        lines = np.loadtxt(path, delimiter="," if "," in path.read_text(encoding="utf-8") else None, ndmin=2)
    except (OSError, ValueError) as problem:
        raise ValueError(f"{path} is no colour table ({problem}); write R, G, B on each line, low to high") from problem
    if lines.shape[1:] != (3,) or len(lines) < 2:
        raise ValueError(f"{path} holds {lines.shape}; a colour table has lines of R, G, B, low to high")
    return stretched(lines)


def stretched(colours: np.ndarray) -> np.ndarray:
    """A table of any length to one of 256 levels, linearly."""
    places = np.linspace(0, len(colours) - 1, LEVELS)
    return np.stack([np.interp(places, np.arange(len(colours)), channel) for channel in colours.T], axis=1)


def find_bar(rgb: np.ndarray) -> Bar:
    """The colour bar of a series of captures: coloured, the same in all of them, with its high end at the top.

    rgb: (slices, rows, columns, 3) uint8. A lying bar has its high end at the right. Raises Rejected without one.
    """
    coloured = np.ptp(rgb[0].astype(int), axis=-1) > GREY
    still = coloured & (np.ptp(rgb, axis=0) <= FARTHEST).all(axis=-1)
    labels, count = ndimage.label(still)
    boxes = ndimage.find_objects(labels)
    for index in sorted(range(count), key=lambda i: -int((labels[boxes[i]] == i + 1).sum())):
        rows, columns = boxes[index]
        bar = rgb[0][rows, columns].astype(float)
        upright = bar.shape[0] >= bar.shape[1]
        along = bar[::-1] if upright else bar.swapaxes(0, 1)
        if _is_bar(along, rgb.shape[1] if upright else rgb.shape[2]):
            where = np.zeros(coloured.shape, bool)
            where[rows, columns] = True
            return Bar(stretched(np.median(along, axis=1)), where)
    raise Rejected("the captures have no colour bar that can be read; name a colour table with --captures")


def _is_bar(along: np.ndarray, side: int) -> bool:
    """along: (length, width, 3) RGB; each step of its length is one colour, and there are many."""
    length, width, _ = along.shape
    if length < LEAST_BAR * side or width < NARROWEST:
        return False
    middle = np.median(along, axis=1)
    even = np.abs(along - middle[:, None]).max(axis=(1, 2)) <= FARTHEST
    many = len(np.unique(middle, axis=0)) > length / 4
    return bool(even.mean() > 0.9 and many and np.ptp(middle, axis=1).mean() > COLOURFUL)


def levels(rgb: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(...) float32 level 0..255 of each pixel of (..., 3) uint8; nan where there is no data."""
    unique, back = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    level = np.full(len(unique), np.nan, np.float32)
    coloured = np.flatnonzero(np.ptp(unique.astype(int), axis=1) > GREY)
    for some in np.array_split(coloured, max(1, len(coloured) // 4096)):
        distance = np.linalg.norm(unique[some, None].astype(float) - table, axis=2)
        nearest = distance.argmin(axis=1)
        near = distance[np.arange(len(some)), nearest] <= FARTHEST
        level[some[near]] = nearest[near]
    return level[back.ravel()].reshape(rgb.shape[:-1])
