"""The virtual patients of the simulator's own tests."""

from tests.training.simulate.conftest import mild, normal, severe

__all__ = ["mild", "normal", "severe"]
