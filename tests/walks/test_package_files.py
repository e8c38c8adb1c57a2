"""Every DICOM file inside pydicom and pynetdicom, pushed through a running node by two senders.

They are the odd ones: every transfer syntax and character set, private, broken, cut short. `-s` prints the counts.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
import pynetdicom
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE

from tests.tools import program
from tests.walks.node import Node

PROPOSED = {  # transfer syntax: option of storescu that proposes it
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
STORED, REFUSED = "0x0000", "0xC000"
AT_THE_SENDER = ("not sent: ", "not negotiated")  # what never reaches the node, and says why
GROWTH = 32 * 2**20  # bytes that the receivers may grow in two more rounds, of which each is as large


def files() -> list[Path]:
    """All files but those of Python, so that DICOM files without a suffix are among them."""
    folders = (Path(package.__file__).parent for package in (pydicom, pynetdicom))
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.suffix in (".dcm", "") or "test_files" in path.parts)


def by_pynetdicom(path: Path, port: int) -> str:
    try:
        meta = dcmread(path, stop_before_pixels=True).file_meta
        sop_class, syntax = meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID
    except (AttributeError, InvalidDicomError, NotImplementedError, ValueError) as error:
        return f"not sent: {type(error).__name__}"
    ae = AE("STORESCU")
    ae.add_requested_context(sop_class, syntax)
    assoc = ae.associate("127.0.0.1", port, ae_title="DICOMNODE")
    try:
        if not assoc.accepted_contexts:
            return "not negotiated"
        return f"0x{assoc.send_c_store(path).Status:04X}"
    except (AttributeError, ValueError) as error:
        return f"not sent: {type(error).__name__}"
    finally:
        if assoc.is_established:
            assoc.release()


def by_dcmtk(path: Path, port: int) -> str:
    try:
        syntax = str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    except (AttributeError, InvalidDicomError, NotImplementedError, ValueError):
        syntax = ""
    options = [PROPOSED[syntax]] if syntax in PROPOSED else []
    command = [program("storescu"), "-v", *options, "-aec", "DICOMNODE", "127.0.0.1", str(port), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    answers = re.findall(r"Received Store Response \(([^)]*)\)", said.stdout + said.stderr)
    if answers:
        return {"Success": STORED, "Error: CannotUnderstand": REFUSED}.get(answers[0], answers[0])
    if "No Acceptable Presentation Contexts" in said.stdout + said.stderr or "No presentation context" in said.stderr:
        return "not negotiated"
    wrong = re.findall(r"^[EF]: (.*)$", said.stdout + said.stderr, re.MULTILINE)
    return f"not sent: {wrong[0].split(':')[0][:40] if wrong else said.returncode}"


def memory(node: Node) -> int:
    """Bytes that the receivers hold."""
    words = [Path(f"/proc/{pid}/status").read_text() for pid in node.processes("listen")]
    return sum(int(found[1]) * 1024 for text in words if (found := re.search(r"VmRSS:\s+(\d+)", text)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("send", [by_pynetdicom, by_dcmtk])
def test_each_is_stored_or_refused_with_a_status_and_the_node_lives_on(
    send: Callable[[Path, int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    node = Node.init(tmp_path, "--source", "STORESCU@127.0.0.1")
    with node.up():
        port, receivers = node.settings.listen.port, node.processes("listen")
        first = {path: send(path, port) for path in files()}
        held = memory(node)
        for _ in range(2):
            again = {path: send(path, port) for path in files()}
        grown = memory(node) - held
        assert node.listens()
        assert node.processes("listen") == receivers
    counts = Counter(first.values())
    with capsys.disabled():
        print(f"\n{send.__name__}: {len(first)} files, receivers grew by {grown / 2**20:.1f} MiB in two more rounds")
        for outcome, count in counts.most_common():
            print(f"  {count:4d}  {outcome}")
    odd = {path.name: said for path, said in first.items() if said not in (STORED, REFUSED)}
    assert {said for said in odd.values() if not said.startswith(AT_THE_SENDER)} == set(), odd
    assert again == first
    assert counts[STORED] > 100
    assert grown < GROWTH
