"""Virtual patients shared by the tests: each is drawn and solved once a session."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from training.simulate.geometry import Grid, even
from training.simulate.params import Severity
from training.simulate.patient import Patient, make

SEVERE, MILD, NORMAL = 3, 4, 1  # seeds; 3 is a right M1 10.7 h old, 1 has no lesion


torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost more than they bring


@cache
def _patient(seed: int, severity: Severity) -> Patient:
    return make(seed, severity=severity)


@pytest.fixture(scope="session")
def patient() -> Callable[[int, Severity], Patient]:
    return _patient


@pytest.fixture(scope="session")
def severe() -> Patient:
    return _patient(SEVERE, "severe")


@pytest.fixture(scope="session")
def mild() -> Patient:
    return _patient(MILD, "mild")


@pytest.fixture(scope="session")
def normal() -> Patient:
    return _patient(NORMAL, "none")


def small_grid(tilt: float = 0.0, slices: int = 8, first: float = -12.0) -> Grid:
    """A few slices through the ventricles at 128 x 128."""
    return Grid(even(slices, 5.0, first), 128, 128, 1.8, 5.0, tilt)
