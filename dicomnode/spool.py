"""Bytes on disk: what is here has been fsynced, and every name is ours."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from ulid import ULID

FOLDERS = ("tmp", "in", "results", "quarantine", "broker")


@dataclass(frozen=True, slots=True)
class Spool:
    """One file system under data_dir. Paths in the books are relative to root, so hosts may mount it anywhere."""

    root: Path

    def make(self) -> "Spool":
        """Make the folders, for this account only, and clear what an interrupted write left."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in FOLDERS:
            (self.root / name).mkdir(exist_ok=True, mode=0o700)
        return self

    def clear_unfinished(self) -> None:
        """Remove half-written files; only for the one process that starts before all others."""
        for left in (self.root / "tmp").iterdir():
            left.unlink()

    def keep(self, content: bytes) -> str:
        """Store one received instance durably; its relative path."""
        return self._store(f"in/{ULID()}.dcm", content)

    def quarantine(self, content: bytes) -> str:
        """Set unreadable bytes aside, once, so that nobody has to ask the sender what they were."""
        relative = f"quarantine/{sha256(content).hexdigest()[:32]}.bin"
        return relative if self.path(relative).exists() else self._store(relative, content)

    def remove(self, relative: str) -> None:
        """Forget a file that the books do not know."""
        self.path(relative).unlink()

    def path(self, relative: str) -> Path:
        """Where a path from the books lies on this host."""
        return self.root / relative

    @contextmanager
    def result(self, job_id: str, name: str) -> Iterator[tuple[str, BinaryIO]]:
        """Write results/<job>/<name>: relative path and an open file; durable when the block ends without error."""
        relative = f"results/{job_id}/{name}"
        target = self.path(relative)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        with self._part() as part, part.open("xb") as file:
            yield relative, file
            _sync(file)
            part.replace(target)

    def settle(self, job_id: str) -> None:
        """Make the names of a job's results durable: one directory fsync for all of them."""
        _sync_folder(self.path(f"results/{job_id}"))
        _sync_folder(self.root / "results")

    def free_bytes(self) -> int:
        """Room left on the spool's file system."""
        return shutil.disk_usage(self.root).free

    def _store(self, relative: str, content: bytes) -> str:
        target = self.path(relative)
        with self._part() as part, part.open("xb") as file:
            file.write(content)
            _sync(file)
            part.replace(target)
        _sync_folder(target.parent)
        return relative

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A name for a file in the making; what a full disk cuts short is removed again."""
        part = self.root / "tmp" / f"{ULID()}.part"
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
