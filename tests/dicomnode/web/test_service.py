"""`dicomnode web` as an administrator runs it: TLS, a crash in the middle of a request, and the whole way with `up`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from dicomnode import bookkeeping, config, data, doctor, passwords
from dicomnode.demo import free_port
from dicomnode.jobs import Lane
from dicomnode.recovery import recover
from dicomnode.roles import Role
from dicomnode.spool import Spool
from tests.dicomnode.arrivals import only_series, part10
from tests.dicomnode.scp.test_tls import Authority
from tests.dicomnode.web.place import PASSWORD, head_ct, multipart
from tests.pacs import Pacs
from tests.walks.node import Node, dicomnode, wait_for


@contextmanager
def running(node: Node, answers: Callable[[], bool] | None = None) -> Iterator[None]:
    """`dicomnode web` until the block ends."""
    with (node.folder / "web.log").open("ab") as log:
        command = [sys.executable, "-m", "dicomnode", "web"]
        process = subprocess.Popen(command, cwd=node.folder, stdout=log, stderr=log)
        try:
            wait_for(answers or node.serves, "the web service")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def store(address: str, token: str, parts: list[bytes]) -> requests.Response:
    body, content_type = multipart(parts)
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {token}"}
    return requests.post(f"{address}/dicom-web/studies", data=body, headers=headers, timeout=120)


@pytest.mark.parametrize("point", ["receive.noted", pytest.param("receive.renamed", marks=pytest.mark.slow)])
def test_a_crash_in_the_middle_of_a_request_loses_nothing_and_leaves_nothing_half(tmp_path: Path, point: str):
    node = Node.init(tmp_path / "node", "--source", "CT1@127.0.0.1").with_web(enabled=False)
    dicomnode("account", "add", "CT1", "--role", "sender", "--token-only", cwd=node.folder)
    token = dicomnode("account", "token", "CT1", cwd=node.folder).stdout.strip()
    parts = [part10(ds) for ds in head_ct()[:4]]
    command, environment = [sys.executable, "-m", "dicomnode", "web"], {**os.environ, "DICOMNODE_CRASH": point}
    with (node.folder / "web.log").open("ab") as log:
        dies = subprocess.Popen(command, cwd=node.folder, env=environment, stdout=log, stderr=log)
        wait_for(node.serves, "the web service")
        with pytest.raises(requests.ConnectionError):
            store(node.address, token, parts)
        assert dies.wait(60) != 0
    spool = Spool(node.settings.node.data_dir)
    recover(node.books, spool, Lane.STROKE, datetime.now(UTC))
    instances = only_series(node.books).instances
    assert {instance.path for instance in instances} == set(spool.received())
    assert list((spool.root / "tmp").iterdir()) == []
    with running(node):
        assert store(node.address, token, parts).status_code == 200
    assert len(only_series(node.books).instances) == len(list(spool.received())) == len(parts)
    bookkeeping.close(node.books)


def test_tls_and_nothing_else_where_a_certificate_is_set(tmp_path: Path):
    hospital, node = Authority(tmp_path).found(), Node.init(tmp_path / "node").with_web(enabled=False)
    certificate, key = hospital.sign("node")
    address = node.address.replace("http", "https")
    path = node.folder / "node.toml"
    before, section, after = path.read_text().partition("[web]")
    files = f'tls = {{ certificate = "{certificate}", key = "{key}" }}'
    path.write_text(before + section + after.replace('tls = { certificate = "", key = "" }', files))
    hashed, now = passwords.hash_password(PASSWORD), datetime.now(UTC)
    bookkeeping.add_account(node.books, "anna", Role.VIEWER, hashed, now, "test")
    bookkeeping.close(node.books)
    trusted = {"verify": str(hospital.certificate), "timeout": 60}

    def answers() -> bool:
        try:
            return requests.get(f"{address}/health/ready", **trusted).ok
        except requests.ConnectionError:
            return False

    with running(node, answers):
        form = {"name": "anna", "password": PASSWORD}
        answer = requests.post(f"{address}/login", data=form, allow_redirects=False, **trusted)
        assert answer.status_code == 303
        assert "; secure" in answer.headers["Set-Cookie"].lower()
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        with pytest.raises(requests.ConnectionError):
            requests.get(address.replace("https", "http"), timeout=60)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(address, timeout=60)  # nobody has told this client of our authority


def test_doctor_asks_for_an_administrator_and_a_certificate_that_is_good(tmp_path: Path):
    hospital = Authority(tmp_path).found()
    certificate, key = hospital.sign("node", days=10)
    raw = {"web": {"enabled": True, "port": free_port(), "tls": {"certificate": certificate, "key": key}}}
    settings = config.parse(raw, folder=tmp_path)
    bookkeeping.migrate(settings.books_url)
    remedies = {finding.check: finding.remedy for finding in doctor.examine(settings)}
    assert "account add NAME --role administrator" in remedies["accounts"]
    assert "restart the web service" in remedies["web tls"]
    books = bookkeeping.open_books(settings.books_url)
    bookkeeping.add_account(books, "anna", Role.ADMINISTRATOR, None, datetime.now(UTC), "test")
    bookkeeping.close(books)
    assert {finding.check: finding.remedy for finding in doctor.examine(settings)}["accounts"] == ""


@pytest.mark.slow  # the whole pipeline; test_shapes walks it in CI
def test_a_head_stored_by_the_web_comes_to_the_pacs_as_maps_and_is_seen_on_the_page(tmp_path: Path):
    parts = [path.read_bytes() for path in data.ncct()]
    with Pacs(ae_title="PACS").running() as pacs:
        destination = f"PACS@127.0.0.1:{pacs.port}"
        sources = ("--source", "CT1@127.0.0.1", "--source", "STORESCU@127.0.0.1")
        node = Node.init(tmp_path / "node", *sources, "--destination", destination, "--demo").with_web()
        address, now = node.address, datetime.now(UTC)
        bookkeeping.add_account(node.books, "CT1", Role.SENDER, None, now, "test")
        hashed = passwords.hash_password(PASSWORD)
        bookkeeping.add_account(node.books, "anna", Role.ADMINISTRATOR, hashed, now, "test")
        token = dicomnode("account", "token", "CT1", cwd=node.folder).stdout.strip()
        with node.up(), requests.Session() as browser:
            answer = store(address, token, parts)
            assert answer.status_code == 200
            study = answer.json()["00081190"]["Value"][0].rpartition("/")[2]
            node.ends(study, "DONE")
            assert browser.post(f"{address}/login", data={"name": "anna", "password": PASSWORD}, timeout=60).ok
            done = browser.get(f"{address}/?show=done", timeout=60).text
            (study_id,) = set(re.findall(r'data-label="Study"><a href="/study/(\w+)"', done))
            assert study_id == bookkeeping.study_of(node.books, study).id
            assert re.search(r"p95 [\d.]+ m?i?n? ?s?; 1 study in 24 h", done)
            assert (
                "From the last slice to the last confirmation"
                in browser.get(f"{address}/study/{study_id}", timeout=60).text
            )
            assert re.search(r"<th scope=\"row\">pacs</th><td class=\"\">\d{4}-", done)  # it has confirmed
            found = browser.get(f"{address}/dicom-web/studies/{study}/instances", params={"limit": 500}, timeout=60)
            ours = {json.loads(found.text)[n]["00080018"]["Value"][0] for n in range(len(found.json()))}
    assert {str(ds.SOPInstanceUID) for ds in pacs.received} <= ours
