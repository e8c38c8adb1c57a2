"""The administrator's guide taken literally on a root without the node: one command, the units, then maps in a PACS.

No systemd runs here: what ExecStart of each unit says is run by hand, as its user, in the order of the units.
"""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from dicomnode.demo import free_port
from tests.stage import Stage
from tests.walks.node import Orthanc, wait_for

REPOSITORY = Path(__file__).parents[2]
ORDER = ("prepare", "listen", "sweep", "work@stroke", "work@routine", "work@deliver")
COPIED = ("constraints.txt", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "Makefile",
          "dicomnode", "inference", "training", "scripts", "systemd", "docs")  # fmt: skip


def exec_start(unit: str) -> str:
    name, at, instance = unit.partition("@")
    text = (REPOSITORY / f"systemd/dicomnode-{name}{at}.service").read_text()
    (command,) = re.findall(r"(?m)^ExecStart=(.*)$", text)
    assert re.findall(r"(?m)^User=(.*)$", text) == ["dicomnode"]
    return str(command).replace("%i", instance)


def as_service(command: str) -> str:
    return f"setpriv --reuid dicomnode --regid dicomnode --clear-groups --no-new-privs {command}"


def started(unit: str) -> str:
    """As systemd starts it: the listener with the socket of its socket unit, each with the secrets' folder."""
    command = as_service(exec_start(unit))
    return f"{command} & " if unit != "prepare" else f"{command} && "


@pytest.mark.slow
def test_the_guide_taken_literally_ends_with_maps_in_orthanc(tmp_path: Path):
    guide = (REPOSITORY / "docs/administrator-guide.md").read_text()
    (typed,) = re.findall(r"(?m)^sudo (make install .*)$", guide)
    port = free_port()
    with Orthanc(
        tmp_path / "orthanc", free_port(), free_port(), more={"DicomAlwaysAllowStore": True}
    ).running() as pacs:
        typed = typed.replace("PACS@192.0.2.20:104", f"ORTHANC@127.0.0.1:{pacs.dicom_port}")
        stage = Stage(tmp_path / "stage")
        for name in COPIED:
            source = REPOSITORY / name
            stage.copy([source], f"/root/perfusion-node/{name}" if source.is_dir() else "/root/perfusion-node")
        stage.workdir = "/root/perfusion-node"
        stage.run(typed)
        settings = stage.folder / "upper/etc/dicomnode/node.toml"
        text = settings.read_text().replace("port = 11112", f"port = {port}").replace('"0.0.0.0"', '"127.0.0.1"')
        settings.write_text(text)
        dicomnode = "/opt/perfusion-node/.venv/bin/dicomnode"
        selftest = as_service(f"{dicomnode} selftest --to orthanc")
        until = f"until {as_service(dicomnode)} status | grep -q jobs; do sleep 1; done; sleep 10; "
        walk = "".join(started(unit) for unit in ORDER) + until + f"{selftest} && echo WALKED; echo ENDED; wait"
        log = tmp_path / "log"
        with log.open("ab") as file:
            node = subprocess.Popen(stage.command(walk), stdout=file, stderr=file, start_new_session=True)
        try:
            wait_for(lambda: node.poll() is not None or "ENDED" in log.read_text(), "the end of the walk", 600)
        finally:
            os.killpg(node.pid, signal.SIGTERM)
            node.wait(60)
        assert "WALKED" in log.read_text(), log.read_text()[-3000:]
        described = [series["MainDicomTags"]["SeriesDescription"] for series in json.loads(pacs.get("/series?expand"))]
    assert len([d for d in described if d.startswith("SYNTHETIC ")]) == 10  # captures and parametric maps of five kinds
