"""Places where a test may have the process die as a power cut would, to prove that nothing acknowledged is lost."""

import itertools
import os
import signal
from collections.abc import Iterator

ENVIRONMENT = "DICOMNODE_CRASH"

# Name: what has happened when it is passed. In the order in which one instance passes them.
POINTS: dict[str, str] = {
    "receive.begun": "the file has a name in tmp/ and no data set yet",
    "receive.written": "all bytes are written, none is durable",
    "receive.synced": "the file is durable under its name in tmp/",
    "receive.renamed": "the file is in in/, the name not yet durable",
    "receive.settled": "file and name are durable, nothing is recorded",
    "receive.noted": "the row is written, not committed",
    "receive.recorded": "the row is committed, nothing is answered",
    "receive.answered": "the C-STORE response is on its way",
    "recover.filed": "start-up has recorded one file that had no row",
}
_passed: dict[str, Iterator[int]] = {}


def _count_anew() -> None:
    _passed.update({name: itertools.count(1) for name in POINTS})


_count_anew()
os.register_at_fork(after_in_child=_count_anew)  # each process has passings of its own


def crashpoint(name: str) -> None:
    """Do nothing, unless DICOMNODE_CRASH is this name, or "name@7" at the seventh passing: then die by SIGKILL."""
    passing = next(_passed[name])
    wanted = os.environ.get(ENVIRONMENT)
    if wanted and wanted in (name, f"{name}@{passing}"):
        os.kill(os.getpid(), signal.SIGKILL)
