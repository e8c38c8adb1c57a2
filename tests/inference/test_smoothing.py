"""Smoothing across slices: means over brain alone, weighed by distance, whatever lies between the slices."""

import numpy as np
import pytest

from inference.smoothing import Smoothing, across_slices

RNG = np.random.default_rng(4)
HEIGHTS = np.array([0.0, 4.0, 8.0, 12.0, 16.0, 20.0])
ALL = Smoothing(above=0.0, sigma_mm=6.0)


def stack(slices: int = 6) -> np.ndarray:
    return RNG.random((slices, 3, 5)).astype(np.float32)


def whole(like: np.ndarray) -> np.ndarray:
    return np.ones(like.shape, bool)


def test_what_is_constant_stays_even_at_the_ends_and_beside_holes():
    mask = RNG.random((6, 3, 5)) > 0.4
    for above in (0.0, 4.0, 9.0):
        smoothed = across_slices(np.full((6, 3, 5), 7.0, np.float32), mask, HEIGHTS, Smoothing(above, 6.0))
        assert smoothed[mask] == pytest.approx(7.0, rel=1e-6)
        assert (smoothed[~mask] == 0).all()


def test_a_single_slice_stays_as_it_is():
    one = stack(1)
    assert np.array_equal(across_slices(one, whole(one), np.zeros(1), ALL), one)


def test_a_bright_slice_fades_like_a_gaussian_and_stays_in_its_pixels():
    values = np.zeros((41, 2, 2), np.float32)
    values[20, 0, 1] = 1.0
    heights = np.arange(41) * 2.0
    smoothed = across_slices(values, whole(values), heights, ALL)
    expected = np.exp(-0.5 * ((heights - heights[20]) / 6.0) ** 2)
    assert smoothed[:, 0, 1] / smoothed[20, 0, 1] == pytest.approx(expected, abs=1e-4)
    assert smoothed[:, 0, 1].sum() == pytest.approx(1.0, rel=1e-3)
    assert not smoothed[:, 1].any() and not smoothed[:, :, 0].any()


def test_healthy_values_keep_every_detail_and_only_the_excess_spreads():
    values = stack() * 4.0  # all healthy
    healthy = values.copy()
    values[2, 1, 1] = 10.0
    smoothed = across_slices(values, whole(values), HEIGHTS, Smoothing(4.0, 6.0))
    elsewhere = np.ones((3, 5), bool)
    elsewhere[1, 1] = False
    assert np.array_equal(smoothed[:, elsewhere], healthy[:, elsewhere])
    assert 4.0 < smoothed[2, 1, 1] < 10.0
    assert (smoothed[[1, 3], 1, 1] > healthy[[1, 3], 1, 1]).all()


def test_values_outside_the_brain_count_for_nothing():
    values, mask = stack(), RNG.random((6, 3, 5)) > 0.4
    other = np.where(mask, values, 1e6).astype(np.float32)
    assert np.array_equal(across_slices(values, mask, HEIGHTS, ALL), across_slices(other, mask, HEIGHTS, ALL))


def test_the_order_of_the_slices_does_not_matter():
    values = stack()
    up, down = (across_slices(v, whole(v), h, ALL) for v, h in ((values, HEIGHTS), (values[::-1], HEIGHTS[::-1])))
    assert up == pytest.approx(down[::-1], rel=1e-6)


def test_thin_slices_among_thick_ones_do_not_count_more_than_their_share():
    """The same ramp, sampled evenly, and with its upper half sampled eight times as often."""
    even = np.arange(0, 81, 4.0)
    uneven = np.concatenate([even[even < 40], np.arange(40, 80.1, 0.5)])
    at = {}
    for heights in (even, uneven):
        ramp = np.broadcast_to(heights[:, None, None], (len(heights), 1, 1)).astype(np.float32)
        at[len(heights)] = across_slices(ramp, whole(ramp), heights, ALL)[heights == 40].item()
    assert at[len(even)] == pytest.approx(40.0, abs=0.1)
    assert at[len(uneven)] == pytest.approx(40.0, abs=0.6)
