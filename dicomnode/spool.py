"""Bytes on disk: what is here has been fsynced, and every name is ours."""

import io
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ulid import ULID

from dicomnode.crashpoints import crashpoint

FOLDERS = ("tmp", "in", "results", "quarantine", "broker")
PILO = "pilo.npz"
RECEIVING = f"received-{socket.gethostname()}-"  # what names in tmp/ begin with while an instance arrives


class Part:
    """One received instance on its way to disk: written piece by piece under tmp/, then kept, quarantined or dropped.

    meta: preamble and file meta information; the digest is of what is written after it.
    Use it in a `with` block: what is neither kept nor quarantined is gone at its end.
    """

    def __init__(self, root: Path, meta: bytes = b"") -> None:
        self._root = str(root)
        self._path = f"{root}/tmp/{RECEIVING}{ULID()}.part"
        self._digest = sha256()
        self.bytes = 0
        self._placed = False  # it lies under tmp/ no more
        self._file = open(self._path, "x+b", buffering=0)  # noqa: PTH123, SIM115, a pathlib.Path costs as much again
        try:
            crashpoint("receive.begun")
            self._append(meta)
        except BaseException:
            self.drop()
            raise

    @property
    def sha256(self) -> str:
        """Digest of the data set as far as it has been written."""
        return self._digest.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece of the data set; raises OSError where the disk cannot take it."""
        self._digest.update(piece)
        self._append(piece)

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """The whole file from its beginning; nothing may be written any more."""
        self._file.seek(0)
        reader = io.BufferedReader(self._file)
        try:
            yield reader
        finally:
            reader.detach()

    def keep(self) -> str:
        """Make the bytes durable and move them to in/; the relative path. The name is durable after settle_in()."""
        return self._place(f"in/{ULID()}.dcm")

    def quarantine(self) -> str:
        """Set the bytes aside, durably and once; the relative path."""
        relative = f"quarantine/{self.sha256[:32]}.bin"
        if Path(self._root, relative).exists():
            self.drop()
            return relative
        self._place(relative)
        sync_folder(Path(self._root, "quarantine"))
        return relative

    def drop(self) -> None:
        """Forget the bytes, unless they have been kept."""
        self._file.close()
        if not self._placed:
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108
            self._placed = True

    def __enter__(self) -> "Part":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.drop()

    def _append(self, piece: bytes | memoryview) -> None:
        left = memoryview(piece)
        while left:
            left = left[self._file.write(left) :]  # a disk that is all but full takes a piece of the piece
        self.bytes += len(piece)

    def _place(self, relative: str) -> str:
        crashpoint("receive.written")
        os.fsync(self._file.fileno())
        crashpoint("receive.synced")
        os.replace(self._path, f"{self._root}/{relative}")  # noqa: PTH105
        self._placed = True
        crashpoint("receive.renamed")
        self._file.close()
        return relative


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

    def clear_unreceived(self) -> int:
        """Remove what this host's dead receivers left half-written; how many. Only before receivers are started."""
        left = list((self.root / "tmp").glob(f"{RECEIVING}*"))
        for part in left:
            part.unlink(missing_ok=True)
        return len(left)

    def part(self, meta: bytes = b"") -> Part:
        """Begin to receive one instance; raises OSError where the disk cannot take it."""
        return Part(self.root, meta)

    def settle_in(self) -> None:
        """Make the names in in/ durable: one directory fsync for all that have been kept."""
        sync_folder(self.root / "in")
        crashpoint("receive.settled")

    def received(self) -> Iterator[str]:
        """Relative paths of all that lies in in/."""
        with os.scandir(self.root / "in") as entries:
            for entry in entries:
                yield f"in/{entry.name}"

    def set_aside(self, relative: str) -> str:
        """Move a file that lies in in/ into quarantine/; its new relative path."""
        aside = f"quarantine/{Path(relative).name}"
        self.path(relative).replace(self.path(aside))
        sync_folder(self.root / "quarantine")
        sync_folder(self.root / "in")
        return aside

    def remove(self, relative: str) -> None:
        """Forget a file that the books do not know."""
        self.path(relative).unlink()

    def remove_results(self, job_id: str) -> None:
        """Remove all that was made for a job; what is gone already is no matter."""
        shutil.rmtree(self.path(f"results/{job_id}"), ignore_errors=True)

    def result_folders(self) -> list[str]:
        """The jobs that have a folder of results."""
        return [entry.name for entry in os.scandir(self.root / "results")]

    def clear_quarantine(self, before: float) -> int:
        """Remove what was set aside before this moment (seconds since 1970); how many files."""
        old = [path for path in (self.root / "quarantine").iterdir() if path.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

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
            crashpoint("write.begun")
            yield relative, file
            file.flush()
            crashpoint("write.written")
            os.fsync(file.fileno())
            crashpoint("write.synced")
            part.replace(target)
            crashpoint("write.renamed")

    def pilo(self, job_id: str) -> Path:
        """Where a job keeps what other ratios need."""
        return self.path(f"results/{job_id}/{PILO}")

    def settle(self, job_id: str) -> None:
        """Make the names of a job's results durable: one directory fsync for all of them."""
        sync_folder(self.path(f"results/{job_id}"))
        sync_folder(self.root / "results")
        crashpoint("write.settled")

    def free_bytes(self) -> int:
        """Room left on the spool's file system."""
        return shutil.disk_usage(self.root).free

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A name for a file in the making; what a full disk cuts short is removed again."""
        part = self.root / "tmp" / f"{ULID()}.part"
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
