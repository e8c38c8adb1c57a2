"""To the model grid and back: every place in the patient stays where it was.

The reference is always the formula of PS3.3 C.7.6.2.1.1 on the elements of the data sets, or the places of the marks.
Tolerances: fields that are linear in space are interpolated without error, so 0.02 mm is the rounding of the stored
values (slope 0.01); a mark is sampled in voxels, so its centre is known to half a model pixel in the plane and to a
fifth of the step along the normal.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference import brain, preprocess
from inference.preprocess import SIDE, SPACING, ModelGrid, Prepared
from inference.volume import from_slices
from tests import phantom
from tests.inference.conftest import repaint

SLOPE = 0.01  # HU of one stored step in painted fields


def places(ds) -> np.ndarray:
    """(rows, columns, 3) LPS mm of every voxel of a slice; PS3.3 C.7.6.2.1.1."""
    cosines = np.array([float(v) for v in ds.ImageOrientationPatient])
    corner = np.array([float(v) for v in ds.ImagePositionPatient])
    down, across = (float(v) for v in ds.PixelSpacing)
    columns = np.arange(ds.Columns)[None, :, None] * across * cosines[:3]
    rows = np.arange(ds.Rows)[:, None, None] * down * cosines[3:]
    return corner + columns + rows


def grid_places(grid: ModelGrid) -> np.ndarray:
    """(slices, 256, 256, 3) LPS mm of every model pixel, from the meaning of the fields of the grid."""
    steps = np.arange(SIDE) * SPACING
    x = (grid.origin[0] + steps)[None, None, :, None] * grid.axes[0]
    y = (grid.origin[1] + steps)[None, :, None, None] * grid.axes[1]
    return x + y + grid.heights[:, None, None, None] * grid.axes[2]


def painted(slices, axis: int):
    """The volume whose HU are one patient coordinate in mm."""
    for ds in slices:
        phantom.set_pixels(ds, places(ds)[..., axis], (SLOPE, 0.0))
    return from_slices(slices)


def prepared_of(grid: ModelGrid, mask: np.ndarray) -> Prepared:
    return Prepared(np.empty((len(mask), 3, SIDE, SIDE), np.float32), mask, grid)


def in_view(grid: ModelGrid, slices, order) -> np.ndarray:
    """(slices, 256, 256) bool: model pixels at least two source pixels inside the field of view of their slice."""
    inside = []
    for place, index in zip(grid_places(grid), order, strict=True):
        ds = slices[index]
        cosines = np.array([float(v) for v in ds.ImageOrientationPatient])
        off = place - np.array([float(v) for v in ds.ImagePositionPatient])
        down, across = (float(v) for v in ds.PixelSpacing)
        column, row = off @ cosines[:3] / across, off @ cosines[3:] / down
        inside.append((column > 2) & (column < ds.Columns - 3) & (row > 2) & (row < ds.Rows - 3))
    return np.stack(inside)


def check_there_and_back(slices):
    """Coordinates painted on the source are right on the model grid; painted there, they come back right."""
    for axis in range(3):
        volume = painted(slices, axis)
        grid = preprocess.grid_about_head(volume)
        truth = grid_places(grid)[..., axis]
        seen = in_view(grid, slices, volume.order)
        assert seen.sum() > 1000
        assert np.abs(preprocess.on_grid(volume, grid) - truth)[seen].max() < 0.02

        mask = np.zeros(truth.shape, bool)
        mask[:, 60:190, 50:200] = True
        values = (truth + 1000)[None].astype(np.float32)  # nothing that is 0 by chance
        back = preprocess.to_source(values, prepared_of(grid, mask), volume)[0]
        whole = preprocess.to_source(values, prepared_of(grid, np.ones_like(mask)), volume)[0]
        for s, index in enumerate(volume.order):
            exact = (back[s] > 0) & (whole[s] == back[s])
            expected = places(slices[index])[..., axis] + 1000
            assert np.abs(back[s] - expected)[exact].max(initial=0.0) < 0.02
            assert np.abs(back[s] - expected)[back[s] > 0].max(initial=0.0) < 2.0  # at the rim, from one side only


CASES = [(position, tilt, order) for position in phantom.POSITIONS for tilt in (0.0, 15.0) for order in (False, True)]


@pytest.mark.parametrize(("position", "tilt", "head_to_foot"), CASES)
def test_every_voxel_keeps_its_place_there_and_back(position, tilt, head_to_foot):
    geometry = {"patient_position": position, "tilt_degrees": tilt, "head_to_foot": head_to_foot}
    slices = phantom.head(z=phantom.even(10, 7.0, -30.0), matrix=48, noise=0.0, **geometry)
    check_there_and_back(slices)


def turn(axis: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation about a unit vector."""
    a = np.radians(degrees)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    position=st.sampled_from(list(phantom.POSITIONS)),
    within=st.floats(-40, 40),  # degrees of turn within the plane
    off_axis=st.floats(-25, 25),
    spacing=st.tuples(st.floats(0.4, 3.0), st.floats(0.4, 3.0)),
    matrix=st.tuples(st.integers(90, 130), st.integers(90, 130)),
    steps=st.lists(st.floats(0.5, 8.0), min_size=9, max_size=9),
    shifts=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=10, max_size=10),
)
def test_any_lawful_geometry_keeps_places(position, within, off_axis, spacing, matrix, steps, shifts):
    """Unequal steps, pixels that are not square, matrices that are not square, and slices displaced in their planes."""
    row, column = (np.array(v, float) for v in phantom.POSITIONS[position])
    rotation = turn(np.array([0.6, 0.8, 0.0]), off_axis) @ turn(np.array([0.0, 0.0, 1.0]), within)
    row, column = rotation @ row, rotation @ column
    normal, heights = np.cross(row, column), np.cumsum([-20.0, *steps])
    slices = phantom.head(z=phantom.even(10), matrix=8, noise=0.0)
    for ds, height, (along_row, along_column) in zip(slices, heights, shifts, strict=True):
        phantom.set_pixels(ds, np.zeros(matrix))
        ds.PixelSpacing = list(spacing)
        ds.ImageOrientationPatient = [float(v) for v in (*row, *column)]
        half = (matrix[1] - 1) / 2 * spacing[1] * row + (matrix[0] - 1) / 2 * spacing[0] * column
        centre = height * normal + along_row * row + along_column * column
        ds.ImagePositionPatient = [float(v) for v in centre - half]
    check_there_and_back(slices)


