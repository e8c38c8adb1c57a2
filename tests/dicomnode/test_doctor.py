"""dicomnode.doctor: for each check, the thing it looks at is broken and the remedy read, and a sound node has none."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode import bookkeeping, config, oidc, timekeeping
from dicomnode.config import Settings
from dicomnode.demo import free_port
from dicomnode.doctor import CHECKS, examine, machine
from dicomnode.roles import Role
from dicomnode.spool import Spool
from dicomnode.tasks import QUEUES
from dicomnode.timekeeping import Clock
from inference import weights
from tests.dicomnode.scp.test_tls import Authority
from tests.dicomnode.web.place import HASH, serving
from tests.listeners import Mailbox
from tests.pacs import Pacs

PROVIDER = {"issuer": "https://login.hospital.test", "client_id": "node", "viewer": ["radiology"]}
SOURCE = {"ae_title": "CT1", "addresses": ["192.0.2.10"]}
Raw = dict[str, Any]
Breaks = Callable[[Raw, Path, pytest.MonkeyPatch], AbstractContextManager[None] | None]


def sound(pacs_port: int, mail_port: int) -> Raw:
    """A node of which nothing runs yet, and nothing is wrong."""
    return {
        "source": [SOURCE],
        "destination": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}],
        "listen": {"host": "127.0.0.1", "port": free_port()},
        "web": {"enabled": True, "port": free_port()},
        "alerts": {
            "email_to": ["it@hospital.test"],
            "email_from": "n@hospital.test",
            "smtp_host": "127.0.0.1",
            "smtp_port": mail_port,
            "smtp_security": "none",
        },
        "processing": {"threads": 1},
    }


def make(raw: Raw, folder: Path) -> Settings:
    settings = config.parse(raw, folder=folder)
    Spool(settings.node.data_dir).make()
    bookkeeping.migrate(settings.books_url)
    books = bookkeeping.open_books(settings.books_url)
    bookkeeping.add_account(books, "anna", Role.ADMINISTRATOR, HASH, datetime.now(UTC), "test")
    bookkeeping.close(books)
    return settings


def no_folder(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "data")


def not_ours(raw: Raw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder / "data")  # root may write everywhere


def small_disk(raw: Raw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOM", 2**60)


def older_books(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    for path in (folder / "data").glob("books.db*"):
        path.unlink()


def database_away(raw: Raw, *_: object) -> None:
    raw["books"] = {"url": "postgresql+psycopg://nobody@127.0.0.1:1/books"}


def broker_away(raw: Raw, *_: object) -> None:
    raw["broker"] = {"url": "amqp://guest:secretword@127.0.0.1:1//"}


def no_broker_folder(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "data" / "broker")


def no_weights(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    raw["processing"] = {"weights": f"{folder}/none"}


def torn_weights(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    shutil.copytree(weights.shipped(), folder / "w")
    with (folder / "w" / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"torn")
    raw["processing"] = {"weights": f"{folder}/w"}


def weights_for_another_engine(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    shutil.copytree(weights.shipped(), folder / "w")
    path = folder / "w" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architecture": "other"}))
    raw["processing"] = {"weights": f"{folder}/w"}


def many_threads(raw: Raw, *_: object) -> None:
    raw["processing"] = {"threads": 9999}


def clinical(raw: Raw, *_: object) -> None:
    raw["node"] = {"intended_use": "clinical"}


def clocks_apart(raw: Raw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timekeeping, "look", lambda *_: Clock(-61.0, True))


def our_title_twice(raw: Raw, *_: object) -> None:
    raw["source"] = [SOURCE, SOURCE | {"ae_title": "DICOMNODE"}]


def destination_twice(raw: Raw, *_: object) -> None:
    raw["destination"].append(raw["destination"][0] | {"name": "again"})


def nobody_sends(raw: Raw, *_: object) -> None:
    raw["source"] = []


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


def port_taken(raw: Raw, *_: object) -> AbstractContextManager[None]:
    return taken(raw["listen"]["port"])


def web_port_taken(raw: Raw, *_: object) -> AbstractContextManager[None]:
    return taken(raw["web"]["port"])


def one_port_for_both(raw: Raw, *_: object) -> None:
    raw["web"]["port"] = raw["listen"]["port"]


def certificate_ends(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    certificate, key = Authority(folder).found().sign("node", days=10)
    raw["listen"]["tls"] = {"certificate": certificate, "key": key}


def certificate_gone(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    raw["web"]["tls"] = {"certificate": f"{folder}/none.pem", "key": f"{folder}/none.key"}


def no_administrator(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    books = bookkeeping.open_books(f"sqlite:///{folder}/data/books.db")
    bookkeeping.remove_account(books, "anna", datetime.now(UTC), "test")
    bookkeeping.close(books)


def signs(folder: Path, *roles: str, ago: timedelta = timedelta()) -> None:
    books = bookkeeping.open_books(f"sqlite:///{folder}/data/books.db")
    for role in roles:
        bookkeeping.beat(books, f"here:{role}", role, datetime.now(UTC) - ago)
    bookkeeping.close(books)


def sweep_silent(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    signs(folder, "listen", f"work {','.join(QUEUES)}")
    signs(folder, "sweep", ago=timedelta(minutes=5))


def no_worker(raw: Raw, folder: Path, _: pytest.MonkeyPatch) -> None:
    signs(folder, "listen", "sweep")


def no_destination(raw: Raw, *_: object) -> None:
    raw["destination"] = []


def pacs_away(raw: Raw, *_: object) -> None:
    raw["destination"][0]["port"] = 1


def web_pacs_away(raw: Raw, *_: object) -> None:
    raw["destination"] = [{"name": "pacs", "stow_url": "http://127.0.0.1:1/dicom-web"}]


def provider_away(raw: Raw, _: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(oidc.SECRET, "secretword")
    raw["web"] |= {"public_url": "http://127.0.0.1:1", "oidc": {**PROVIDER, "issuer": "http://127.0.0.1:1"}}


def no_client_secret(raw: Raw, *_: object) -> None:
    raw["web"] |= {"public_url": "http://127.0.0.1:1", "oidc": PROVIDER}


def mail_away(raw: Raw, *_: object) -> None:
    raw["alerts"]["smtp_port"] = 1


# check, what is done to the node, what the finding says, what the remedy says
BROKEN: tuple[tuple[str, Breaks, str, str], ...] = (
    ("data_dir", no_folder, "does not exist", "dicomnode init"),
    ("data_dir", not_ours, "is not writable", "chown"),
    ("disk", small_disk, "GiB free", "larger disk"),
    ("books", older_books, "are at revision None", "dicomnode migrate"),
    ("books", database_away, "connection", "start the database"),
    ("broker", broker_away, "refused", "start the broker"),
    ("broker", no_broker_folder, "does not exist", "dicomnode migrate"),
    ("weights", no_weights, "none", "install the package again"),
    ("weights", torn_weights, "model.safetensors", "install the package again"),
    ("weights", clinical, "virtual", "research"),
    ("engine", weights_for_another_engine, "'other'", "install the package again"),
    ("engine", many_threads, "9999 threads", "or 0"),
    ("clock", clocks_apart, "-61.00 s from the database", "time service"),
    ("AE titles", our_title_twice, "[[source]] DICOMNODE has our own", "its own AE title"),
    ("AE titles", destination_twice, "goes there twice", "one entry"),
    ("sources", nobody_sends, "none", "add a [[source]]"),
    ("port", port_taken, "another program", "change [listen] port"),
    ("web port", web_port_taken, "another program", "change [web] port"),
    ("web port", one_port_for_both, "the listener's too", "another port"),
    ("tls", certificate_ends, "(9 days)", "restart the listener"),
    ("tls", certificate_gone, "cannot be used", "mend the paths in [web] tls"),
    ("accounts", no_administrator, "administrators: none", "account add NAME --role administrator"),
    ("provider", provider_away, "refused", "[web.oidc]"),
    ("provider", no_client_secret, "no client secret", "DICOMNODE_OIDC_SECRET"),
    ("services", sweep_silent, "sweep is silent; no sweep", "dicomnode up"),
    ("services", no_worker, "no worker computes; no worker sends", "dicomnode up"),
    ("destination", no_destination, "none", "add a [[destination]]"),
    ("destination", pacs_away, "no association", "start the PACS"),
    ("destination", web_pacs_away, "refused", "mend stow_url"),
    ("mail", mail_away, "refused", "smtp_host"),
)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of a PACS and of a mail server that are there."""
    with Pacs().running() as pacs, Mailbox().running() as box:
        yield pacs.port, box.port


