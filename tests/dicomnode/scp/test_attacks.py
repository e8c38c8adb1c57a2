"""What strangers may try at the DIMSE port: refused or harmless, audited, no patient in the log, and it lives on."""

import logging
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom.sop_class import Verification

from dicomnode import bookkeeping, config, explain, header, tls
from dicomnode.config import Listen, Tls
from dicomnode.scp import Listener
from dicomnode.scp.door import OF_ONE_STRANGER, STRANGERS, Door
from tests.dicomnode.arrivals import part10
from tests.dicomnode.scp.peers import associate, data_set, dcmtk, eventually, pdu, pdv, store_command, wire
from tests.dicomnode.scp.test_tls import Authority, files_of
from tests.tools import program

MARKED = "MARKED^NAME"
INJECTION = "MARKED^N\r\nINFO forged: a line of the log\x1b[2J<script>alert(1)</script>"
PATHS = ("../../etc/passwd", "/etc/passwd", "1.2/../../x", "1.2\\..\\x", "1.2.3;rm -rf", "C:\\x", "1.2 3", "é.1")


def alive(listener: Listener) -> bool:
    """C-ECHO is answered, if not at once then soon: a flood may have used up this address's turns."""

    def echoes() -> bool:
        assoc = associate(listener, (Verification,))
        if not assoc.is_established:
            return False
        answered = assoc.send_c_echo().Status == 0x0000
        assoc.release()
        return answered

    return eventually(echoes)


def alerts(listener: Listener) -> list[tuple[str, str]]:
    """(who, reason code) of each Security Alert in the audit trail."""
    found = []
    for _, message in bookkeeping.trail(listener.intake.books):
        if message["EventIdentification"]["EventID"]["csd-code"] == "110113":
            (about,) = message["ParticipantObjectIdentification"]
            details = {each["type"]: each["value"] for each in about["ParticipantObjectDetail"]}
            found.append((message["ActiveParticipant"][0]["UserID"], details["reason"]))
    return found


@pytest.mark.parametrize(
    ("calling", "called", "code"),
    [("OTHER", "DICOMNODE", "unlisted-source"), ("CT1", "ANOTHER", "called-ae-title")],
)
def test_who_is_not_listed_or_calls_somebody_else_is_refused_and_audited(direct: Listener, calling, called, code):
    for _ in range(5):
        assert associate(direct, calling=calling, called=called).is_rejected
    assert eventually(lambda: alerts(direct) == [(calling, code)])  # once a minute, not once for each
    assert alive(direct)


def test_a_listed_title_from_another_address_is_refused_and_audited(direct: Listener):
    here = direct.settings.source
    object.__setattr__(direct.settings, "source", (config.Source("CT1", ("192.0.2.1",)),))
    assert associate(direct).is_rejected
    assert eventually(lambda: alerts(direct) == [("CT1", "unlisted-source")])
    object.__setattr__(direct.settings, "source", here)
    assert alive(direct)


def test_what_strangers_call_themselves_ends_no_line(direct: Listener, caplog: pytest.LogCaptureFixture):
    title = b"A\r\nFAKE \x1b[2J"
    with socket.create_connection(("127.0.0.1", direct.settings.listen.port)) as raw:
        request = bytearray(pdu(0x01, b"\0\1\0\0" + b"DICOMNODE".ljust(16) + title.ljust(16) + bytes(32)))
        request += b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
        request += b"\x20\0\0\x2e" + b"\1\0\0\0" + b"\x30\0\0\x11" + b"1.2.840.10008.1.1" + b"\x40\0\0\x11"
        request += b"1.2.840.10008.1.2" + b"\x50\0\0\x08" + b"\x51\0\0\4" + bytes(4)
        request[2:6] = (len(request) - 6).to_bytes(4, "big")
        raw.sendall(request)
        raw.settimeout(5)
        raw.recv(100)
    assert alive(direct)
    lines = list(explain.state_of_the_node(direct.intake.books, direct.clock()))
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert "\x1b" not in caplog.text
    assert "FAKE" not in caplog.text
    assert all(who.isprintable() for who, _ in alerts(direct))


@pytest.mark.parametrize("uid", PATHS)
def test_uids_that_look_like_paths_are_quarantined_under_a_name_of_ours(direct: Listener, head, uid, caplog):
    ds: Dataset = dcmread(BytesIO(part10(head[0])))
    with header.silence():
        ds.SOPInstanceUID = ds.StudyInstanceUID = ds.SeriesInstanceUID = uid
        encoded = data_set(ds)
    root = direct.intake.spool.root
    before = {path for path in root.parent.rglob("*") if path.parent != root / "quarantine"}
    with wire(direct) as sender:
        sender.send(*whole(1, uid, encoded))
        assert sender.status() == 0xC000
    after = {path for path in root.parent.rglob("*") if path.parent != root / "quarantine"}
    assert {p for p in after - before if "books.db" not in p.name} == set()
    assert len(list((root / "quarantine").iterdir())) == 1
    assert uid not in caplog.text
    assert alive(direct)


