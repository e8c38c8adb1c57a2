"""Workers of one node on two hosts that mount its spool in two places: one dies, the other finishes its work."""

import subprocess
from pathlib import Path

import pytest

from dicomnode import bookkeeping
from dicomnode.jobs import State
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
