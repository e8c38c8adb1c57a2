"""What the services say while they run: one JSON object a line for the journal, plain lines at a terminal.

A line may be read by people who may not read the patient's name. So nothing in it comes from a data set: of our own
exceptions only those of TELLING speak, all others and all libraries but those of TRUSTED are named and not quoted.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TextIO, TypeVar

# Whose sentences hold nothing that came in a data set. Of any other logger only the place that spoke is told.
TRUSTED = ("dicomnode", "inference", "alembic", "celery.worker", "kombu", "uvicorn")
# Errors of pynetdicom repeat what strangers call themselves, with line ends and all.
LEVELS = {"pynetdicom": "CRITICAL", "alembic": "WARNING", "celery": "WARNING", "kombu": "ERROR"}

# Exceptions of ours whose text is made of our own words and numbers; those of the senders may quote a peer's comment.
TELLING = frozenset(
    {
        "dicomnode.alerts.webhook.NotTaken",
        "dicomnode.bookkeeping.jobs.LeaseLost",
        "dicomnode.bookkeeping.store.BooksOutdated",
        "dicomnode.config.ConfigError",
        "dicomnode.room.NoRoom",
        "dicomnode.scp.store.TooLarge",
        "dicomnode.scp.wire.EndedHere",
        "dicomnode.scp.wire.Malformed",
        "inference.weights.WeightsError",
    }
)
# The fields of a line that name what it is about: ids of ours, never a patient's.
KEYS = ("study", "job", "association")
WARNING_HEAD = re.compile(r"^.*?:\d+: \w+(?=:)")  # of warnings.formatwarning; what follows may quote a value

P = ParamSpec("P")
R = TypeVar("R")

_subject: ContextVar[Mapping[str, str]] = ContextVar("subject", default={})  # noqa: B039  never changed in place


def configure(stream: TextIO | None = None) -> None:
    """Send every line of this process to standard error: lines for people at a terminal, else JSON."""
    to = stream or sys.stderr
    handler = Quiet(to)
    handler.setFormatter(ForPeople() if to.isatty() else ForMachines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread
    sys.unraisablehook = _on_unraisable


@contextmanager
def about(**keys: str) -> Iterator[None]:
    """Lines of this block are about these: study, job, association; each an id of ours."""
    token = _subject.set({**_subject.get(), **keys})
    try:
        yield
    finally:
        _subject.reset(token)


def of_job(task: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    """A function whose lines are about the job of its first argument."""

    @wraps(task)
    def keyed(job_id: str, /, *more: P.args, **named: P.kwargs) -> R:
        with about(job=job_id):
            return task(job_id, *more, **named)

    return keyed


def carried() -> Callable[[], None]:
    """What makes lines of another thread be about what this one is about; to be called there."""
    subject = _subject.get()

    def carry() -> None:
        _subject.set(subject)

    return carry


def words(error: BaseException) -> str:
    """An exception without what it may quote."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in TELLING:
        return f"{kind.__name__}: {error}"
    if isinstance(error, OSError):
        return f"{kind.__name__}: {error.strerror}" if error.strerror else kind.__name__
    if any(base.__name__ == "OperationalError" for base in kind.__mro__):  # the database is away, not a value wrong
        return f"{kind.__name__}: {str(getattr(error, 'orig', error)).splitlines()[:1]}"
    return kind.__name__


def trace(error: BaseException) -> list[str]:
    """A traceback without values: the places, and the exception in words; what caused it first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = trace(before) if before else []
    for part in getattr(error, "exceptions", ()):  # of a group
        lines += trace(part)
    places = traceback.extract_tb(error.__traceback__)
    return [*lines, *(f"{place.filename}:{place.lineno} in {place.name}" for place in places), words(error)]


def sentence(record: logging.LogRecord) -> str:
    """What a record says, or who says something that may quote a data set."""
    if record.name.partition(".")[0] == "py":
        head = WARNING_HEAD.match(record.getMessage())
        return head.group() if head else "a warning"
    if not any(record.name == name or record.name.startswith(f"{name}.") for name in TRUSTED):
        return f"{record.name} reports at {record.filename}:{record.lineno}"
    if isinstance(record.args, Mapping):
        return str(record.msg) % {name: _argument(each) for name, each in record.args.items()}
    return str(record.msg) % tuple(map(_argument, record.args)) if record.args else str(record.msg)


def _argument(value: object) -> object:
    return words(value) if isinstance(value, BaseException) else value


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """A record as the journal gets it."""
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "process": record.process,
        "message": sentence(record),
    }
    subject = _subject.get()
    line |= {key: said for key in KEYS if (said := getattr(record, key, None) or subject.get(key))}
    if record.exc_info and record.exc_info[1]:
        line["error"] = trace(record.exc_info[1])
    return line


class ForMachines(logging.Formatter):
    """One JSON object a line; what a peer says can begin no line of its own, since JSON escapes it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(fields(record))


class ForPeople(logging.Formatter):
    """One line, and indented ones for an error; what is no letter is escaped, since terminals obey such characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines."""
        line = fields(record)
        about_what = "".join(f" [{key} {line[key]}]" for key in KEYS if key in line)
        head = f"{line['time']} {line['level']} {line['logger']}: {line['message']}{about_what}"
        return "\n  ".join(map(visible, [head, *line.get("error", ())]))


class Quiet(logging.StreamHandler[TextIO]):
    """A handler that names a record which cannot be written, and does not print its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Tell where, and nothing of what."""
        with suppress(OSError, ValueError):
            self.stream.write(
                json.dumps({"level": "ERROR", "message": f"no line of {record.filename}:{record.lineno}"}) + "\n"
            )


def visible(text: str) -> str:
    """The text with everything escaped that is not printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _on_uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(__name__).critical("ended by what nobody expected", exc_info=error)


def _on_uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value and ended.exc_type is not SystemExit:
        logging.getLogger(__name__).critical("a thread ended by what nobody expected", exc_info=ended.exc_value)


def _on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    logging.getLogger(__name__).error("lost at the end of an object", exc_info=lost.exc_value)