def test_axes_point_to_the_left_the_back_and_the_head():
    for position in phantom.POSITIONS:
        volume = from_slices(phantom.head(z=phantom.even(10), matrix=16, patient_position=position))
        assert np.allclose(preprocess.grid_about_head(volume).axes, np.eye(3))


def test_point_says_where_a_pixel_lies():
    grid = ModelGrid(np.eye(3), np.array([-100.0, -80.0]), np.array([10.0, 14.0, 21.0]))
    assert np.allclose(grid.point(0, 0, 0), [-100, -80, 10])
    assert np.allclose(grid.point(1.5, 16, 32), [-100 + 30, -80 + 15, 17.5])


def mark_on_grid(prepared: Prepared, mark: phantom.Mark, near: tuple[float, float]) -> np.ndarray:
    """The centre of a mark in the patient (LPS), as the middle of the model pixels with its HU around it."""
    hu = (prepared.planes[:, 1] + 1) * 40
    around = np.linalg.norm(grid_places(prepared.grid) - np.array(mark.centre), axis=-1) < mark.radius + 6
    plane, row, column = (float(i.mean()) for i in np.nonzero(around & (hu > near[0]) & (hu < near[1])))
    return prepared.grid.point(plane, row, column)


def solid(mask: np.ndarray) -> np.ndarray:
    """Pixels whose neighbours two away are set too: the inside of a ball, without the rim beside the skull."""
    shifts = [(2, 1), (-2, 1), (2, 2), (-2, 2)]
    return np.logical_and.reduce([mask, *(np.roll(mask, shift, axis) for shift, axis in shifts)])


RANGES = {"left upper": (56.0, 90.0), "right lower": (-1.0, 18.0), "left front lower": (48.0, 90.0)}


