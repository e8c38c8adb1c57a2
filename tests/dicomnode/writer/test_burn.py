import numpy as np
import pytest
from PIL import ImageFont

from dicomnode.writer import burn


def test_lettering_replaces_only_the_pixels_it_covers():
    sheet = burn.Sheet(512, 512)
    sheet.text(0.5, 0.5, burn.Line("L", 30))
    image = np.full((512, 512, 3), 77, np.uint8)
    sheet.overlay().onto(image)
    changed = (image != 77).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 240 < rows.min() < rows.max() < 272
    assert 240 < columns.min() < columns.max() < 272
    assert (image[changed] == 255).any()  # the letter
    assert (image[changed] == 0).any()  # its rim


def test_a_long_line_is_broken_and_ends_at_the_bottom_given():
    sheet = burn.Sheet(512, 512)
    sheet.stack_up(0.03, 0.86, 0.27, [burn.Line("The series is incomplete and this sentence is long.", 12)], "la")
    rows, columns = np.nonzero(np.asarray(sheet.image)[..., 3])
    assert rows.min() < 0.8 * 512  # more than one line
    assert rows.max() < 0.87 * 512
    assert columns.max() < 0.31 * 512


def test_lettering_grows_with_the_matrix():
    heights = []
    for side in (512, 1024):
        sheet = burn.Sheet(side, side)
        sheet.text(0.5, 0.5, burn.Line("H", 30))
        rows = np.nonzero(np.asarray(sheet.image)[..., 3])[0]
        heights.append(np.ptp(rows) + 1)
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)


def test_planes_without_left_and_right_are_refused():
    with pytest.raises(ValueError, match="axial"):
        burn.sides(burn.Sheet(512, 512), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0]))


def test_a_pillow_without_scalable_font_is_named(monkeypatch):
    monkeypatch.setattr(ImageFont, "load_default", lambda size: object())
    burn.font.cache_clear()
    with pytest.raises(RuntimeError, match="FreeType"):
        burn.font(12)
    burn.font.cache_clear()


def test_a_word_is_tight():
    letters = burn.word("SYNTHETIC", 20)
    assert letters.any(axis=1).all()
    assert letters[:, 0].any()
    assert letters[:, -1].any()
