"""training.cohort.colours: levels from the colours of captures, and no level where a colour says nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from inference.maps import KINDS
from tests.training.simulate.conftest import small_grid
from training.cohort import Rejected, colours
from training.simulate import dicom_out
from training.simulate.colours import rainbow
from training.simulate.vendors import VENDORS

GRID = small_grid(slices=6)
STEPS = colours.LEVELS - 1


@pytest.fixture(scope="module")
def captured(severe) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each kind the captures, (slices, rows, columns, 3) uint8, and the true level 0..255 of each pixel."""
    truth = severe.truth(GRID)
    captures = list(dicom_out.maps(severe, GRID, VENDORS["ge-like"]))
    found = {}
    for name, values in truth.items():
        rgb = [ds.pixel_array for ds in captures if ds.ImageType[3] == name.upper()]
        found[name] = np.stack(rgb), np.clip(values / KINDS[name].ceiling, 0, 1) * STEPS
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_map_read_from_its_colours_is_at_most_one_step_off(captured, kind: str):
    """The table comes from the burned-in bar; 99 % of the pixels with a value, wherever they lie."""
    rgb, true = captured[kind]
    bar = colours.find_bar(rgb)
    found = colours.levels(rgb, bar.table)
    tissue = (true > 0) & ~bar.where
    assert tissue.sum() > 20_000
    assert (np.abs(found - true)[tissue] <= 1.0).mean() >= 0.99
    assert np.isnan(found[~tissue & ~bar.where]).all()
    # Levels are told apart: a test that one colour for all would pass were none.
    assert np.ptp(found[tissue]) > 100


@pytest.mark.parametrize("kind", ["CBF", "Tmax"])
def test_a_map_that_the_console_enlarged_is_right_away_from_edges(captured, kind: str):
    """Consoles draw maps larger and smooth the colours; what is blended at an edge is no data or near an edge."""
    rgb, true = captured[kind]
    large = ndimage.zoom(rgb[2].astype(float), (2, 2, 1), order=1).round().astype(np.uint8)
    level = ndimage.zoom(true[2], 2, order=1)
    bar = colours.find_bar(rgb)
    found = colours.levels(large, bar.table)
    low, high = ndimage.minimum_filter(level, 5), ndimage.maximum_filter(level, 5)
    away = (low > 0) & (high - low < 12)
    away &= ~ndimage.zoom(bar.where, 2, order=0)
    assert away.sum() > 1_000
    assert (np.abs(found - level)[away] <= 1.0).mean() >= 0.99


def test_grey_letters_and_foreign_colours_are_no_data():
    table = colours.stretched(rainbow(np.linspace(0, 1, 64)))
    pixels = np.array(
        [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 255], *table[[0, 100, 255]].astype(int)], np.uint8
    )
    found = colours.levels(pixels, table)
    assert np.isnan(found[:4]).all()
    assert found[4:].tolist() == [0, 100, 255]


def test_a_bar_is_found_lying_or_upright_and_its_place_is_known():
    random = np.random.default_rng(2)
    for lying in (False, True):
        rgb = np.zeros((3, 96, 96, 3), np.uint8)
        rgb[:, 20:70, 20:70] = rainbow(random.random((3, 50, 50)))
        rgb[:, 10:14, 10:14] = (0, 128, 128)  # a coloured sign in every capture
        rgb[:, 8:88, 84:92] = rainbow(np.linspace(1, 0, 80))[:, None]
        rgb = rgb[:, :, ::-1].swapaxes(1, 2) if lying else rgb
        bar = colours.find_bar(rgb)
        if lying:  # the high end, at the top, came to lie left
            bar = colours.find_bar(rgb[:, :, ::-1])
        assert bar.where.sum() == 80 * 8
        assert np.abs(bar.table - rainbow(np.linspace(0, 1, 256))).max() < 4.1  # a level


def test_captures_without_a_bar_are_refused_with_what_to_do():
    rgb = rainbow(np.random.default_rng(3).random((3, 64, 64))).astype(np.uint8)
    with pytest.raises(Rejected, match="--captures"):
        colours.find_bar(rgb)


def test_a_table_from_a_file(tmp_path: Path):
    path = tmp_path / "table.csv"
    np.savetxt(path, rainbow(np.linspace(0, 1, 256)), fmt="%d", delimiter=",")
    assert np.abs(colours.read_table(path) - rainbow(np.linspace(0, 1, 256))).max() < 1.0
    path.write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match="R, G, B"):
        colours.read_table(path)