def test_dots_alone_are_a_uid_to_us_and_never_a_name(direct: Listener, head):
    """They break PS3.5 9.1 as leading zeros do, and harm nobody: file names are ours."""
    ds = dcmread(BytesIO(part10(head[0])))
    with header.silence():
        ds.SOPInstanceUID = ds.StudyInstanceUID = ds.SeriesInstanceUID = ".."
        encoded = data_set(ds)
    with wire(direct) as sender:
        sender.send(*whole(1, "..", encoded))
        assert sender.status() == 0x0000
    (path,) = direct.intake.spool.received()
    assert len(path) == len("in/.dcm") + 26  # a ULID
    assert alive(direct)


def whole(message_id: int, uid: str, encoded: bytes) -> list[bytes]:

    command = store_command("1.2.3", message_id, uid=uid.encode()[:64].ljust(2, b"\0"))
    return [pdu(0x04, pdv(1, 3, command)), pdu(0x04, pdv(1, 2, encoded))]


def test_a_name_with_line_ends_and_markup_stays_out_of_log_and_audit(direct: Listener, head, caplog):
    caplog.set_level(logging.DEBUG, "dicomnode")
    ds = dcmread(BytesIO(part10(head[0])))
    with header.silence():
        ds.PatientName = INJECTION
        ds.PatientID = ds.AccessionNumber = "MARKED-ID"
        encoded = data_set(ds)
    with wire(direct) as sender:
        sender.send(*whole(1, str(ds.SOPInstanceUID), encoded))
        assert sender.status() == 0x0000
        sender.send(*whole(2, str(ds.SOPInstanceUID), encoded[:-50]))
        assert sender.status() == 0xC000
    assert eventually(lambda: len(list(bookkeeping.trail(direct.intake.books))) == 1)
    assert "MARKED" not in caplog.text
    assert "forged" not in caplog.text
    assert "MARKED" not in str(list(bookkeeping.trail(direct.intake.books)))
    assert alive(direct)


