"""From the last slice to the last map: the real 28-slice GE series through `dicomnode up` into Orthanc."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median

from pydicom import dcmread

from dicomnode import bookkeeping
from dicomnode.bookkeeping import StudyStory
from dicomnode.demo import free_port
from dicomnode.jobs import DeliveryState
from tests.bench import processes
from tests.bench.table import markdown, spread
from tests.tools import data
from tests.walks.node import Node, Orthanc, wait_for

STEPS = (
    "series found whole and job opened (quiet time 2 s included)",
    "job claimed by a worker",
    "all files written",
    "secondary captures confirmed",
    "everything confirmed",
)


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Measure as often and say the table; the first study, which finds the workers cold, is not counted."""
    say(f"# From the last slice to the last map, {rounds} studies\n")
    pacs = Orthanc(folder / "orthanc", free_port(), free_port(), node_port=(port := free_port()))
    node = Node.init(
        folder / "node", "--source", "STORESCU@127.0.0.1", "--destination", f"ORTHANC@127.0.0.1:{pacs.dicom_port}"
    )
    toml = node.folder / "node.toml"
    toml.write_text(toml.read_text().replace(f"port = {node.settings.listen.port}", f"port = {port}"))
    object.__setattr__(node.settings.listen, "port", port)  # Orthanc has been told to report there
    found = []
    with pacs.running(), node.up() as up:
        for number in range(rounds + 1):
            study = _another(folder / f"study{number}", number)
            seconds = processes.cpu(up.pid)
            times = _one(node, folder / f"study{number}", study)
            seconds = processes.cpu(up.pid) - seconds
            if number:
                found.append((*times, seconds))
    columns = list(zip(*found, strict=True))
    rows = [[step, spread(column)] for step, column in zip(STEPS, columns, strict=False)]
    say(markdown(("seconds from the last slice until", "median (least to most)"), rows))
    say(f"\nThe node's processes take {median(columns[-1]):.1f} s of CPU for one study.\n")


def _another(folder: Path, number: int) -> str:
    """The series as another study; its Study Instance UID."""
    folder.mkdir()
    for n, path in enumerate(sorted(data("ct_ge_hispeed_tilt").glob("*.dcm"))):
        ds = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(ds, keyword, f"{getattr(ds, keyword)[:-3]}{100 + number}")
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{n:03d}.dcm", enforce_file_format=True)
    return str(ds.StudyInstanceUID)


def _one(node: Node, folder: Path, study: str) -> list[float]:
    """Seconds from the last slice until each of the steps."""
    if (sent := node.send(folder)).returncode:
        raise RuntimeError(sent.stderr)
    captures: list[float] = []

    def ended() -> bool:
        if not captures and _captures_confirmed(node, study):
            captures.append(time.time())
        return node.state(study) in ("DONE", "FAILED", "REJECTED", "REFUSED")

    wait_for(ended, "the end of the study", 600)
    story = node.story(study)
    if story is None or story.jobs[0].state != "DONE":
        raise RuntimeError(f"the study ended {node.state(study)}: {story and story.jobs and story.jobs[0].reason}")
    last = max(last for _, _, last in story.instances.values())
    opened, claimed, written, done = (
        (_at(story, word) - last).total_seconds() for word in ("QUEUED", "PROCESSING", "SENDING", "DONE")
    )
    confirmed = (captures or [time.time()])[0] - last.timestamp()
    return [opened, claimed, written, confirmed, done]


def _captures_confirmed(node: Node, study: str) -> bool:
    """True where the books hold a delivery of every capture and each is confirmed."""
    story = node.story(study)
    if story is None or not story.jobs:
        return False
    job = story.jobs[0].id
    kinds = {r.sop_instance_uid: r.kind for r in bookkeeping.results(node.books, job)}
    states = [d.state for d in bookkeeping.deliveries(node.books, job) if kinds.get(d.result) == "sc"]
    return len(states) == 5 * 28 and set(states) == {DeliveryState.CONFIRMED}


def _at(story: StudyStory, after: str) -> datetime:
    return next(row.at for row in story.history if row.subject == "job" and row.after == after)
