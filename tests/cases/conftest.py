"""Empty books, made once."""

from pathlib import Path

import pytest

from dicomnode import bookkeeping


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "empty.db"
    bookkeeping.migrate(f"sqlite:///{path}")
    return path
