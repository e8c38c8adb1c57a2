"""Places where a test may have the process die as a power cut would, to prove that nothing acknowledged is lost."""

import itertools
import os
import signal
from collections.abc import Iterator

ENVIRONMENT = "DICOMNODE_CRASH"

# Name: what has happened when it is passed. In the order in which one study passes them.
POINTS: dict[str, str] = {
    # a receiver
    "receive.begun": "the file has a name in tmp/ and no data set yet",
    "receive.written": "all bytes are written, none is durable",
    "receive.synced": "the file is durable under its name in tmp/",
    "receive.renamed": "the file is in in/, the name not yet durable",
    "receive.settled": "file and name are durable, nothing is recorded",
    "receive.noted": "the row is written, not committed",
    "receive.recorded": "the row is committed, nothing is answered",
    "receive.answered": "the C-STORE response is on its way",
    "quarantine.kept": "unreadable bytes are set aside, durably, and nothing is recorded",
    "association.ended": "an association has ended, and its end is not recorded",
    "commitment.noted": "a request for storage commitment is recorded and not answered",
    "commitment.reported": "the report has been taken, and that is not recorded",
    "recover.filed": "start-up has recorded one file that had no row",
    # the sweep
    "sweep.judged": "a series is judged, nothing is recorded",
    "series.noted": "the row of a closed series is written, not committed",
    "job.noted": "the rows of a job are written, not committed",
    "job.recorded": "the job is committed, nobody is told",
    "job.woken": "the broker has the message",
    "reap.noted": "jobs whose worker vanished are queued again, not committed",
    "sweep.offered": "a job is marked as offered again, nobody is told",
    "purge.noted": "files of a study are marked as removed, not committed",
    "purge.recorded": "the mark is committed, no file is removed",
    # a worker
    "process.taken": "a message has come, nothing is claimed",
    "process.foreseen": "what will be a job is being computed, and there is no job",
    "process.claimed": "the lease is recorded, nothing is computed",
    "process.computed": "the maps are computed, no file is begun",
    "write.begun": "a result has a name in tmp/ and no bytes yet",
    "write.written": "its bytes are written, none is durable",
    "write.synced": "the file is durable under its name in tmp/",
    "write.renamed": "the file is in results/, the name not yet durable",
    "write.settled": "the names of a batch are durable, nothing is recorded",
    "write.noted": "the rows of the batch are written, not committed",
    "write.recorded": "the batch is committed",
    "process.written": "all files are recorded, the job is still being processed",
    "process.moved": "the job is to be sent, nobody is told",
    # a sender
    "deliver.taken": "a message has come, nothing is claimed",
    "deliver.claimed": "the lease is recorded, nothing is sent",
    "send.begun": "a C-STORE request is out, its data set is not",
    "send.sent": "the data set is out, no answer has been read",
    "send.answered": "answers have come, none is recorded",
    "send.noted": "the answers are written, not committed",
    "send.recorded": "the answers are committed",
    "confirm.noted": "a storage commitment transaction is recorded, the destination is not asked",
    "confirm.asked": "the destination has taken the question",
    "confirm.heard": "its report has come, nothing is recorded",
    "deliver.confirmed": "nothing more can be done for the job now, its state is not recorded",
    "deliver.closed": "the job has its last state, the message is not acknowledged",
}
_passed: dict[str, Iterator[int]] = {}
_wanted: str | None = None


def arm() -> None:
    """Read DICOMNODE_CRASH, once for each process, which has passings of its own: a receiver has no time for more."""
    global _wanted
    _wanted = os.environ.get(ENVIRONMENT)
    _passed.update({name: itertools.count(1) for name in POINTS})


arm()
os.register_at_fork(after_in_child=arm)


def crashpoint(name: str) -> None:
    """Do nothing, unless DICOMNODE_CRASH names this point: then die by SIGKILL.

    DICOMNODE_CRASH: the name, or "name@7" for the seventh passing; or the path of a folder, where a file with the name
    of a point is an order to whoever passes that point next.
    """
    passed = _passed[name]  # that a name is known is always seen to
    if _wanted and (_wanted in (name, f"{name}@{next(passed)}") or _ordered(_wanted, name)):
        os.kill(os.getpid(), signal.SIGKILL)


def _ordered(folder: str, name: str) -> bool:
    """True for the one process that takes the order: it is renamed to name.<process id>."""
    try:
        os.rename(f"{folder}/{name}", f"{folder}/{name}.{os.getpid()}")  # noqa: PTH104, as cheap as it can be
    except OSError:
        return False
    return True
