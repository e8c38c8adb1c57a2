"""The receiving PACS, in a process of its own: it keeps a line for each instance that it takes, and no pixels."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

from pydicom import Dataset, dcmread
from pynetdicom import evt

from dicomnode.demo import free_port
from tests.crash.services import Service, answers
from tests.pacs import Pacs
from tests.walks.node import wait_for

HEADER = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "InstanceNumber")


@dataclass(frozen=True, slots=True)
class Taken:
    """One C-STORE that was answered with Success. thing: what it shows, whatever its UID."""

    study_instance_uid: str
    sop_instance_uid: str
    thing: tuple[str, str]
    sha256: str


@dataclass
class CountingPacs(Pacs):
    """Takes everything, commits to what it took, answers C-FIND."""

    ledger: TextIO | None = None

    def on_c_store(self, event: evt.Event) -> int:
        encoded = event.encoded_dataset(include_meta=False)
        head = dcmread(BytesIO(event.encoded_dataset()), stop_before_pixels=True, specific_tags=list(HEADER))
        line = {"sha256": sha256(encoded).hexdigest(), **{key: str(head.get(key, "")) for key in HEADER}}
        with self.door:
            self.ledger.write(json.dumps(line) + "\n")
            self.ledger.flush()
            known = Dataset()
            known.SOPInstanceUID, known.SeriesInstanceUID = head.SOPInstanceUID, head.SeriesInstanceUID
            self.received.append(known)
        return 0x0000

    def __post_init__(self) -> None:
        self.door = threading.Lock()


@contextmanager
def running(folder: Path) -> Iterator[tuple[int, Path]]:
    """Its port and its ledger."""
    port, ledger = free_port(), folder / "pacs.jsonl"
    command = [sys.executable, "-m", "tests.crash.pacs", str(port), str(ledger)]
    with Service("pacs", command, folder, {"PYTHONPATH": str(Path.cwd())}).running() as service:
        wait_for(lambda: answers(port), "the PACS")
        yield port, ledger
    assert service.starts == 1, f"the PACS ended by itself; see {service.log}"


def read(ledger: Path) -> list[Taken]:
    """All that it took."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [
        Taken(
            line["StudyInstanceUID"],
            line["SOPInstanceUID"],
            (line["SeriesDescription"], line["InstanceNumber"]),
            line["sha256"],
        )
        for line in lines
    ]


def main(port: str, ledger: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with (
        Path(ledger).open("a") as file,
        CountingPacs(ae_title="PACS", port=int(port), commits="same", finds=True, ledger=file).running(),
    ):
        stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
