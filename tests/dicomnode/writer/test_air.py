"""The word SYNTHETIC never touches the head, and finds its place wherever there is one."""

from dataclasses import replace

import numpy as np
import pytest

from dicomnode.writer import air
from inference.volume import from_slices
from tests import phantom


def covered(volume):
    """(slices, rows, columns) bool: the voxels of all words."""
    frames = np.zeros(volume.hu.shape, bool)
    for word in air.synthetic_words(volume):
        word.onto(frames, True)
    return frames


def near(volume, distance):
    """Where a voxel is within a distance in mm (along rows and columns) of anything that is not air."""
    body = volume.hu > air.AIR_BELOW
    reach = [int(distance / mm) for mm in volume.pixel_spacing]
    found = body.copy()
    for axis, steps in zip((1, 2), reach, strict=True):
        found = np.any([np.roll(found, step, axis) for step in range(-steps, steps + 1)], axis=0)
    return found


@pytest.mark.parametrize("position", phantom.POSITIONS)
@pytest.mark.parametrize("tilt", [0.0, 20.0])
def test_no_voxel_near_the_head_is_touched(position, tilt):
    volume = from_slices(phantom.head(patient_position=position, tilt_degrees=tilt, matrix=256, field_of_view=240.0))
    words = covered(volume)
    assert words.any(axis=(1, 2)).all()
    assert not (words & near(volume, air.CLEARANCE)).any()


def test_one_place_serves_all_frames():
    words = list(air.synthetic_words(from_slices(phantom.head(matrix=256, field_of_view=240.0))))
    assert {word.corner for word in words} == {words[0].corner}
    assert [word.frame for word in words] == list(range(26))


def test_a_tight_field_of_view_gets_smaller_letters_or_a_place_for_each_frame():
    """In the widest slices the head leaves no room; the others still say what they are."""
    volume = from_slices(phantom.head(field_of_view=180.0, matrix=256))
    words = covered(volume)
    marked = words.any(axis=(1, 2))
    assert marked.any()
    assert not marked.all()
    assert not (words & near(volume, air.CLEARANCE)).any()


def test_a_plane_full_of_head_gets_no_word():
    volume = from_slices(phantom.head(matrix=64))
    full = replace(volume, hu=np.full_like(volume.hu, 40.0))
    assert not covered(full).any()


def test_the_word_keeps_off_the_edge_and_near_the_top():
    row, column = air.clear_place(np.zeros((200, 300), bool), (10, 60), (1.0, 1.0))
    assert (row, column) == (7, 120)


def test_the_clearance_is_in_millimetres_on_both_axes():
    body = np.zeros((200, 200), bool)
    body[60:, :] = True
    row, _ = air.clear_place(body, (10, 60), (0.5, 2.0))
    assert row + 10 <= 60 - 10
    body = np.zeros((200, 200), bool)
    body[:, 100:] = True
    _, column = air.clear_place(body, (10, 60), (0.5, 2.0))
    assert column + 60 == 100 - 3


def test_the_letters_can_be_told_apart_at_every_size_used():
    for matrix in (64, 128, 256, 512):
        sizes = {max(air.SMALLEST_WORD, round(size * matrix)) for size in air.WORD_SIZES}
        assert min(sizes) >= air.SMALLEST_WORD
