import colorsys
import itertools

import numpy as np

from dicomnode.writer.palette import RAINBOW, colour


def test_the_palette_runs_from_blue_to_red_without_turning_back():
    hues = [colorsys.rgb_to_hsv(*(level / 255))[0] for level in RAINBOW]
    assert all(later <= earlier + 0.004 for earlier, later in itertools.pairwise(hues))  # 8 bit rounding
    assert 0.66 < hues[0] < 0.75  # indigo
    assert hues[-1] == 0.0  # red


def test_every_level_has_a_colour_of_its_own():
    assert len({tuple(level) for level in RAINBOW.tolist()}) == 256


def test_zero_in_the_brain_is_not_black_and_air_is():
    brain = np.array([[True, False]])
    rgb = colour(np.zeros((1, 2), np.float32), 12.0, brain)
    assert rgb[0, 0].max() > 100
    assert rgb[0, 1].tolist() == [0, 0, 0]


def test_the_scale_is_fixed_from_zero_to_the_ceiling():
    values = np.array([[-1.0, 0.0, 6.0, 12.0, 40.0]], np.float32)
    rgb = colour(values, 12.0, np.ones((1, 5), bool))[0]
    assert rgb.tolist() == RAINBOW[[0, 0, 128, 255, 255]].tolist()
