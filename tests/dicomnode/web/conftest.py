"""One service for the tests that only read, with one study of which everything has been made."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from pydicom import Dataset

from tests.dicomnode.web.browser import chromium
from tests.dicomnode.web.place import Place, computed, head_ct, serving


@pytest.fixture(scope="module")
def slices() -> list[Dataset]:
    return head_ct()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, slices: list[Dataset]) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("web")) as running:
        computed(running, slices, ("sc", "pm", "ct", "seg", "pdf"))
        yield running


@pytest.fixture
def empty(tmp_path) -> Iterator[Place]:
    """A service of one test alone."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched
