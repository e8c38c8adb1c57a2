"""Random fields: one owner each, streams that never collide, and values that do not depend on who asks first."""

import numpy as np
import pytest
import torch

from training.simulate.fields import FIELDS, STREAMS, Fields, Owner, Streams

UNIT = torch.rand((3, 4, 5, 3), generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_field_is_refused_to_anybody_but_its_owner():
    for name, field in FIELDS.items():
        for owner in Owner:
            fields = Fields(Streams(1), owner, {})
            if owner is field.owner:
                assert fields.at_unit(name, UNIT).shape == (field.channels, 3, 4, 5)
            else:
                with pytest.raises(PermissionError, match=name):
                    fields.at_unit(name, UNIT)


def test_a_stream_is_refused_to_anybody_but_its_owner():
    with pytest.raises(PermissionError, match="ncct noise"):
        Streams(1).generator("ncct noise", Owner.PHYSIOLOGY)


def test_no_name_is_both_a_field_and_a_stream():
    assert not FIELDS.keys() & STREAMS.keys()


def test_a_field_is_the_same_whatever_was_drawn_before():
    first, second = Fields(Streams(7), Owner.PHYSIOLOGY, {}), Fields(Streams(7), Owner.PHYSIOLOGY, {})
    first.at_unit("local flow", UNIT)
    assert torch.equal(first.at_unit("delay", UNIT), second.at_unit("delay", UNIT))


def test_streams_differ_between_patients_attempts_names_and_repeats():
    """The prototype's seed + constant made the noise of one patient the parameters of another."""
    seeds = (0, 1, 55, 77, 1_000_000, 2_000_000)
    draws = [
        Streams(seed, attempt).generator(name, owner, repeat).random()
        for seed in seeds
        for attempt in (0, 1)
        for name, owner in STREAMS.items()
        for repeat in (0, 1, 2)
    ]
    assert len(set(draws)) == len(draws)


def test_a_seed_that_is_not_one_word_is_refused():
    with pytest.raises(ValueError, match="4294967296"):
        Streams(2**32)
    with pytest.raises(ValueError, match="no such field"):
        Streams(1, swapped=frozenset({"no such field"}))


def test_fields_have_unit_variance():
    """Means over 40 patients of the variance over the template; interpolation between nodes takes up to 8 %."""
    everywhere = torch.rand((10, 10, 10, 3), generator=torch.Generator().manual_seed(2)) * 2 - 1
    for name in ("regional flow", "local flow", "collateral islands"):
        values = [
            Fields(Streams(seed), Owner.PHYSIOLOGY, {}).at_unit(name, everywhere)[0].numpy() for seed in range(40)
        ]
        assert np.mean(np.square(values)) == pytest.approx(1.0, abs=0.15)