@pytest.mark.parametrize(("position", "tilt", "head_to_foot"), CASES)
def test_marks_stay_at_their_place_in_the_patient(position, tilt, head_to_foot):
    slices = phantom.head(
        z=phantom.even(33, 4.0, -64.0), patient_position=position, tilt_degrees=tilt, head_to_foot=head_to_foot
    )
    volume = from_slices(slices)
    prepared = preprocess.prepare(volume)
    found = {mark.name: mark_on_grid(prepared, mark, RANGES[mark.name]) for mark in phantom.MARKS}
    for mark in phantom.MARKS:
        off = np.abs(found[mark.name] - np.array(mark.centre))
        assert off[0] < SPACING / 2, mark.name
        assert off[1:].max() < 1.2, mark.name  # in y and z a tilted plane mixes pixel and step
    # And, by the picture alone: the patient's left is where columns grow, the back where rows grow.
    middle = (SIDE - 1) / 2
    left_upper = solid((prepared.planes[:, 1] + 1) * 40 > 66)
    assert np.nonzero(left_upper)[2].mean() - middle == pytest.approx(34 / SPACING, abs=1.5)
    lower = prepared.grid.heights[np.nonzero(left_upper)[0]].mean()
    assert lower > np.median(prepared.grid.heights)
    # A map drawn on the model grid comes back to the voxels of the mark.
    drawn = preprocess.to_source(left_upper[None].astype(np.float32), prepared, volume)[0]
    centre = np.mean([places(slices[i])[drawn[s] > 0.5].sum(axis=0) for s, i in enumerate(volume.order)], axis=0)
    centre = centre * len(drawn) / (drawn > 0.5).sum()
    assert np.abs(centre - np.array(phantom.MARKS[0].centre)).max() < 1.2


def test_the_grid_is_centred_on_the_brain():
    slices = phantom.head(tilt_degrees=15.0)
    for ds in slices:
        ds.ImagePositionPatient = [v + shift for v, shift in zip(ds.ImagePositionPatient, (40, -25, 7), strict=True)]
    mask = preprocess.prepare(from_slices(slices)).mask
    for axes in ((0, 1), (0, 2)):
        box = np.flatnonzero(mask.any(axis=axes))
        assert abs((box[0] + box[-1]) / 2 - (SIDE - 1) / 2) <= 0.5


@pytest.mark.parametrize("box", [(100, 155), (101, 156), (60, 115), (61, 117), (90, 200), (91, 200)])
def test_centring_is_to_half_a_pixel_for_brains_of_odd_and_even_size(monkeypatch, box):
    def square(hu, offsets, spacing):
        mask = np.zeros(hu.shape, bool)
        mask[:, box[0] : box[1] + 1, box[0] + 5 : box[1] + 6] = True
        return mask

    monkeypatch.setattr(brain, "extract", square)
    volume = from_slices(phantom.head(z=phantom.even(10), matrix=32))
    prepared = preprocess.prepare(volume)
    columns, rows = (np.flatnonzero(prepared.mask[0].any(axis=axis)) for axis in (0, 1))
    moved = prepared.grid.origin - preprocess.grid_about_head(volume).origin
    assert moved == pytest.approx(SPACING * np.array([box[0] + 5 - columns[0], box[0] - rows[0]]))
    for found in (columns, rows):
        assert abs((found[0] + found[-1]) / 2 - (SIDE - 1) / 2) <= 0.5


def test_the_field_of_view_ends_half_a_pixel_beyond_the_last_centre():
    slices = phantom.head(z=phantom.even(10), matrix=64, field_of_view=160.0)
    volume = from_slices(repaint(slices, lambda hu: np.full(hu.shape, 40.0)))
    grid = preprocess.grid_about_head(volume)
    place = grid_places(grid)[0]
    inside = (np.abs(place[..., :2]) < 80.0).all(axis=-1)
    assert np.array_equal(preprocess.on_grid(volume, grid)[0], np.where(inside, 40.0, -1000.0))


def test_a_head_at_the_edge_of_a_wide_field_of_view_is_found():
    slices = phantom.head(matrix=200, field_of_view=500.0)
    for ds in slices:
        pixels = np.frombuffer(ds.PixelData, "<i2").reshape(200, 200)
        ds.PixelData = np.roll(pixels, (40, -45), axis=(0, 1)).tobytes()
    prepared = preprocess.prepare(from_slices(slices))
    assert prepared.grid.origin == pytest.approx([-45 * 2.5 - 119.5, 40 * 2.5 - 119.5], abs=3.0)
    assert prepared.mask.sum() * SPACING**2 * 5 == pytest.approx(1.87e6, rel=0.03)


def brain_rising(z, gradient=0.2, **geometry):
    """The phantom with HU that rise towards the head within the skull, 40 at z = 0."""
    slices = phantom.head(z=z, noise=0.0, **geometry)
    for ds in slices:
        place = places(ds)
        hu = phantom.hu_at(place)
        hu = np.where((hu > 0) & (hu < 100), 40 + gradient * place[..., 2], hu)
        phantom.set_pixels(ds, hu, (0.02, 0.0))
    return from_slices(slices)


