"""dicomnode.support and watch: what helpers and administrators see, of a node whose patient's name is marked."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicomnode import bookkeeping, config, support
from dicomnode.bookkeeping import ACTOR
from dicomnode.config import Settings
from dicomnode.intake import Intake
from dicomnode.jobs import State
from dicomnode.roles import Role
from dicomnode.spool import Spool
from tests.dicomnode.arrivals import arrive
from tests.dicomnode.test_bookkeeping import order
from tests.dicomnode.web.place import head_ct
from tests.walks.node import dicomnode, wait_for

MARKS = ("Marked", "Sankt Marien", "192.0.2.", "hospital.test", "MARIEN", "secretword", "anna")
LOG = """\
{"time": "2026-03-02T09:00:00", "level": "WARNING", "logger": "dicomnode.scp", "message": "MARIENCT at 192.0.2.10"}
Traceback: Marked^Patient
{"time": "2026-03-02T09:00:01", "level": "INFO", "message": "1.2.840.113619.2.55.3.7 and fe80::1", "patient": "Marked"}
"""


def marked(folder: Path, url: str) -> Settings:
    """A node that has received a marked patient, whose job failed, and refused a stranger."""
    raw = {
        "node": {"ae_title": "MARIEN"},
        "source": [{"ae_title": "MARIENCT", "addresses": ["192.0.2.10", "192.0.2.128/25"], "lane": "stroke"}],
        "destination": [
            {"name": "Sankt Marien", "ae_title": "MARIENPACS", "host": "pacs.hospital.test", "port": 1},
            {"name": "web", "stow_url": "http://user:secretword@pacs.hospital.test/dicom-web"},
        ],
        "books": {"url": url},
        "listen": {"host": "127.0.0.1"},
        "web": {"enabled": True},
        "alerts": {"webhook_url": "https://chat.hospital.test/secretword", "email_to": ["it@hospital.test"]}
        | {"email_from": "n@hospital.test", "smtp_host": "192.0.2.25"},
    }
    settings = config.parse(raw, folder=folder)
    bookkeeping.migrate(settings.books_url)
    books, now = bookkeeping.open_books(settings.books_url), datetime.now(UTC)
    names = {"PatientName": "Marked^Eva", "PatientID": "Marked1", "AccessionNumber": "Marked2"}
    slices = head_ct(**names, SeriesDescription="Marked description", StudyDescription="Marked")
    arrive(Intake(books, Spool(settings.node.data_dir).make()), slices, now)
    job = bookkeeping.open_job(books, order(books), now, now)
    assert job is not None
    bookkeeping.claim(books, job, ACTOR, now)
    bookkeeping.advance(books, job, ACTOR, State.FAILED, "ValueError: Marked^Eva", now)
    bookkeeping.note_refusal(books, "association", "192.0.2.66", "unlisted-source", "Marked at 192.0.2.66", now)
    bookkeeping.note_away(books, "Sankt Marien", "Marked", lambda _: timedelta(seconds=1), now)
    bookkeeping.add_account(books, "anna", Role.ADMINISTRATOR, None, now, "anna")
    bookkeeping.dismiss(books, job, "Marked is well", now, "anna")
    bookkeeping.close(books)
    return settings


def read(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def test_a_bundle_tells_what_helps_and_neither_patient_nor_peer_nor_secret(tmp_path: Path, books_url: str):
    settings, now = marked(tmp_path, books_url), datetime.now(UTC)
    (tmp_path / "node.log").write_text(LOG)
    books = bookkeeping.open_books(books_url)
    support.write(tmp_path / "b.zip", settings, books, tmp_path / "node.log", now)
    (study,) = bookkeeping.find_studies(books, "Marked2")
    (job,) = bookkeeping.story(books, study).jobs
    bookkeeping.close(books)
    parts = read(tmp_path / "b.zip")
    everything = "\n".join(parts.values())
    assert [mark for mark in (*MARKS, study, str(tmp_path)) if mark in everything] == []
    assert not re.search(r"\b1\.2\.\d+\.\d+\.\d+\.\d+", parts["log.jsonl"] + parts["history.jsonl"])
    assert json.loads(parts["about.json"])["packages"]["pydicom"]
    settings_told = json.loads(parts["settings.json"])
    assert settings_told["destination"][0]["objects"] == ["sc", "pm"]
    assert (settings_told["listen"]["port"], settings_told["node"]["ae_title"]) == (11112, "(set)")
    assert json.loads(parts["status.json"])["jobs"] == [["stroke", "FAILED", 1]]
    (told,) = map(json.loads, parts["jobs.jsonl"].splitlines())
    assert (told["job"], told["state"]) == (job.id, "FAILED")
    steps = [json.loads(line) for line in parts["history.jsonl"].splitlines()]
    assert [s["after"] for s in steps if s["id"] == job.id] == ["QUEUED", "PROCESSING", "FAILED", "DISMISSED"]
    assert {s["after"] for s in steps if s["subject"] == "association"} == {"unlisted-source"}
    assert "MEND  destination <destination 1>" in parts["doctor.txt"]
    first, second, last = map(json.loads, parts["log.jsonl"].splitlines())
    assert first["message"] == "<source 1> at <address>"
    assert (second["message"], last) == ("<uid> and <address>", {"lines_left_out": 1})


def test_a_bundle_is_written_though_the_books_are_gone(tmp_path: Path):
    (tmp_path / "node.toml").write_text('[books]\nurl = "sqlite:////nowhere/books.db"\n')
    said = dicomnode("support-bundle", "b.zip", cwd=tmp_path)
    assert "goes without them" in said.stderr
    assert set(read(tmp_path / "b.zip")) == {"about.json", "settings.json", "doctor.txt", "log.jsonl"}
    failed = dicomnode("support-bundle", "b.zip", "--log", "absent", cwd=tmp_path, check=False)
    assert (failed.returncode, "cannot be used" in failed.stderr) == (1, True)


def test_watching_shows_the_node_without_a_patient_until_it_is_stopped(tmp_path: Path):
    settings = marked(tmp_path, "")
    (tmp_path / "node.toml").write_text(
        '[node]\nae_title = "MARIEN"\n[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
    )
    assert settings.books_url.endswith("books.db")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    command = [sys.executable, "-m", "dicomnode", "status", "--watch"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )
    os.close(theirs)
    seen = bytearray()

    def shows() -> bool:
        if select.select([ours], [], [], 0.1)[0]:
            seen.extend(os.read(ours, 65536))
        return seen.count(b"Disk:") >= 2  # refreshed

    try:
        wait_for(shows, "two screens")
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal has gone
            while os.read(ours, 65536):
                pass
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    text = seen.decode(errors="replace")
    assert "MARIEN" in text
    assert "FAILED" not in text  # dismissed
    assert "never" in text
    assert "Marked" not in text
