"""The commands as typed: exit codes, and errors that say what to do."""

from pathlib import Path

import pytest

from dicomnode import __version__, bookkeeping, config
from dicomnode.doctor import examine
from tests.walks.node import dicomnode

PEERS = ("--source", "CT1@192.0.2.10", "--destination", "PACS@127.0.0.1:1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dicomnode("init", *PEERS, cwd=tmp_path)
    return tmp_path


def test_init_leaves_settings_and_books_that_work(folder: Path):
    settings = config.load(folder / "node.toml")
    assert settings.source[0].ae_title == "CT1"
    assert settings.destination[0].port == 1
    bookkeeping.open_books(settings.books_url).kw["bind"].dispose()
    assert "jobs        none" in dicomnode("status", cwd=folder).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("init",), 2, "node.toml exists already"),
        (("init", "--force", "--destination", "PACS@192.0.2.1"), 2, "needs its port"),
        (("init", "--force", "--source", "nonsense"), 2, "AET@HOST"),
        (("explain", "1.2.3"), 1, "nothing is known of 1.2.3"),
        (("status", "--config", "absent.toml"), 2, "dicomnode init"),
        (("work", "--queues", "fast"), 2, "no queue is called 'fast'"),
        (("work", "fast"), 2, "no worker is called 'fast'"),
        (("retry", "1.2.3"), 1, "nothing of 1.2.3 has failed"),
        (("dance",), 2, "No such command"),
    ],
)
def test_mistakes_are_told_with_the_remedy_and_the_right_code(folder: Path, arguments, code, words):
    failed = dicomnode(*arguments, cwd=folder, check=False)
    assert failed.returncode == code
    assert words in failed.stderr


def test_a_wrong_key_ends_every_command_with_its_name(folder: Path):
    path = folder / "node.toml"
    path.write_text(path.read_text().replace("[listen]\n", "[listen]\nprot = 5\n"))
    for command in ("up", "work", "status"):
        failed = dicomnode(command, cwd=folder, check=False)
        assert failed.returncode == 2
        assert "[listen] has no key 'prot'; did you mean 'port'?" in failed.stderr


def test_books_of_another_version_name_the_command_that_mends_them(folder: Path):
    (folder / "data" / "books.db").unlink()
    failed = dicomnode("status", cwd=folder, check=False)
    assert failed.returncode == 2
    assert "run `dicomnode migrate`" in failed.stderr
    dicomnode("migrate", cwd=folder)
    dicomnode("status", cwd=folder)


def test_weights_that_are_not_there_end_the_services_with_a_sentence(folder: Path):
    path = folder / "node.toml"
    path.write_text(path.read_text().replace('weights = ""', 'weights = "typo"'))
    for command in ("up", "sweep"):
        failed = dicomnode(command, cwd=folder, check=False)
        assert failed.returncode == 2
        assert "no weights named 'typo' are shipped" in failed.stderr


def test_help_and_version(tmp_path: Path):
    assert dicomnode("--version", cwd=tmp_path).stdout == f"dicomnode {__version__}\n"
    listed = dicomnode("--help", cwd=tmp_path).stdout
    for command in ("demo", "init", "up", "listen", "sweep", "work", "status", "explain", "retry", "doctor", "migrate"):
        assert f" {command} " in listed


def test_a_taken_port_ends_the_listener_with_a_sentence(folder: Path):
    import socket

    path = folder / "node.toml"
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        path.write_text(path.read_text().replace("port = 11112", f"port = {taken.getsockname()[1]}"))
        failed = dicomnode("listen", cwd=folder, check=False)
    assert failed.returncode == 1
    assert "cannot listen on 0.0.0.0 port" in failed.stderr
    assert "dicomnode doctor" in failed.stderr


# doctor


def remedies(folder: Path, **sections) -> dict[str, str]:
    raw = {"node": {"data_dir": str(folder / "data")}, "listen": {"host": "127.0.0.1"}, **sections}
    return {finding.check: finding.remedy for finding in examine(config.parse(raw))}


def test_doctor_says_what_to_do_about_everything(tmp_path: Path):
    found = remedies(tmp_path)
    assert "dicomnode init" in found["data_dir"]
    assert "dicomnode migrate" in found["books"]
    assert "[[source]]" in found["sources"]
    assert "[[destination]]" in found["destination"]
    assert found["weights"] == ""


def test_doctor_finds_each_fault_and_nothing_else(folder: Path):
    source = [{"ae_title": "CT1", "addresses": ["192.0.2.10"]}]
    away = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}]
    found = remedies(folder, source=source, destination=away)
    assert {check for check, remedy in found.items() if remedy} <= {"destination pacs", "disk"}
    assert "start the PACS" in found["destination pacs"]
    clinical = {"data_dir": str(folder / "data"), "intended_use": "clinical"}
    assert "research" in remedies(folder, node=clinical)["weights"]
    assert "install the package again" in remedies(folder, processing={"weights": f"{folder}/none"})["weights"]
