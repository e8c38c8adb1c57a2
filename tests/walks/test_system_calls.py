"""What the kernel is asked to do for one instance: fsync(file) < rename < fsync(directory) < record < response."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from tests import phantom
from tests.crash.services import answers
from tests.tools import program
from tests.walks.node import Node, wait_for

SYNC, RENAME = ("fsync", "fdatasync"), ("rename", "renameat", "renameat2")
LINE = re.compile(r"(?P<thread>\d+) +(?P<resumed><\.\.\. )?(?P<name>\w+)(?P<rest>.*)")
P_DATA = r'"\4\0'  # how strace prints the beginning of a P-DATA-TF PDU (PS3.8 9.3.5)


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that has returned without error, with its arguments as strace prints them."""

    name: str
    arguments: str


def calls(trace: str) -> Iterator[Call]:
    """In the order in which they returned; a call that another thread's interrupted is put together again."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        found = LINE.fullmatch(line)
        if found is None:
            continue
        thread, name, rest = found["thread"], found["name"], found["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest
            continue
        arguments = begun.pop(thread) + rest if found["resumed"] else rest
        if re.search(r"= -1 E", arguments) is None:
            yield Call(name, arguments)


@contextmanager
def traced(node: Node, trace: Path) -> Iterator[None]:
    """`dicomnode listen` under strace, ready to receive."""
    which = ["-e", f"trace={','.join((*SYNC, *RENAME, 'sendto'))}"]
    tracer = [program("strace"), "-f", "-y", "--seccomp-bpf", *which, "-o", str(trace)]
    with (node.folder / "listen.log").open("wb") as log:
        command = [*tracer, sys.executable, "-m", "dicomnode", "listen"]
        process = subprocess.Popen(command, cwd=node.folder, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(node.settings.listen.port), "the listener")
        yield
    finally:
        listener = subprocess.run(
            [program("pgrep"), "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", *listener.stdout.split()], check=True)
        process.wait(60)


def send_one(node: Node) -> int:
    """One slice over one association; the status of the response."""
    ae = AE("STORESCU")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", node.settings.listen.port, ae_title="DICOMNODE")
    status = assoc.send_c_store(phantom.head([0.0], matrix=32)[0]).Status
    assoc.release()
    return int(status)


def test_one_instance_is_durable_named_durably_and_recorded_before_it_is_answered(tmp_path: Path):
    node = Node.init(tmp_path / "node", "--source", "STORESCU@127.0.0.1")
    trace = tmp_path / "trace"
    with traced(node, trace):
        assert send_one(node) == 0x0000
    seen = list(calls(trace.read_text()))
    data = re.escape(str(node.settings.node.data_dir))

    def places(arguments: str, *names: str) -> list[int]:
        return [n for n, call in enumerate(seen) if call.name in names and re.search(arguments, call.arguments)]

    (file,) = places(rf"<{data}/tmp/received-[^>]*\.part>", *SYNC)
    (named,) = places(rf'"{data}/tmp/received-[^"]*", .*"{data}/in/', *RENAME)
    (folder,) = places(rf"<{data}/in>", *SYNC)
    recorded = [n for n in places(rf"<{data}/books\.db-wal>", *SYNC) if n > folder]
    (answered,) = places(re.escape(P_DATA), "sendto")
    assert recorded, "the journal of the books was not fsynced after the instance"
    assert file < named < folder < recorded[0] < answered
