"""Programs and data that a test may want from the machine; where they are absent the test skips, but never in CI."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def missing(what: str) -> None:
    """Skip with the reason; under PERFUSION_NO_SKIP=1 (CI) fail instead."""
    if os.environ.get("PERFUSION_NO_SKIP") == "1":
        pytest.fail(f"{what}; CI must not skip this")
    pytest.skip(what)


def program(name: str) -> str:
    """Path of an installed program; those of Python packages lie beside the interpreter."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:{beside}")
    if found is None:
        missing(f"{name} is not installed; scripts/debian-packages.sh installs it")
    return str(found)


def data(relative: str) -> Path:
    """A file or folder of the real test images."""
    root = os.environ.get("PERFUSION_TEST_DATA", "")
    path = Path(root) / relative
    if not root or not path.exists():
        missing(f"no test images at {path if root else 'PERFUSION_TEST_DATA (unset)'}")
    return path
