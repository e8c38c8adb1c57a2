"""systemd/ and scripts/install.sh: what is installed into an empty root folder verifies, and is hardened."""

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.up import WORKERS
from tests.tools import program

REPOSITORY = Path(__file__).parents[2]
UNITS = sorted((REPOSITORY / "systemd").glob("dicomnode*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MOST = 2.0  # exposure, of 10
PEERS = ("--source", "CT1@192.0.2.10", "--destination", "PACS@192.0.2.20:104")
# What differs from service to service: what it runs and when, and what torch needs.
OWN = {
    "type",
    "execstart",
    "remainafterexit",
    "watchdogsec",
    "timeoutstartsec",
    "timeoutstopsec",
    "killmode",
    "restart",
}
OWN |= {"restartsec", "memorydenywriteexecute", "procsubset"}


class Unit(ConfigParser):
    """A unit file; of a key that stands there several times, all lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        self.text = path.read_text()
        self.read_string(self.text)

    def all(self, key: str) -> list[str]:
        return re.findall(rf"(?m)^{key}=(.*)$", self.text)


def installed(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make install` into a folder, with the environment of this interpreter in place of a new one."""
    binaries = root / "opt/perfusion-node/.venv/bin"
    binaries.mkdir(parents=True, exist_ok=True)
    for name, module in (("python", ""), ("dicomnode", "-m dicomnode ")):
        (binaries / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        (binaries / name).chmod(0o755)
    environment = {**os.environ, "DESTDIR": str(root), "PACKAGES": "keep", "PYTHONPATH": str(REPOSITORY)}
    command = [str(REPOSITORY / "scripts/install.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    installed(folder, *PEERS)
    return folder


def test_every_unit_verifies_where_it_is_installed(root: Path):
    analyze = program("systemd-analyze")
    ours = "usr/lib/systemd/system"  # of Debian: the targets that all units lean on
    shutil.copytree(f"/{ours}" if Path(f"/{ours}").exists() else "/lib/systemd/system", root / ours, symlinks=True)
    names = [unit.name.replace("@.", "@stroke.") for unit in UNITS]
    checked = subprocess.run([analyze, "verify", f"--root={root}", *names], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert {"dicomnode.target", "dicomnode-listen.socket", "dicomnode-work@stroke.service"} <= set(names)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_every_service_is_hardened(unit: Path):
    command = [program("systemd-analyze"), "security", "--offline=yes", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure and float(exposure[1]) <= MOST, said[-300:]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_what_a_service_may_do_is_the_same_for_all(unit: Path):
    reference = Unit(REPOSITORY / "systemd/dicomnode.service")
    keys = set(reference["Service"]) - OWN
    mine = Unit(unit)
    assert {key: mine["Service"][key] for key in set(mine["Service"]) - OWN} == {
        key: reference["Service"][key] for key in keys
    }
    assert mine.all("SystemCallFilter") == reference.all("SystemCallFilter")
    computes = "work" in unit.name or unit.name == "dicomnode.service"
    assert mine["Service"]["MemoryDenyWriteExecute"] == ("no" if computes else "yes")


@pytest.mark.parametrize("unit", [u for u in SERVICES if "prepare" not in u.name], ids=lambda unit: unit.name)
def test_every_lasting_service_says_when_it_is_ready_and_is_watched(unit: Path):
    service = Unit(unit)["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "always"
    assert Unit(unit)["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_target_wants_every_kind_of_worker():
    wanted = " ".join(Unit(REPOSITORY / "systemd/dicomnode.target").all("Wants")).split()
    assert {f"dicomnode-work@{name}.service" for name in WORKERS} <= set(wanted)


def test_installing_leaves_settings_and_folders_for_nobody_else(root: Path):
    settings = config.load(root / "etc/dicomnode/node.toml")
    assert settings.node.data_dir == Path("/var/lib/dicomnode/data")
    assert (settings.source[0].ae_title, settings.destination[0].port) == ("CT1", 104)
    port = Unit(REPOSITORY / "systemd/dicomnode-listen.socket")["Socket"]["ListenStream"].rpartition(":")[2]
    assert settings.listen.port == int(port)
    for folder in ("etc/dicomnode/secrets", "var/lib/dicomnode"):
        assert (root / folder).stat().st_mode & 0o777 == 0o700
    assert (root / "etc/dicomnode/node.toml").stat().st_mode & 0o007 == 0
    assert not (root / "var/lib/dicomnode/data").exists()
    for unit in UNITS:
        assert (root / "etc/systemd/system" / unit.name).read_text() == unit.read_text()


def test_installing_again_keeps_the_settings_and_renews_the_units(tmp_path: Path):
    installed(tmp_path, *PEERS)
    settings, unit = tmp_path / "etc/dicomnode/node.toml", tmp_path / "etc/systemd/system/dicomnode.target"
    settings.write_text(settings.read_text() + "# edited\n")
    unit.write_text("old")
    said = installed(tmp_path)
    assert settings.read_text().endswith("# edited\n")
    assert "Description" in unit.read_text()
    assert "systemctl enable --now dicomnode.target" in said.stdout