@pytest.mark.parametrize("connects", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_bare_connects_leave_it_alive_and_are_told_once(start, connects: int):
    listener = start(data_path="direct", connections_per_second=10.0)  # a slow machine connects faster than that
    bare(listener, connects)
    assert alive(listener)
    assert eventually(lambda: alerts(listener) == [("(nobody)", "too-many")])
    assert eventually(lambda: not acceptors())


def acceptors() -> list[str]:
    """The threads of open connections."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("Acceptor")]


def test_a_connection_that_ends_before_it_says_anything_leaves_its_place_at_once(direct: Listener):
    """A scan of ports would else hold every place for the half minute in which a request may come."""
    bare(direct, 100)
    assert eventually(lambda: not acceptors())
    assert alive(direct)


@pytest.mark.slow
def test_a_hundred_thousand_bare_connects_leave_it_alive(direct: Listener):
    bare(direct, 100_000)
    assert alive(direct)
    assert len(alerts(direct)) < 20


def bare(listener: Listener, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", listener.settings.listen.port), timeout=10):
            pass


@pytest.mark.slow
def test_two_thousand_associations_are_each_answered_or_refused_and_none_is_left(start):
    listener = start(data_path="direct", connections_per_second=100_000.0)
    answered = 0
    for _ in range(2000):
        assoc = associate(listener, (Verification,))
        answered += assoc.is_established
        assoc.release()
    assert answered == 2000
    assert eventually(lambda: not listener._peers)
    assert alive(listener)


def test_connections_that_say_nothing_take_no_more_than_their_places(start):
    """Sixteen stay open and silent; who says who he is still gets in."""
    listener = start(data_path="direct", max_per_address=8)
    port, idle = listener.settings.listen.port, []
    try:
        for _ in range(30):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert eventually(lambda: closed(idle) == 30 - 2 * 8)
        assert eventually(lambda: alerts(listener) == [("(nobody)", "too-many")])
    finally:
        for each in idle:
            each.close()
    assert alive(listener)


def closed(connections: list[socket.socket]) -> int:
    """How many the other side has closed."""
    found = 0
    for each in connections:
        each.setblocking(False)
        try:
            found += each.recv(1) == b""
        except BlockingIOError:
            continue
        except ConnectionError:
            found += 1
    return found


def test_associations_of_one_address_are_limited_politely(start):
    listener = start(data_path="direct", max_per_address=2)
    held = [associate(listener, (Verification,)) for _ in range(2)]
    third = associate(listener, (Verification,))
    assert third.is_rejected
    primitive = third.acceptor.primitive
    assert (primitive.result, primitive.result_source, primitive.diagnostic) == (0x02, 0x03, 0x02)
    assert eventually(lambda: alerts(listener) == [("CT1", "too-many")])
    for each in held:
        each.release()
    assert alive(listener)


# TLS


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).found()


def test_plain_text_on_the_tls_port_is_refused_and_audited(start, hospital: Authority):
    listener = start(tls=tls.server_context(Tls(*hospital.sign("node"), str(hospital.certificate))))
    for words in (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", bytes(100)):
        with socket.create_connection(("127.0.0.1", listener.settings.listen.port)) as raw:
            raw.sendall(words)
            raw.settimeout(10)
            with suppress(ConnectionError):
                assert raw.recv(100)[:1] in (b"", b"\x15")  # a TLS alert, or nothing
    assert eventually(lambda: ("(nobody)", "tls") in alerts(listener))
    assert tls_echo(listener, hospital)


def test_expired_and_wrong_certificates_are_refused_and_audited(start, hospital: Authority, tmp_path: Path, head):
    listener = start(tls=tls.server_context(Tls(*hospital.sign("node"), str(hospital.certificate))))
    stranger = Authority(tmp_path).found()
    past = expired(hospital)
    instances = files_of(head[:1], tmp_path)
    trusting = ("+cf", str(hospital.certificate))
    for certificate, key in (past, stranger.sign("ct9"), hospital.sign("webserver", purpose="serverAuth")):
        assert dcmtk(listener, "storescu", "+tls", key, certificate, *trusting, files=instances).returncode != 0
    assert eventually(lambda: ("(nobody)", "tls") in alerts(listener))
    assert list(listener.intake.spool.received()) == []
    assert tls_echo(listener, hospital)


AUTHORITY = """
[ca]
default_ca = hospital
[hospital]
database = index.txt
serial = serial.txt
new_certs_dir = .
default_md = sha256
policy = policy
certificate = ca.pem
private_key = ca.key
[policy]
commonName = supplied
"""


def expired(hospital: Authority) -> tuple[str, str]:
    """A certificate of the hospital's that ended years ago."""
    certificate, key = hospital.sign("past")
    for name, content in (("ca.cnf", AUTHORITY), ("index.txt", ""), ("serial.txt", "01\n")):
        (hospital.folder / name).write_text(content)
    command = ["ca", "-config", "ca.cnf", "-batch", "-notext", "-in", "past.csr", "-out", "past.pem"]
    command += ["-extfile", "past.ext", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]
    subprocess.run([program("openssl"), *command], cwd=hospital.folder, capture_output=True, check=True)
    return certificate, key


def tls_echo(listener: Listener, hospital: Authority) -> bool:
    certificate, key = hospital.sign("ct1")
    context = ssl.create_default_context(cafile=str(hospital.certificate))
    context.load_cert_chain(certificate, key)
    context.check_hostname = False

    def echoes() -> bool:
        assoc = associate(listener, (Verification,), tls_args=(context, None))
        if not assoc.is_established:
            return False
        answered = assoc.send_c_echo().Status == 0x0000
        assoc.release()
        return answered

    return eventually(echoes)


# The door itself, with a clock of our own


def test_the_door_counts_by_address_and_strangers_take_no_places_of_others():
    now = [0.0]
    door = Door(Listen(max_associations=2, max_per_address=1), lambda a: a.startswith("10."), lambda: now[0])
    assert [bool(door.refuses("10.0.0.1", port)) for port in range(3)] == [False, False, True]
    assert [bool(door.refuses("10.0.0.2", port)) for port in range(3)] == [False, False, True]
    assert door.refuses("10.0.0.3", 1) == "too many connections are open"  # four of all
    refused = [bool(door.refuses("192.0.2.1", port)) for port in range(6)]
    assert refused == [False] * OF_ONE_STRANGER + [True] * 2
    others = [bool(door.refuses(f"192.0.2.{n}", 1)) for n in range(2, 30)]
    assert others.count(False) == STRANGERS - OF_ONE_STRANGER
    now[0] += 60  # none of them became an association
    assert not door.refuses("10.0.0.3", 2)


def test_the_door_lets_so_many_in_a_second():
    now = [0.0]
    door = Door(Listen(max_associations=10**6, max_per_address=10**6, connections_per_second=10), lambda _: True)
    door.clock = lambda: now[0]
    assert sum(not door.refuses("10.0.0.1", port) for port in range(100)) == 20
    now[0] += 1.0
    assert sum(not door.refuses("10.0.0.1", port) for port in range(100)) == 10
    assert not door.refuses("10.0.0.2", 1)


def test_a_flood_of_addresses_does_not_fill_the_memory():
    door = Door(Listen(), lambda _: False, lambda: time.monotonic() * 1000)
    for n in range(5000):
        door.refuses(f"198.51.{n >> 8}.{n & 255}", n)
    assert len(door._meters) < 3000
    assert len(door._visits) <= STRANGERS
