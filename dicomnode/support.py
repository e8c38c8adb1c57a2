"""`dicomnode support-bundle`: what a stranger needs to help, and nothing by which a patient or the site could be known.

It is written from what may be told, not by taking out what may not: states, codes, counts and ids of our own. Where
words of others come along (the doctor's, the log's), names of the settings, addresses and UIDs are masked.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dicomnode import __version__, bookkeeping, doctor, explain
from dicomnode.bookkeeping import Books, History
from dicomnode.config import Settings
from dicomnode.jobs import DeliveryState, SeriesState, State

MOST_HISTORY, MOST_JOBS, MOST_LINES = 2000, 200, 5000
JOURNAL = ("journalctl", "--unit=dicomnode*", f"--lines={MOST_LINES}", "--output=cat", "--no-pager", "--quiet")
JOURNAL_PATIENCE = 20.0  # seconds

# What a line of history may say for itself; everything else is "(other)".
WORDS = {
    *(str(state) for states in (State, SeriesState, DeliveryState) for state in states),
    *explain.ADVICE,
    *("AWAY", "BACK", "WARNED", "DISMISSED", "closed"),
}
ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")  # what ids of ours look like

# Keys of node.toml whose values stay; texts of all others are masked.
PLAIN = frozenset(
    [
        "intended_use",
        "lane",
        "data_path",
        "routes",
        "engine",
        "weights",
        "objects",
        "transfer_syntax",
        "character_set",
        "capture_modality",
        "stand_ins",
        "confirm",
        "smtp_security",
    ]
)
LOG_KEYS = ("time", "level", "logger", "process", "message", "study", "job", "association", "error")
MASKS = (
    (re.compile(r"\b[a-z+]+://\S+"), "<url>"),
    (re.compile(r"\b\d+(?:\.\d+){5,}\b"), "<uid>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?\b"), "<address>"),
    (re.compile(r"(?<![\w:])(?=[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]{1,4}:){7})[0-9A-Fa-f:]{2,}"), "<address>"),
    (re.compile(r"\b[\w.+-]+@[\w.-]+\b"), "<peer>"),
)


def write(path: Path, settings: Settings, books: Books | None, logs: Path | None, now: datetime) -> None:
    """Write the bundle. books: None where they cannot be opened. logs: a file of lines; else the journal is asked."""
    mask = Mask(settings, [account.name for account, _ in bookkeeping.accounts(books)] if books else [])
    parts: dict[str, Iterable[str]] = {
        "about.json": [json.dumps(about(now), indent=1)],
        "settings.json": [json.dumps(masked_settings(settings), indent=1)],
        "doctor.txt": (mask(f"{'MEND' if f.remedy else 'ok'}  {f.check}: {f.found}") for f in doctor.examine(settings)),
        "log.jsonl": log_tail(logs, mask),
    }
    if books:
        parts |= {
            "status.json": [json.dumps(status(books, settings, now), indent=1)],
            "jobs.jsonl": map(json.dumps, jobs(books)),
            "history.jsonl": map(json.dumps, history(books, settings)),
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, lines in parts.items():
            bundle.writestr(name, "".join(f"{line}\n" for line in lines))


class Mask:
    """Replaces what the settings call themselves and their peers, addresses, UIDs and paths."""

    def __init__(self, settings: Settings, people: Iterable[str] = ()) -> None:
        known = dict.fromkeys(people, "<person>") | {
            settings.node.ae_title: "<us>",
            str(settings.node.data_dir): "<data_dir>",
            str(Path.home()): "<home>",
        }
        for n, source in enumerate(settings.source, 1):
            known |= {source.ae_title: f"<source {n}>"} | dict.fromkeys(source.addresses, "<address>")
        for n, destination in enumerate(settings.destination, 1):
            for name in (destination.name, destination.ae_title, destination.host):
                known[name] = f"<destination {n}>"
        known |= {settings.listen.tls.certificate: "<certificate>", settings.web.tls.certificate: "<certificate>"}
        known |= {platform.node(): "<host>"}
        self._known = {name: mask for name, mask in known.items() if name}
        longest_first = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first))

    def __call__(self, text: str) -> str:
        """The text without them."""
        text = self._pattern.sub(lambda found: self._known[found.group()], text)
        for pattern, mask in MASKS:
            text = pattern.sub(mask, text)
        return text


def about(now: datetime) -> dict[str, Any]:
    """Versions, and what machine this is."""
    installed = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {
        "made_at": now.isoformat(),
        "dicomnode": __version__,
        "python": sys.version,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": dict(sorted(installed.items())),
    }


def masked_settings(settings: Settings) -> Any:
    """node.toml as it is read: numbers, switches and choices as they are, all other texts as "set" or empty."""
    return _masked(asdict(settings), "")


def _masked(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _masked(each, name) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(each, key) for each in value]
    if isinstance(value, bool | int | float) or (key in PLAIN and "/" not in str(value)):
        return value
    return "(set)" if str(value) else ""


def status(books: Books, settings: Settings, now: datetime) -> dict[str, Any]:
    """Counts and ages."""
    aliases = _aliases(settings)
    oldest = bookkeeping.oldest_waiting(books)
    return {
        "books": bookkeeping.counts(books),
        "jobs": [[str(lane), str(state), n] for lane, state, n in bookkeeping.jobs_by_state(books)],
        "oldest_waiting_seconds": {str(lane): (now - at).total_seconds() for lane, (_, at) in oldest.items()},
        "alive": bookkeeping.alive(books, now),
        "deliveries": [
            [aliases.get(where, "(other)"), str(state), n] for where, state, n in bookkeeping.deliveries_by_state(books)
        ],
        "away_since": {aliases.get(a.destination, "(other)"): a.since.isoformat() for a in bookkeeping.absences(books)},
        "alerts": [[alert.kind, alert.since.isoformat()] for alert in bookkeeping.open_alerts(books)],
    }


def jobs(books: Books) -> Iterator[dict[str, Any]]:
    """The newest jobs, by ids, states and codes."""
    for job, _ in bookkeeping.recent_jobs(books, MOST_JOBS):
        yield {
            "job": job.id,
            "lane": str(job.lane),
            "route": job.route,
            "revision": job.revision,
            "state": str(job.state),
            "reason_code": job.reason_code,
            "attempts": job.attempts,
            "created_at": job.created_at.isoformat(),
            "done_at": job.done_at and job.done_at.isoformat(),
            "engine": job.engine,
        }


def history(books: Books, settings: Settings) -> Iterator[dict[str, Any]]:
    """The newest lines of history: what, from what to what and when, without the words."""
    aliases, series = _aliases(settings), dict[str, str]()
    for row in bookkeeping.last_history(books, MOST_HISTORY):
        yield {
            "at": row.at.isoformat(),
            "subject": row.subject,
            "id": _id(row, aliases, series),
            "before": _word(row.before),
            "after": _word(row.after),
            "by": "process" if ":" in row.actor else "person",
        }


def _id(row: History, aliases: Mapping[str, str], series: dict[str, str]) -> str:
    """Ids of ours as they are; series numbered as they come; nothing of all others."""
    if row.subject == "series":
        return series.setdefault(row.subject_id, f"series {len(series) + 1}")
    if row.subject == "destination":
        return aliases.get(row.subject_id, "(other)")
    return row.subject_id if row.subject == "job" and ULID.fullmatch(row.subject_id) else ""


def _word(word: str | None) -> str | None:
    return word if word is None or word in WORDS else "(other)"


def _aliases(settings: Settings) -> dict[str, str]:
    return {destination.name: f"destination {n}" for n, destination in enumerate(settings.destination, 1)}


def log_tail(path: Path | None, mask: Mask) -> Iterator[str]:
    """The last lines that are ours, masked; what others wrote between them is only counted."""
    others = 0
    for line in _log_lines(path):
        try:
            read = json.loads(line)
            kept = {key: read[key] for key in LOG_KEYS if key in read}
        except (ValueError, TypeError):
            others += 1
            continue
        yield mask(json.dumps(kept))
    yield json.dumps({"lines_left_out": others})


def _log_lines(path: Path | None) -> list[str]:
    if path:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-MOST_LINES:]
    if not shutil.which(JOURNAL[0]):
        return []
    try:
        said = subprocess.run(JOURNAL, capture_output=True, text=True, check=False, timeout=JOURNAL_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.splitlines()[-MOST_LINES:]


def default_name(now: datetime) -> Path:
    """Where the bundle goes unless somebody says otherwise."""
    return Path(f"dicomnode-support-{now:%Y%m%d-%H%M%S}.zip")