def test_every_check_has_something_that_breaks_it():
    assert {check for check, *_ in BROKEN} == set(CHECKS)


def test_a_sound_node_has_no_remedies(tmp_path: Path, peers: tuple[int, int], monkeypatch):
    monkeypatch.setattr(machine, "ROOM", 0)
    found = list(examine(make(sound(*peers), tmp_path)))
    assert [f for f in found if f.remedy] == []
    assert {f.check.partition(" ")[0] for f in found} >= {"data_dir", "broker", "engine", "clock", "services", "mail"}


@pytest.mark.parametrize(("check", "breaks", "found", "remedy"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
def test_what_is_broken_is_found_and_the_remedy_told(check, breaks, found, remedy, tmp_path: Path, peers, monkeypatch):
    raw = sound(*peers)
    make(raw, tmp_path)
    with breaks(raw, tmp_path, monkeypatch) or nullcontext():
        said = list(CHECKS[check](config.parse(raw, folder=tmp_path), datetime.now(UTC)))
    (wrong,) = [finding for finding in said if finding.remedy]
    assert found in wrong.found
    assert remedy in wrong.remedy
    assert "secretword" not in wrong.found


def test_services_of_ours_hold_their_ports_and_a_whole_node_is_well(tmp_path: Path, books_url: str):
    with serving(tmp_path, books_url) as place:
        web = {"enabled": True, "port": place.settings.web.port}
        settings = config.parse({"books": {"url": books_url}, "web": web}, folder=tmp_path)
        for process, role in enumerate(("listen", "sweep", "work process.stroke", "work deliver")):
            bookkeeping.beat(place.books, f"here:{process}", role, datetime.now(UTC))
        now, checks = datetime.now(UTC), ("web port", "services", "clock")
        found = {f.check: f for check in checks for f in CHECKS[check](settings, now)}
    assert "held by our web service" in found["web port"].found
    assert [f.remedy for f in found.values()] == ["", "", ""]
    assert ("SQLite has no other clock" in found["clock"].found) == books_url.startswith("sqlite")


def test_a_broker_that_is_there_answers_and_is_left_nothing(tmp_path: Path, broker_url: str):
    settings = make({"broker": {"url": broker_url}}, tmp_path)
    (found,) = CHECKS["broker"](settings, datetime.now(UTC))
    assert (found.remedy, list((tmp_path / "data" / "broker").iterdir())) == ("", [])
