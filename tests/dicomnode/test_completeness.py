"""dicomnode.completeness: a series is whole when its geometry says so, and else when the timer runs out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.completeness import COVERAGE, By, Quiet, Slice, coverage, gaps, judge
from dicomnode.config import Completeness

LIMITS = Completeness(quiet_seconds=2.0, give_up_seconds=60.0)
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def quiet(now: float, received: float = 0.0, released: float | None = 0.1, still_open: int = 0) -> Quiet:
    return Quiet(at(now), at(received), still_open, None if released is None else at(released))


def even(count: int, step: float = 5.0, thickness: float = 5.0) -> list[Slice]:
    return [Slice(step * i, thickness) for i in range(count)]


def test_a_contiguous_series_is_whole_two_seconds_after_the_last_release():
    assert judge(even(20), quiet(2.0), LIMITS).by is None
    assert judge(even(20), quiet(2.1), LIMITS).by is By.GEOMETRY


def test_quiet_counts_from_the_later_of_last_slice_and_last_release():
    assert judge(even(20), quiet(10.0, received=8.5, released=1.0), LIMITS).by is None
    assert judge(even(20), quiet(10.5, received=8.5, released=1.0), LIMITS).by is By.GEOMETRY


@pytest.mark.parametrize("circumstance", [{"still_open": 1}, {"released": None}])
def test_while_an_association_is_open_only_the_timer_closes(circumstance):
    assert judge(even(20), quiet(59.9, **circumstance), LIMITS).by is None
    assert judge(even(20), quiet(60.0, **circumstance), LIMITS).by is By.TIMER


def test_less_than_80_mm_waits_for_the_timer():
    assert COVERAGE == 80.0
    assert judge(even(17), quiet(3.0), LIMITS).by is By.GEOMETRY  # 16 steps of 5 mm
    assert judge(even(16), quiet(3.0), LIMITS).by is None
    assert judge(even(16), quiet(60.0), LIMITS).by is By.TIMER


def test_a_missing_slice_waits_for_the_timer_and_is_named():
    series = even(20)
    del series[7]
    assert judge(series, quiet(30.0), LIMITS).by is None
    verdict = judge(series, quiet(60.0), LIMITS)
    assert verdict.by is By.TIMER
    assert verdict.gaps == ((30.0, 40.0),)


def test_the_steps_of_the_real_tilted_series_are_contiguous():
    """4 mm slices 4.0 mm apart, one step of 1.08 mm, then 7 mm slices 7.0 mm apart."""
    offsets, thickness = [0.0], [4.0]
    for step in [4.0] * 13 + [1.08] + [7.0] * 13:
        offsets.append(offsets[-1] + step)
        thickness.append(7.0 if step == 7.0 or len(offsets) > 15 else 4.0)
    assert gaps([Slice(o, t) for o, t in zip(offsets, thickness, strict=True)]) == ()


def test_every_second_slice_missing_is_seen_by_the_thickness():
    assert len(gaps([Slice(10.0 * i, 5.0) for i in range(10)])) == 9
    assert gaps([Slice(10.0 * i, 0.0) for i in range(10)]) == ()  # no thickness, even steps: nothing speaks against it


@pytest.mark.parametrize(("step", "hole"), [(6.75, False), (6.76, True)])
def test_the_limit_is_a_quarter_more_than_the_thickness_and_half_a_millimetre(step, hole):
    assert bool(gaps([Slice(0, 5.0), Slice(step, 5.0), Slice(2 * step, 5.0)])) is hole


@pytest.mark.parametrize(("step", "hole"), [(7.5, False), (7.51, True)])
def test_the_limit_is_half_more_than_the_larger_neighbour(step, hole):
    places = [0.0, 4.0, 4.0 + step, 9.0 + step]
    assert bool(gaps([Slice(p, 0.0) for p in places])) is hole


def test_overlapping_reconstruction_shows_a_gap_by_its_neighbours():
    places = [2.5 * i for i in range(40) if i != 20]
    assert gaps([Slice(p, 5.0) for p in places]) == ((47.5, 52.5),)


def test_a_slice_sent_twice_is_one_position():
    assert gaps([*even(20), Slice(35.0, 5.0), Slice(35.005, 5.0)]) == ()


def test_nothing_is_not_a_series():
    assert coverage([]) == 0.0
    assert judge([], quiet(3.0), LIMITS).by is None


@given(st.permutations(range(20)), st.sampled_from([1, -1]), st.floats(0.6, 6.0), st.integers(1, 18))
def test_order_and_direction_do_not_matter_and_one_hole_is_one_gap(order, sign, step, lost):
    series = [Slice(sign * step * i, step) for i in order]
    assert gaps(series) == ()
    assert len(gaps([s for s in series if s.offset != sign * step * lost])) == 1
