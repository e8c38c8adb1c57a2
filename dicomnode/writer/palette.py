"""The colours of the maps: one rainbow from indigo (low) to red (high), fixed from 0 to the ceiling of the kind.

Stroke readers know this order of colours, and one palette serves all kinds: low flow and volume are blue, long times
are red. The scale is never fitted to the case, because a fitted scale makes every brain look alike. The lowest colour
is not black, so 0 inside the brain can be told from the air outside it.
"""

import numpy as np

_STOPS = (  # (place on the scale, red, green, blue)
    (0.00, 44, 16, 104),
    (0.12, 30, 30, 190),
    (0.28, 0, 110, 250),
    (0.42, 0, 200, 225),
    (0.55, 40, 205, 70),
    (0.70, 250, 235, 30),
    (0.85, 255, 135, 0),
    (1.00, 210, 0, 0),
)


def _table() -> np.ndarray:
    places, *channels = np.array(_STOPS, float).T
    scale = np.linspace(0.0, 1.0, 256)
    return np.stack([np.interp(scale, places, channel) for channel in channels], axis=1).round().astype(np.uint8)


RAINBOW = _table()  # (256, 3) RGB; row 0 is the value 0, row 255 the ceiling and everything above it
_AFTER_BLACK = np.concatenate([np.zeros((1, 3), np.uint8), RAINBOW])


def colour(values: np.ndarray, ceiling: float, brain: np.ndarray) -> np.ndarray:
    """RGB (rows, columns, 3) uint8 of one slice of a map; black outside the brain.

    values: (rows, columns) in the unit of the kind; brain: (rows, columns) bool.
    """
    level = np.clip(values * np.float32(255.0 / ceiling) + np.float32(0.5), 0, 255).astype(np.uint16)
    rgb: np.ndarray = _AFTER_BLACK.take((level + 1) * brain, axis=0)  # a table for every pixel: no mask is as fast
    return rgb
