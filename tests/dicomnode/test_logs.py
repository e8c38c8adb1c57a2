"""dicomnode.logs: a line for a machine or a person, and nothing of a patient in either."""

import ast
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

import dicomnode
from dicomnode import logs
from dicomnode.scp.wire import Malformed

NAME = "Marked^Patient"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    before = root.handlers[:], root.level, warnings.showwarning
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    (root.handlers[:], level, warnings.showwarning) = before
    root.setLevel(level)


def said(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def machines() -> io.StringIO:
    stream = io.StringIO()
    logs.configure(stream)
    return stream


def test_a_line_for_the_journal_is_one_object_with_the_key_of_its_study():
    stream = machines()
    with logs.about(study="01STUDY"), logs.about(job="01JOB"):
        logging.getLogger("dicomnode.tasks").warning("took %d s", 3)
    logging.getLogger("dicomnode.sweep").info("no study")
    first, second = said(stream)
    assert (first["message"], first["study"], first["job"]) == ("took 3 s", "01STUDY", "01JOB")
    assert (first["level"], first["logger"], first["time"][-6:]) == ("WARNING", "dicomnode.tasks", "+00:00")
    assert not {"study", "job", "association"} & set(second)


def test_another_thread_goes_on_about_the_same_job():
    stream = machines()
    with logs.about(job="01JOB"):
        about = logs.carried()
    thread = threading.Thread(target=lambda: (about(), logging.getLogger("dicomnode.x").warning("sent")))
    thread.start()
    thread.join()
    assert said(stream)[0]["job"] == "01JOB"


HOSTILE = 'A\nB\r{"level": "INFO"}\x1b[2J\x9b31m\u2028\u202e"'


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_a_peer_says_begins_no_line_and_moves_no_terminal(stream):
    to = stream()
    logs.configure(to)
    logging.getLogger("dicomnode.scp").warning("rejected %s", HOSTILE)
    line = to.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert all(c.isprintable() for c in line[:-1])


def _value_error() -> BaseException:
    try:
        try:
            float(NAME)
        except ValueError as error:
            raise KeyError(NAME) from error
    except KeyError as error:
        return error


def _database_error() -> BaseException:
    engine = create_engine("sqlite://")
    with engine.begin() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("CREATE TABLE t (a INTEGER CHECK (a > 0))"))
        connection.execute(text(f"INSERT INTO t VALUES ('{NAME}'), (0)"))
    engine.dispose()
    return caught.value


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize(
    "error",
    [_value_error(), _database_error(), OSError(2, "No such file", NAME), ExceptionGroup("two", [_value_error()])],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_told_without_what_it_quotes(stream, error: BaseException):
    to = stream()
    logs.configure(to)
    log = logging.getLogger("dicomnode.tasks")
    log.error("failed", exc_info=error)
    log.warning("cannot be read: %s", error)
    log.warning("by name: %(error)s", {"error": error})
    assert "Marked" not in to.getvalue()
    assert type(error).__name__ in to.getvalue()


def test_our_own_words_about_a_peer_s_bytes_are_kept_and_the_world_s_reasons():
    assert logs.words(Malformed("a PDU of 3 bytes")) == "Malformed: a PDU of 3 bytes"
    assert logs.words(OSError(28, "No space left on device", NAME)) == "OSError: No space left on device"


def test_libraries_that_print_values_are_named_and_not_quoted():
    stream = machines()
    names = ("pydicom", "highdicom", "sqlalchemy.engine", "celery.app.trace", "dicomnodes")
    for name in names:
        logging.getLogger(name).error(f"cannot decode {NAME}")
        logging.getLogger(name).error("cannot decode %s", NAME)
    assert "Marked" not in stream.getvalue()
    assert all("reports at test_logs.py:" in line["message"] for line in said(stream))
    assert len(said(stream)) == 2 * len(names)


def test_pynetdicom_says_nothing_of_strangers():
    stream = machines()
    logging.getLogger("pynetdicom.acse").error("called by %s", NAME)
    assert stream.getvalue() == ""


def test_warnings_tell_where_and_not_what():
    stream = machines()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(f"Invalid value for VR PN: {NAME}", UserWarning, stacklevel=1)
    assert "Marked" not in stream.getvalue()
    assert said(stream)[0]["message"].endswith(": UserWarning")


def test_a_line_that_cannot_be_written_does_not_print_its_arguments(capsys):
    stream = machines()
    logging.getLogger("dicomnode.x").warning("%d slices", NAME)
    assert "Marked" not in stream.getvalue() + capsys.readouterr().err
    assert "no line of test_logs.py" in stream.getvalue()


ENDS = """
import sys, threading
from dicomnode import logs
logs.configure()
def end(): raise ValueError("Marked^Patient")
thread = threading.Thread(target=end); thread.start(); thread.join()
class Lost:
    def __del__(self): raise ValueError("Marked^Patient")
Lost()
end()
"""


def test_a_process_and_a_thread_that_end_by_surprise_quote_nothing():
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Marked" not in ended.stderr + ended.stdout
    assert [line["level"] for line in map(json.loads, ended.stderr.splitlines())] == ["CRITICAL", "ERROR", "CRITICAL"]


def test_every_line_of_ours_has_a_constant_sentence_so_that_its_arguments_can_be_judged():
    calls = 0
    for path in Path(dicomnode.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                at, level = node.func.value, node.func.attr
                ours = isinstance(at, ast.Name) and at.id in ("log", "access_log")
                if ours and level in ("debug", "info", "warning", "error", "exception", "critical"):
                    calls += 1
                    first = node.args[0]
                    words = first.id if isinstance(first, ast.Name) else ""
                    assert isinstance(first, ast.Constant) or words == "words", f"{path.name}:{node.lineno}"
    assert calls > 30
