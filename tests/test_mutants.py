"""Hand-made mistakes in the places where a mistake is dangerous: states, completeness, maps and geometry. All must die.

Each mutant changes one line in a copy of the code and runs the tests that should notice.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = ("tests/dicomnode/test_jobs.py",)
BOOKS = ("tests/dicomnode/test_bookkeeping.py",)
WHOLE = ("tests/dicomnode/test_completeness.py",)
MAPS = ("tests/inference/test_maps.py", "tests/inference/test_predict.py")
VOLUME = ("tests/inference/test_volume.py",)
GRID = ("tests/inference/test_preprocess.py",)
WRITER = ("tests/dicomnode/writer",)


@dataclass(frozen=True)
class Mutant:
    file: str
    line: str
    wrong: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant("dicomnode/jobs.py", "{State.DONE, State.FAILED}),", "{State.DONE, State.FAILED, State.QUEUED}),", JOBS),
    Mutant("dicomnode/jobs.py", "State.DONE: frozenset(),", "State.DONE: frozenset({State.QUEUED}),", JOBS),
    Mutant("dicomnode/jobs.py", "if after in NEXT[state])", "if state in NEXT[after])", JOBS),
    Mutant(
        "dicomnode/bookkeeping/jobs.py",
        "State.PROCESSING, Job.lease_until < now)",
        "State.PROCESSING, Job.lease_until > now)",
        BOOKS,
    ),
    Mutant(
        "dicomnode/bookkeeping/jobs.py", "(Job.id == job_id) & (Job.lease_owner == owner)", "Job.id == job_id", BOOKS
    ),
    Mutant("dicomnode/completeness.py", "NEIGHBOUR_RATIO = 1.5", "NEIGHBOUR_RATIO = 2.5", WHOLE),
    Mutant("dicomnode/completeness.py", "step > NEIGHBOUR_RATIO * max(", "step > NEIGHBOUR_RATIO * min(", WHOLE),
    Mutant("dicomnode/completeness.py", "* thickness + THICKNESS_SLACK", "* thickness - THICKNESS_SLACK", WHOLE),
    Mutant("dicomnode/completeness.py", "coverage(slices) >= COVERAGE", "coverage(slices) > COVERAGE", WHOLE),
    Mutant("dicomnode/completeness.py", "if self.open_associations or", "if", WHOLE),
    Mutant("dicomnode/completeness.py", "max(self.last_received_at, ", "min(self.last_received_at, ", WHOLE),
    Mutant("dicomnode/completeness.py", "return Verdict(By.TIMER, holes)", "return Verdict(By.TIMER)", WHOLE),
    Mutant("inference/maps.py", "* (2.0 / self.ceiling) - 1.0", "* (1.0 / self.ceiling)", MAPS),
    Mutant("inference/maps.py", "+ 1.0) * (self.ceiling / 2.0)", "+ 1.0) * self.ceiling", MAPS),
    Mutant("inference/maps.py", '"113069", "Time To Peak"', '"113052", "Time To Peak"', MAPS),
    Mutant("inference/volume.py", "np.argsort(offsets, kind=", "np.argsort(-offsets, kind=", VOLUME),
    Mutant("inference/volume.py", "np.cross(row_direction, column_direction)\n", "np.array([0.0, 0, 1])\n", VOLUME),
    Mutant("inference/volume.py", "hounsfield(datasets[i]) for i in order", "hounsfield(d) for d in datasets", VOLUME),
    Mutant("inference/volume.py", "hu[_padding(ds, stored)] = AIR", "hu[_padding(ds, stored)] = 0", VOLUME),
    Mutant("inference/preprocess.py", "left * np.copysign(1.0, left[0])", "left", GRID),
    Mutant("inference/preprocess.py", "back * np.copysign(1.0, back[1])", "back", GRID),
    Mutant("inference/preprocess.py", "x, y = axes[:2] @ position", "x, y = axes[:2] @ volume.positions[0]", GRID),
    Mutant("inference/preprocess.py", "between_rows, between_columns = ", "between_columns, between_rows = ", GRID),
    Mutant("inference/preprocess.py", "np.array([columns, rows])", "np.array([rows, columns])", GRID),
    Mutant(
        "inference/preprocess.py",
        "return _at(values, (wanted - lines[0]) / step",
        "return _at(values, (wanted - lines[0]) / target_step",
        GRID,
    ),
    Mutant("inference/preprocess.py", "NEIGHBOURS = (-4.0, 0.0, 4.0)", "NEIGHBOURS = (4.0, 0.0, -4.0)", GRID),
    Mutant("inference/preprocess.py", "np.roll(stack, (-rows, -columns)", "np.roll(stack, (rows, columns)", GRID),
    Mutant("dicomnode/writer/multiframe.py", "(positions @ normal).round", "(positions @ -normal).round", WRITER),
    Mutant("dicomnode/writer/parametric_map.py", "frames[multiframe.ascend(ds, normal)]", "frames", WRITER),
    Mutant("dicomnode/writer/plane.py", "(1 / factor - 1) / 2 *", "(1 - 1 / factor) / 2 *", WRITER),
)


def run(copy: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and its tests, to be spoilt."""
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("dicomnode", "inference", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("tests", sorted({m.tests for m in MUTANTS}), ids=lambda tests: tests[0])
def test_the_tests_pass_over_the_right_code(copy: Path, tests):
    passed = run(copy, tests)
    assert passed.returncode == 0, passed.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.wrong.strip()}")
def test_every_mutant_dies(copy: Path, mutant: Mutant):
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.line) == 1, "the line to spoil is not there exactly once"
    path.write_text(text.replace(mutant.line, mutant.wrong), encoding="utf-8")
    ran = run(copy, mutant.tests)
    assert ran.returncode == 1, f"it lives: {ran.stdout[-2000:]}"
    assert "failed" in ran.stdout


def test_there_are_mutants_enough_and_each_names_a_line_that_exists():
    assert len(MUTANTS) >= 20
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.line) == 1, mutant
