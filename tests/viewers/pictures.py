"""Is what stands on the screen this slice of this map? Pictures compared with numbers, not with other pictures."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dicomnode.writer.palette import RAINBOW
from inference.maps import KINDS

FLIPS = {
    "as it is": np.s_[:, :],
    "left for right": np.s_[:, ::-1],
    "upside down": np.s_[::-1, :],
    "turned by half": np.s_[::-1, ::-1],
}
COARSE = 4  # pixels of the slice along each side of what is compared
EDGE = 0.13  # of each side: lettering, colour bar and what viewers write over the picture
DARK = 8.0  # what a viewer leaves of black
ALIKE = 0.8  # correlation with the slice that is recognised


@dataclass(frozen=True, slots=True)
class Box:
    """Where a viewer draws: pixels of the screen."""

    x: float
    y: float
    width: float
    height: float


def pane(screenshot: bytes, box: Box, slices_are: int) -> np.ndarray:
    """(n, n, 3) float: the square slice that fills the height of the box, as many pixels as `slices_are` on a side."""
    with Image.open(io.BytesIO(screenshot)) as whole:
        left = box.x + (box.width - box.height) / 2
        where = (round(left), round(box.y), round(left + box.height), round(box.y + box.height))
        cut = whole.convert("RGB").crop(where).resize((slices_are, slices_are), Image.Resampling.BOX)
    return np.asarray(cut, float)


def warmth(picture: np.ndarray) -> np.ndarray:
    """Red less blue: grey is 0, the late end of a rainbow is high and the early end low."""
    return picture[..., 0] - picture[..., 2]


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.mean(axis=-1)


def in_colours(tmax: np.ndarray) -> np.ndarray:
    """The warmth of our palette for seconds; 0 outside the brain."""
    drawn = warmth(RAINBOW[(tmax / KINDS["Tmax"].ceiling * 255).clip(0, 255).round().astype(int)].astype(float))
    return np.where(tmax > 0, drawn, 0.0)


def in_ohif(tmax: np.ndarray) -> np.ndarray:
    """The warmth that OHIF's colour map `rainbow_2` has over a grey CT, as measured on the screen."""
    fractions, warmths = (0.0, 0.25, 0.4, 0.62, 0.82, 1.0), (0.0, -112.0, -112.0, 10.0, 112.0, 112.0)
    return np.asarray(np.interp(tmax / KINDS["Tmax"].ceiling, fractions, warmths))


def colour(picture: np.ndarray) -> np.ndarray:
    """100 where there is any colour, 0 where all is grey."""
    return np.where(np.ptp(picture, axis=-1) > 40, 100.0, 0.0)


def likeness(seen: np.ndarray, expected: np.ndarray, where: np.ndarray) -> float:
    """Correlation of a picture with a map in a region; 0 where either is flat."""
    a, b = seen[where], expected[where]
    if len(a) < 20 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def recognise(seen: np.ndarray, maps: np.ndarray) -> tuple[int, str, float]:
    """Which slice of a map stands there, which way round, and how alike they are.

    seen: (rows, columns) what `warmth` or `brightness` makes of a pane; maps: (slices, rows, columns).
    Every slice is tried in all four ways round, over the brain of either, without the edges.
    """
    small, candidates = _coarse(seen[None])[0], _coarse(maps)
    free = np.zeros_like(small, bool)
    edge = round(EDGE * len(small))
    free[edge:-edge, edge:-edge] = True
    tried = [
        (likeness(small, flipped := candidate[flip], free & ((flipped != 0) | (np.abs(small) > DARK))), index, name)
        for index, candidate in enumerate(candidates)
        for name, flip in FLIPS.items()
    ]
    alike, index, name = max(tried)
    return index, name, alike


def _coarse(stack: np.ndarray) -> np.ndarray:
    slices, rows, columns = stack.shape
    blocks = stack.reshape(slices, rows // COARSE, COARSE, columns // COARSE, COARSE)
    return np.asarray(blocks.mean(axis=(2, 4)))
