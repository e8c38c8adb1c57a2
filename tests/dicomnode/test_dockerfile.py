"""Dockerfile: what stands there is read, and where this machine allows it, carried out without Docker.

RUN and COPY are carried out literally in a stage (tests/stage.py), and the result runs as the image would: without
privileges, with a root that cannot be written. What the base image holds this does not show.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer

from dicomnode.__main__ import app
from dicomnode.demo import free_port
from dicomnode.notify import ALIVE_FILE, Pulse
from dicomnode.up import WORKERS
from tests.stage import Stage
from tests.walks.node import wait_for

REPOSITORY = Path(__file__).parents[2]
STATE, SETTINGS = "/var/lib/dicomnode", "/etc/dicomnode/node.toml"


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments; lines that go on are put together."""
    text = re.sub(r"\\\n", " ", (REPOSITORY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def last(name: str) -> str:
    return [rest for each, rest in stages()[-1] if each == name][-1]


def commands() -> set[str]:
    return set(typer.main.get_command(app).commands)


def test_what_is_copied_is_there_and_is_not_ignored():
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, rest in stages()[0]:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert any(fnmatch(source, pattern) for pattern in kept), source


def test_base_images_are_pinned_and_the_image_is_not_run_by_root():
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    assert len(set(bases)) == 1
    assert last("USER") == "10001"
    assert f"--uid {last('USER')}" in " ".join(rest for _, rest in stages()[-1])


def test_every_role_of_the_image_and_of_the_compose_example_is_a_command():
    compose = (REPOSITORY / "docs/compose.yaml").read_text()
    roles = [shlex.split(role.replace(",", " ")) for role in re.findall(r"command: \[(.*)\]", compose)]
    assert {role[0] for role in roles} == {"prepare", "listen", "sweep", "work"}
    assert {role[1] for role in roles if role[0] == "work"} == set(WORKERS)
    assert {role[0] for role in roles} | set(json.loads(last("CMD"))) <= commands()
    assert re.findall(r"image: (?!perfusion-node)(\S+)", compose) != []
    assert all(re.search(r":\d", image) for image in re.findall(r"image: (?!perfusion-node)(\S+)", compose))


def healthy(file: Path) -> bool:
    command = last("HEALTHCHECK").partition("CMD ")[2]
    checked = subprocess.run(["sh", "-c", command], env={**os.environ, ALIVE_FILE: str(file)}, capture_output=True)
    return checked.returncode == 0


def test_the_health_check_looks_for_signs_of_life(tmp_path: Path, monkeypatch):
    file = tmp_path / "alive"
    assert not healthy(file)
    monkeypatch.setenv(ALIVE_FILE, str(file))
    Pulse().beat()
    assert healthy(file)
    os.utime(file, (time.time() - 90,) * 2)
    assert not healthy(file)


def built(folder: Path) -> Stage:
    """The last stage, with every instruction of every stage carried out."""
    done: list[Stage] = []
    for number, stage in enumerate(stages()):
        here, arguments = Stage(folder / str(number)), {}
        for name, rest in stage:
            if name == "WORKDIR":
                here.workdir = rest
                here.run("true") if Path(rest).exists() else (here.folder / f"upper{rest}").mkdir(
                    parents=True, exist_ok=True
                )
            elif name == "ARG":
                key, _, value = rest.partition("=")
                arguments[key] = value
            elif name == "ENV":
                for key, value in (pair.split("=", 1) for pair in shlex.split(rest)):
                    here.environment[key] = value.replace("$PATH", here.environment["PATH"])
            elif name == "USER":
                here.user = f"{rest}:{rest}"
            elif name == "RUN":
                here.run(rest, **arguments)
            elif name == "COPY" and rest.startswith("--from="):
                source, to = rest.split()[1:]
                here.copy([done[-1].folder / f"upper{source}"], to)
            elif name == "COPY":
                *sources, to = rest.split()
                here.copy([REPOSITORY / source for source in sources], to)
        done.append(here)
    return done[-1]


@contextmanager
def container(stage: Stage, folder: Path, command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """As `docker run --read-only --tmpfs /tmp` with a volume and node.toml."""
    mounts = f"mount --bind {folder}/data $R{STATE}; mount --bind {folder}/etc $R/etc/dicomnode; mount -o remount,ro $R"
    with log.open("ab") as file:
        process = subprocess.Popen(stage.command(command, mounts), stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_make_an_image_whose_roles_work_on_a_read_only_root(tmp_path: Path):
    stage = built(tmp_path / "stages")
    for name in ("data", "etc"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "data", 10001, 10001)
    (tmp_path / "data").chmod(0o700)
    port = free_port()
    subprocess.run(
        [sys.executable, "-m", "dicomnode", "init", "--only-settings", "--data-dir", f"{STATE}/data"],
        cwd=tmp_path / "etc",
        check=True,
    )
    settings = tmp_path / "etc/node.toml"
    settings.write_text(settings.read_text().replace("port = 11112", f"port = {port}").replace("0.0.0.0", "127.0.0.1"))
    log, entry = tmp_path / "log", json.loads(last("ENTRYPOINT"))[0]
    health = last("HEALTHCHECK").partition("CMD ")[2]
    work = f"({entry} {json.loads(last('CMD'))[0]} & echo $! > /tmp/up.pid); until {health}; do sleep 1; done; "
    work += (
        f"touch /etc/written {stage.python}/written 2>/tmp/no; cat /tmp/no; id -u; {entry} selftest && echo WALKED; "
    )
    with container(stage, tmp_path, work + "kill $(cat /tmp/up.pid); wait; echo ENDED", log) as process:
        wait_for(lambda: process.poll() is not None or "ENDED" in log.read_text(), "the end of the container", 600)
    said = log.read_text()
    assert "WALKED" in said, said[-3000:]
    assert said.count("Read-only file system") == 2
    assert "\n10001\n" in said
