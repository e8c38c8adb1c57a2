"""The brain mask, on heads whose brain is known by construction and on a real one looked at by eye."""

import numpy as np
import pytest
import SimpleITK as sitk

from inference import brain, preprocess
from inference.preprocess import SPACING
from inference.volume import from_slices
from tests import phantom
from tests.inference.test_preprocess import grid_places, inside_skull


def prepared(**geometry):
    return preprocess.prepare(from_slices(phantom.head(**geometry)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


GEOMETRIES = {
    "plain": {},
    "tilted": {"tilt_degrees": 15.0},
    "on the side, feet first, tilted, from head to foot": {
        "tilt_degrees": -18.0,
        "patient_position": "FFDR",
        "head_to_foot": True,
    },
    "7 mm": {"z": phantom.even(22, 7.0, -68.0)},
    "10 mm": {"z": phantom.even(12, 10.0)},
    "1 mm": {"z": phantom.even(150, 1.0, -70.0)},
    "unequal": {"z": [*phantom.even(13, 4.0, -66.0), -16.92, *phantom.even(13, 7.0, -9.92)]},
    "fine and noisy": {"matrix": 256, "noise": 8.0},
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))
def test_the_mask_is_the_inside_of_the_skull(geometry):
    """Measured: Dice 0.987 to 0.994, all of it a rim of half a pixel that bone fills in part; nothing lies outside."""
    result = prepared(**geometry)
    truth = inside_skull(grid_places(result.grid))
    assert dice(result.mask, truth) > 0.985
    assert (result.mask & ~truth).sum() < 0.001 * truth.sum()


def test_marks_and_ventricles_of_any_density_stay_inside():
    result = prepared(noise=0.0)
    place = grid_places(result.grid)
    for mark in phantom.MARKS:
        assert result.mask[np.linalg.norm(place - np.array(mark.centre), axis=-1) < mark.radius].all()
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    ventricles = np.hypot((np.abs(x) - 12) / 7, (y + 2) / 26) + np.abs(z - 8) / 18 < 1
    assert result.mask[ventricles].all()


@pytest.mark.parametrize("hu", [-900.0, 95.0, 400.0, 3000.0])
def test_calcifications_clots_clips_and_air_bubbles_inside_are_filled(hu):
    slices = phantom.head(noise=0.0)
    for ds in slices:
        pixels = np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns).copy()
        pixels[60:65, 55:60] = hu + 1024
        ds.PixelData = pixels.tobytes()
    result = preprocess.prepare(from_slices(slices))
    truth = inside_skull(grid_places(result.grid))
    assert dice(result.mask, truth) > 0.98
    for plane in result.mask:
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(plane.astype(np.uint8))))
        assert np.array_equal(filled > 0, plane)


def test_what_hangs_on_the_brain_by_a_narrow_canal_is_left_out():
    """An eye of 12 mm radius in front of the skull, joined to the brain by a nerve of 4 mm through the bone."""
    hu, place = head_volume()
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    eye = np.linalg.norm(place - np.array([0.0, -118.0, 5.0]), axis=-1) < 12
    nerve = (np.hypot(x, z - 5) < 2) & (y < -80) & (y > -110)
    hu[eye | nerve] = 40.0
    mask = brain.extract(hu, place[:, 0, 0, 2], SPACING)
    assert not mask[eye & ~inside_skull(place)].any()
    assert dice(mask, inside_skull(place)) > 0.985


def test_the_brain_ends_at_the_foramen_magnum():
    """A neck of muscle below the skull, joined by a canal of 15 mm radius whose cord goes on downwards."""
    hu, place = head_volume()
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    r = np.sqrt((x / 72) ** 2 + (y / 88) ** 2 + ((z - 5) / 74) ** 2)
    neck = (np.hypot(x, y) < 60) & (r > 1.12) & (z < -40)
    hu[neck] = 50.0
    hu[(np.hypot(x, y) < 22) & (r >= 1.0) & (z < -40)] = 700.0
    canal = (np.hypot(x, y) < 14) & (r >= 0.9) & (z < -40)
    hu[canal] = 35.0
    mask = brain.extract(hu, place[:, 0, 0, 2], SPACING)
    assert not mask[neck & (np.hypot(x, y) > 22)].any()
    assert not mask[place[:, 0, 0, 2] < -86].any()
    assert dice(mask, inside_skull(place)) > 0.98