@pytest.mark.parametrize("step", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("head_to_foot", [False, True])
@pytest.mark.parametrize("position", ["HFS", "FFS"])
def test_neighbours_lie_4_mm_below_and_above_whatever_the_step_and_order(step, head_to_foot, position):
    z = phantom.even(int(70 / step), step, -30.0)
    volume = brain_rising(z, head_to_foot=head_to_foot, patient_position=position, matrix=64)
    prepared = preprocess.prepare(volume)
    hu = (prepared.planes + 1) * 40
    deep = np.zeros((SIDE, SIDE), bool)
    deep[110:146, 118:138] = True  # within the brain in every slice
    heights = prepared.grid.heights
    for s, height in enumerate(heights):
        for channel, offset in enumerate((-4.0, 0.0, 4.0)):
            expected = 40 + 0.2 * np.clip(height + offset, heights.min(), heights.max())
            assert np.abs(hu[s, channel][deep] - expected).max() < 0.02


def test_neighbours_use_unequal_steps_in_mm():
    z = [-30.0, -26.0, -22.0, -20.9, -13.9, -6.9, 0.1, 4.1, 8.1, 15.1, 22.1]
    prepared = preprocess.prepare(brain_rising(z, matrix=64))
    hu = (prepared.planes[:, :, 128, 128] + 1) * 40
    assert hu[5] == pytest.approx(40 + 0.2 * np.array([-10.9, -6.9, -2.9]), abs=0.02)


def test_neighbours_of_a_tilted_series_lie_along_the_normal():
    prepared = preprocess.prepare(brain_rising(phantom.even(20, 4.0, -40.0), tilt_degrees=15.0, matrix=64))
    hu = (prepared.planes + 1) * 40
    step = hu[8:12, 2, 110:146, 120:136] - hu[8:12, 1, 110:146, 120:136]
    assert step == pytest.approx(0.2 * 4.0 * np.cos(np.radians(15.0)), abs=0.02)


def test_the_ends_repeat_the_end_slices():
    prepared = preprocess.prepare(from_slices(phantom.head(z=phantom.even(20, 5.0, -45.0))))
    assert np.array_equal(prepared.planes[0, 0], prepared.planes[0, 1])
    assert np.array_equal(prepared.planes[-1, 2], prepared.planes[-1, 1])


def test_the_window_is_centre_40_width_80_whatever_the_header_says():
    hu = np.array([-1000.0, 0.0, 20.0, 40.0, 80.0, 3000.0], np.float32)
    assert preprocess.window(hu).tolist() == [-1.0, -1.0, -0.5, 0.0, 1.0, 1.0]
    slices = phantom.head(noise=0.0)
    expected = preprocess.prepare(from_slices(slices)).planes
    for ds in slices:
        ds.WindowCenter, ds.WindowWidth = 500, 2000
    assert np.array_equal(preprocess.prepare(from_slices(slices)).planes, expected)


def test_planes_are_float32_between_minus_one_and_one_and_minus_one_outside_the_mask():
    prepared = preprocess.prepare(from_slices(phantom.head()))
    assert prepared.planes.dtype == np.float32
    assert prepared.planes.shape == (26, 3, SIDE, SIDE)
    assert np.abs(prepared.planes).max() <= 1
    assert (prepared.planes.swapaxes(1, 0)[:, ~prepared.mask] == -1).all()
    assert (prepared.planes[:, 1][prepared.mask] > -1).mean() > 0.99


def test_bone_of_a_neighbouring_slice_never_enters():
    """Near the vertex a slice 4 mm higher is bone where this one is brain; unstripped it would read 80 HU."""
    prepared = preprocess.prepare(from_slices(phantom.head(z=phantom.even(38, 4.0, -69.0), noise=0.0)))
    for channel in (0, 2):
        assert (prepared.planes[:, channel][prepared.mask] > 0.95).mean() < 0.002


def test_a_constant_comes_back_constant_up_to_the_rim_and_exactly_0_outside():
    volume = from_slices(phantom.head(tilt_degrees=10.0, patient_position="HFDL"))
    prepared = preprocess.prepare(volume)
    values = np.full((2, *prepared.mask.shape), 7.0, np.float32)
    values[1] = 3.0
    values[:, ~prepared.mask] = 99.0  # what lies outside the mask must not leak in
    back = preprocess.to_source(values, prepared, volume)
    mask = preprocess.source_mask(prepared, volume)
    assert back.dtype == np.float32
    assert back.shape == (2, *volume.hu.shape)
    assert np.allclose(back[0][mask], 7.0)
    assert np.allclose(back[1][mask], 3.0)
    assert (back[:, ~mask] == 0.0).all()


def test_the_mask_on_the_source_grid_is_the_brain():
    slices = phantom.head(matrix=256)
    volume = from_slices(slices)
    mask = preprocess.source_mask(preprocess.prepare(volume), volume)
    truth = np.stack([inside_skull(places(slices[i])) for i in volume.order])
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.98


def inside_skull(place: np.ndarray) -> np.ndarray:
    x, y, z = place[..., 0], place[..., 1], place[..., 2] - 5.0
    return np.sqrt((x / 72) ** 2 + (y / 88) ** 2 + (z / 74) ** 2) < 1


def test_a_slice_without_brain_is_all_0():
    volume = from_slices(phantom.head(z=phantom.even(36, 5.0, -90.0)))
    prepared = preprocess.prepare(volume)
    assert not prepared.mask[0].any()
    back = preprocess.to_source(np.ones((1, *prepared.mask.shape), np.float32), prepared, volume)
    assert not back[0, 0].any()


def test_a_series_of_air_gives_an_empty_mask_and_no_error():
    volume = from_slices(repaint(phantom.head(z=phantom.even(12)), lambda hu: np.full(hu.shape, -1000.0)))
    prepared = preprocess.prepare(volume)
    assert not prepared.mask.any()
    assert (prepared.planes == -1).all()


def test_a_sharp_line_stays_where_it_is_when_a_fine_source_is_averaged():
    """A source finer than the grid is averaged symmetrically: the edge at x = 10 mm does not move."""
    slices = phantom.head(z=phantom.even(10), matrix=512, field_of_view=220.0, noise=0.0)
    for ds in slices:
        phantom.set_pixels(ds, np.clip((places(ds)[..., 0] - 10.0) * 50, -100, 100))
    volume = from_slices(slices)
    grid = preprocess.grid_about_head(volume)
    row = preprocess.on_grid(volume, grid)[5, 128]
    x = grid.origin[0] + SPACING * np.arange(SIDE)
    near = np.abs(x - 10) < 5
    assert np.interp(0.0, row[near], x[near]) == pytest.approx(10.0, abs=0.05)


def test_noise_of_a_fine_source_is_averaged():
    rng = np.random.default_rng(0)
    slices = phantom.head(z=phantom.even(10), matrix=512, field_of_view=220.0, noise=0.0)
    for ds in slices:
        phantom.set_pixels(ds, 40 + 20 * rng.standard_normal((512, 512)))
    volume = from_slices(slices)
    hu = preprocess.on_grid(volume, preprocess.grid_about_head(volume))[:, 80:170, 80:170]
    assert hu.std() == pytest.approx(6.82, abs=0.2)  # of 20; linear interpolation alone leaves 13.4
    assert hu.mean() == pytest.approx(40.0, abs=0.3)


def test_the_brain_is_sought_upwards_whatever_the_order(monkeypatch):
    seen = []
    monkeypatch.setattr(brain, "extract", lambda hu, offsets, spacing: seen.append(offsets) or hu > 20)
    for position in ("HFS", "FFS"):
        preprocess.prepare(from_slices(phantom.head(z=phantom.even(12), matrix=32, patient_position=position)))
    assert all((np.diff(offsets) > 0).all() for offsets in seen)


def test_the_same_series_gives_the_same_bytes():
    slices = phantom.head(tilt_degrees=8.0)
    first, second = (preprocess.prepare(from_slices(s)) for s in (slices, slices[::-1]))
    assert np.array_equal(first.planes, second.planes)
    assert np.array_equal(first.grid.origin, second.grid.origin)


def test_moving_the_patient_moves_the_grid_and_nothing_else():
    """The same pixels under a displaced frame of reference."""
    still = preprocess.prepare(from_slices(slices := phantom.head()))
    for ds in slices:
        ds.ImagePositionPatient = [v + s for v, s in zip(ds.ImagePositionPatient, (500, -300, 1200), strict=True)]
    moved = preprocess.prepare(from_slices(slices))
    assert np.allclose(moved.grid.origin - still.grid.origin, [500, -300])
    assert np.allclose(moved.grid.heights - still.grid.heights, 1200)
    assert np.array_equal(moved.mask, still.mask)
    assert replace(moved.grid, origin=still.grid.origin, heights=still.grid.heights).axes.tolist() == np.eye(3).tolist()
