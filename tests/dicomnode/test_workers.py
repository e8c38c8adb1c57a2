"""Real workers: on two hosts that mount one spool in two places, over poison, and ahead of the job."""

import subprocess
from pathlib import Path

import pytest

from dicomnode import bookkeeping, crashpoints, tasks
from dicomnode.jobs import Lane, State
from tests.dicomnode.worker import HARD, SOFT, arrive, instances_of, made_ahead, open_job, present
from tests.dicomnode.workplace import Site, eventually, node_toml, running
from tests.tools import missing, program

ELSEWHERE = 'hostname elsewhere && mount --bind "$0" "$1" && shift && exec "$@"'


def another_host(spool: Path, mount_point: Path) -> list[str]:
    """What starts a process under another host name, with the spool mounted in another place."""
    enter = [program("unshare"), "--mount", "--uts"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        missing("no name spaces can be made here (unshare needs root)")
    mount_point.mkdir(parents=True)
    return [*enter, "sh", "-c", ELSEWHERE, str(spool), str(mount_point)]


def actors(site: Site, job_id: str) -> list[str]:
    """The hosts that began the job, in order."""
    job = bookkeeping.get_job(site.books, job_id)
    rows = bookkeeping.story(site.books, job.study).history
    return [row.actor.split(":")[0] for row in rows if row.after == State.PROCESSING]


@pytest.mark.parametrize("shape", ["servers"], indirect=True)
def test_a_worker_on_another_host_finishes_what_a_dead_one_began(tmp_path: Path, shape: tuple[str, str]):
    with running(tmp_path / "here", shape) as site:
        data_dir = site.settings.node.data_dir
        contents = {name: name.encode() * 1000 for name in ("first", "second", "third")}
        for name, content in contents.items():
            (data_dir / "in" / f"{name}.dcm").write_bytes(content)
        mount_point = tmp_path / "there" / "spool"
        enter = another_host(data_dir, mount_point)
        path = node_toml(tmp_path / "there", mount_point, shape)
        here = site.workers.start("process.routine")
        first = site.open("first", "copy 2.5")
        eventually(lambda: site.state(first) is State.PROCESSING, "the begin of the first job")
        site.workers.kill(here)
        site.workers.start("process.routine", command=enter, path=path)
        jobs = {"first": first} | {name: site.open(name, "copy") for name in ("second", "third")}
        site.ended(*jobs.values())
        assert {site.state(job_id) for job_id in jobs.values()} == {State.SENDING}
        assert actors(site, first)[-1] == actors(site, jobs["third"])[-1] == "elsewhere" != actors(site, first)[0]
        for name, job_id in jobs.items():
            (result,) = bookkeeping.results(site.books, job_id)
            assert (data_dir / result.path).read_bytes() == contents[name]


def test_what_was_computed_in_the_quiet_time_is_what_the_job_uses(tmp_path: Path, shape: tuple[str, str]):
    with running(tmp_path / "node", shape) as site:
        site.workers.start("process.routine")
        now, made = present(), made_ahead(site.settings.node.data_dir)
        arrive(site.books, "soon", Lane.ROUTINE, "ahead", now)
        tasks.foretell("ksoon", instances_of(site.books, "soon"), Lane.ROUTINE)
        eventually(made.exists, "the computation")
        job_id = open_job(site.books, "soon", Lane.ROUTINE, "ahead", now)  # nobody is woken for it
        site.ended(job_id)
        assert (site.state(job_id), made.read_text()) == (State.SENDING, "of 1.3.soon")


@pytest.mark.parametrize("shape", ["embedded"], indirect=True)
def test_who_dies_over_what_is_not_yet_a_job_costs_the_job_nothing(
    tmp_path: Path, shape: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    orders = tmp_path / "orders"
    orders.mkdir()
    (order := orders / "process.foreseen").touch()
    monkeypatch.setenv(crashpoints.ENVIRONMENT, str(orders))
    with running(tmp_path / "node", shape) as site:
        site.workers.start("process.routine")
        now = present()
        arrive(site.books, "soon", Lane.ROUTINE, "ahead", now)
        tasks.foretell("ksoon", instances_of(site.books, "soon"), Lane.ROUTINE)
        eventually(lambda: not order.exists(), "the death")
        job_id = open_job(site.books, "soon", Lane.ROUTINE, "ahead", now)
        tasks.wake_process(job_id, Lane.ROUTINE)
        site.ended(job_id)
        assert site.state(job_id) is State.SENDING
        assert bookkeeping.get_job(site.books, job_id).attempts == 1
        assert made_ahead(site.settings.node.data_dir).read_text() == "nothing"


@pytest.mark.slow
def test_poison_fails_alone(tmp_path: Path, shape: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    """What kills its worker, hangs or never comes back to Python fails with a reason; other jobs go on meanwhile."""
    sent = tasks.process._get_exec_options()  # a message tells the limits of who sends it
    monkeypatch.setitem(sent, "soft_time_limit", SOFT)
    monkeypatch.setitem(sent, "time_limit", HARD)
    with running(tmp_path / "node", shape) as site:
        for _ in range(2):
            site.workers.start("process.routine")
        poison = {deed: site.open(deed, deed) for deed in ("die", "hang", "stuck")}
        for name in (names := [f"well{number}" for number in range(6)]):
            (site.settings.node.data_dir / "in" / f"{name}.dcm").write_bytes(b"bytes")
        well = [site.open(name, "copy") for name in names]
        site.ended(*well, *poison.values())
        assert {site.state(job_id) for job_id in well} == {State.SENDING}
        assert {site.state(job_id) for job_id in poison.values()} == {State.FAILED}
        reasons = {deed: bookkeeping.get_job(site.books, job_id).reason for deed, job_id in poison.items()}
        assert "not computed within" in reasons["hang"]
        assert all("attempt 3 of 3" in reasons[deed] for deed in ("die", "stuck"))


@pytest.mark.parametrize("shape", ["servers"], indirect=True)
def test_a_worker_that_takes_long_to_start_is_left_to_start(tmp_path: Path, shape: tuple[str, str]):
    """Celery kills a process that is not up within four seconds, and the one after it, unless it is told otherwise."""
    with running(tmp_path / "node", shape) as site:
        site.workers.start("process.routine", command=["env", "SECONDS_TO_START=6"])
        (site.settings.node.data_dir / "in" / "late.dcm").write_bytes(b"bytes")
        job_id = site.open("late", "copy")
        site.ended(job_id)
        assert site.state(job_id) is State.SENDING
        assert "SIGKILL" not in (site.path.parent / "workers.log").read_text()
