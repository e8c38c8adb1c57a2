"""The colours of simulated consoles' maps."""

import numpy as np


def rainbow(share: np.ndarray) -> np.ndarray:
    """(..., 3) RGB 0..255 of 0..1: blue, cyan, green, yellow, red."""
    channels = [np.clip(1.5 - np.abs(4.0 * share - centre), 0.0, 1.0) for centre in (3.0, 2.0, 1.0)]
    return np.stack(channels, axis=-1) * 255.0
