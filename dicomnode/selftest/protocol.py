"""The record of installation and operational qualification (IQ, OQ) that a site signs, as Markdown."""

import platform
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from dicomnode import __version__
from dicomnode.config import Settings
from dicomnode.doctor import Finding
from dicomnode.selftest.run import Record
from inference.weights import Manifest

LIBRARIES = ("torch", "pynetdicom", "pydicom", "highdicom", "SimpleITK", "SQLAlchemy", "celery")
LINES = ("Carried out by", "Checked by", "Responsible for the system")


def text(
    record: Record, findings: Sequence[Finding], settings: Settings, settings_file: Path, manifest: Manifest
) -> str:
    """The whole record."""
    parts = (
        _head(record),
        _identity(settings, settings_file, manifest),
        _installation(findings),
        _operation(record),
        _times(record),
        _end(record, findings),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(record: Record) -> Iterator[str]:
    yield "# Qualification record of a perfusion node"
    yield ""
    yield "Written by `dicomnode selftest --protocol`. A virtual patient went through the running node to a receiver of"
    yield "the test's own. It shows that the installation works as it was built, and says nothing about accuracy."
    yield ""
    yield f"Date (UTC): {record.began_at:%Y-%m-%d %H:%M:%S}. Study Instance UID: {record.study_instance_uid}"
    yield ""


def _identity(settings: Settings, settings_file: Path, manifest: Manifest) -> Iterator[str]:
    broker = settings.broker.url.partition(":")[0] or "embedded (a folder of the data)"
    secure = ", TLS" if settings.listen.tls.certificate else ""
    rows = (
        ("Software", f"perfusion-node {__version__}"),
        ("AE title, port", f"{settings.node.ae_title}, {settings.listen.port}{secure}"),
        ("Intended use", settings.node.intended_use),
        ("Settings (node.toml), SHA-256", sha256(settings_file.read_bytes()).hexdigest()),
        ("Weights", f"{manifest.name} {manifest.version}, trained on {manifest.training_domain} patients"),
        ("Weights, SHA-256", manifest.sha256),
        ("Books, queue", f"{settings.books_url.partition(':')[0]}, {broker}"),
        ("Host", f"{platform.node()}, {platform.platform()}"),
        ("Python", platform.python_version()),
        ("Libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)),
    )
    yield from _table("What was tested", ("item", "value"), rows)


def _installation(findings: Sequence[Finding]) -> Iterator[str]:
    rows = [(f.check, f.found, f"TO MEND: {f.remedy}" if f.remedy else "passed") for f in findings]
    yield from _table("Installation qualification", ("check of `dicomnode doctor`", "found", "result"), rows)


def _operation(record: Record) -> Iterator[str]:
    rows = [(c.what, c.expected, c.found, "passed" if c.passed else "FAILED") for c in record.checks]
    yield from _table("Operational qualification", ("check", "expected", "found", "result"), rows)


def _times(record: Record) -> Iterator[str]:
    rows = [(what, f"{seconds:.2f}") for what, seconds in record.steps]
    yield from _table("Times", ("step", "seconds from the begin"), rows)


def _end(record: Record, findings: Sequence[Finding]) -> Iterator[str]:
    failed = sum(not check.passed for check in record.checks)
    mend = sum(bool(finding.remedy) for finding in findings)
    yield "## Result"
    yield ""
    yield f"Installation: {len(findings) - mend} of {len(findings)} checks passed."
    yield f"Operation: {len(record.checks) - failed} of {len(record.checks)} checks passed."
    yield ""
    yield f"**{'PASSED' if record.passed and not mend else 'NOT PASSED'}**"
    yield ""
    yield "Deviations and remarks:"
    yield ""
    yield from _rows(("role", "name", "date", "signature"), [(line, "", "", "") for line in LINES])


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield from _rows(head, rows)
    yield ""


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in row) + " |"
