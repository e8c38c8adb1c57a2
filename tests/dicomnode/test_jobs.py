"""dicomnode.jobs: the one table of what may follow what."""

import itertools

import pytest

from dicomnode.jobs import NEXT, OPERATOR_ONLY, State, before

ALLOWED = {
    ("QUEUED", "PROCESSING"),
    ("PROCESSING", "SENDING"),
    ("PROCESSING", "QUEUED"),
    ("PROCESSING", "REJECTED"),
    ("PROCESSING", "FAILED"),
    ("SENDING", "DONE"),
    ("SENDING", "FAILED"),
    ("FAILED", "QUEUED"),
    ("FAILED", "SENDING"),
    ("REJECTED", "QUEUED"),
}


@pytest.mark.parametrize(("was", "after"), list(itertools.product(State, State)))
def test_exactly_these_transitions_exist(was: State, after: State):
    assert (after in NEXT[was]) is ((was.value, after.value) in ALLOWED)
    assert (was in before(after)) is ((was.value, after.value) in ALLOWED)


def test_every_state_is_in_the_table_and_done_is_the_end():
    assert set(NEXT) == set(State)
    assert NEXT[State.DONE] == frozenset()


def test_only_an_operator_brings_a_job_back():
    assert {State.FAILED, State.REJECTED} == OPERATOR_ONLY