def head_volume() -> tuple[np.ndarray, np.ndarray]:
    """The phantom straight on the model grid, 44 slices of 4 mm from below the skull, with the place of each voxel."""
    steps = (np.arange(256) - 127.5) * SPACING
    heights = -100.0 + 4.0 * np.arange(44)
    place = np.stack(np.broadcast_arrays(steps[None, None, :], steps[None, :, None], heights[:, None, None]), axis=-1)
    return phantom.hu_at(place).astype(np.float32), place


@pytest.mark.parametrize("hu", [-1000.0, 0.0, 40.0, 1000.0])
def test_what_is_no_head_does_not_fail(hu):
    mask = brain.extract(np.full((12, 256, 256), hu, np.float32), 5.0 * np.arange(12), SPACING)
    assert mask.shape == (12, 256, 256)
    assert mask.any() == (0 <= hu < 100)


# Places on the source slices of the real head, read off the images by eye: slice from below, row, column.
INSIDE = {
    "infarct, left temporo-occipital": (15, 320, 330),
    "left lateral ventricle": (19, 250, 275),
    "right lateral ventricle": (19, 270, 240),
    "third ventricle": (15, 235, 240),
    "left cerebellum": (8, 340, 340),
    "right cerebellum": (8, 340, 200),
    "pons": (8, 300, 260),
    "left temporal pole": (8, 210, 330),
    "right temporal pole": (8, 230, 170),
    "left temporal tip": (6, 185, 315),
    "frontal base": (9, 140, 230),
    "calcified choroid plexus": (17, 303, 388),
    "near the vertex": (23, 300, 250),
}
OUTSIDE = {
    "right eye": (6, 125, 140),
    "left eye": (6, 95, 287),
    "right orbit": (9, 140, 150),
    "left orbit": (9, 120, 290),
    "nasal cavity": (2, 150, 230),
    "neck muscle": (2, 380, 250),
    "neck muscle beside the occiput": (6, 430, 260),
    "cord": (1, 300, 260),
    "scalp at the back": (15, 450, 250),
    "left mastoid": (8, 268, 378),
    "right mastoid": (8, 340, 134),
    "head rest": (17, 430, 75),
}


@pytest.fixture
def ge_mask(ge_head):
    volume = from_slices(ge_head)
    return preprocess.source_mask(preprocess.prepare(volume), volume)


def test_the_real_brain_is_inside(ge_mask):
    assert [name for name, place in INSIDE.items() if not ge_mask[place]] == []


def test_eyes_muscle_bone_and_scalp_of_the_real_head_are_outside(ge_mask):
    assert [name for name, place in OUTSIDE.items() if ge_mask[place]] == []


def test_hardly_any_bone_and_no_air_of_the_real_head_is_inside(ge_head, ge_mask):
    hu = from_slices(ge_head).hu[ge_mask]
    assert (hu > 150).mean() < 0.005
    assert (hu < -100).mean() < 0.0005
    assert np.median(hu) == pytest.approx(31.5, abs=1.0)


def test_the_real_brain_measures_about_one_and_a_half_litres(ge_head):
    result = preprocess.prepare(from_slices(ge_head))
    each = np.gradient(result.grid.heights)
    litres = (result.mask.sum(axis=(1, 2)) * SPACING**2) @ each / 1e6
    assert litres == pytest.approx(1.48, abs=0.08)


def test_every_second_slice_of_the_real_head_gives_the_same_brain(ge_head):
    """Steps of 8 and 14 mm; measured Dice 0.99."""
    whole = preprocess.prepare(from_slices(ge_head))
    volume = from_slices(ge_head[::2])
    mask = brain.extract(preprocess.on_grid(volume, whole.grid), whole.grid.heights[::2], SPACING)
    assert dice(mask, whole.mask[::2]) > 0.97
