"""dicomnode.alerts over real connections: told once, told again when it must be, and nothing of a patient."""

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicomnode import alerts, bookkeeping, config
from dicomnode.alerts import CHANNELS, Sender, Watch, mail, webhook
from dicomnode.alerts.concerns import KINDS, Look, concerns
from dicomnode.alerts.message import lines, subject
from dicomnode.bookkeeping import ACTOR, Books
from dicomnode.config import ConfigError, Settings
from dicomnode.jobs import State
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import weights
from tests.dicomnode.arrivals import peer
from tests.dicomnode.scp.test_tls import Authority
from tests.dicomnode.test_bookkeeping import order, received, series_of
from tests.listeners import Hook, Mailbox, hanging
from tests.walks.node import wait_for

MINUTE = timedelta(minutes=1)


def configured(folder: Path, **keys: object) -> Settings:
    raw = {
        "destination": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}],
        "listen": {"keep_free_gib": 0.0},
        "alerts": {"webhook_url": "http://127.0.0.1:1/", **keys},
    }
    settings = config.parse(raw, folder=folder)
    settings.node.data_dir.mkdir(exist_ok=True)
    return settings


def failed(books: Books, now: datetime, accession_number: str = "A") -> str:
    received_by(books, now, accession_number)
    job = bookkeeping.open_job(books, order(books), now, now)
    assert job is not None
    bookkeeping.claim(books, job, ACTOR, now)
    bookkeeping.advance(books, job, ACTOR, State.FAILED, "ValueError: Marked^Patient", now)
    return job


def received_by(books: Books, now: datetime, accession_number: str) -> None:
    for n in range(3):
        instance = received(n, accession_number=accession_number, patient_id="Marked-id")
        bookkeeping.note_instance(books, instance, peer(now), now)
    bookkeeping.release(books, "A1", now)


def post(books: Books, settings: Settings, channel: str, now: datetime) -> int:
    """How many messages were taken."""
    sender, count = Sender(settings, books, channel, CHANNELS[channel][1]), 0
    while sender.once(now):
        count += 1
    return count


def test_a_failed_job_is_told_once_and_so_is_its_end_though_the_node_restarts(books: Books, tmp_path: Path, now):
    with Hook().running() as hook:
        settings = configured(tmp_path, webhook_url=hook.url)
        job = failed(books, now)
        for n in range(3):
            watch = Watch(settings, books, ["webhook"])  # each one of a process of its own
            watch.once(Look.of(settings, books), now + n * MINUTE)
            assert post(books, settings, "webhook", now + n * MINUTE) == (n == 0)
        (told,) = hook.posts
        words = f"job {job} FAILED; `dicomnode explain {job}` tells why"
        assert told == {
            "node": "DICOMNODE",
            "alerts": [{"kind": "failed", "subject": job, "says": words}],
            "resolved": [],
            "open": 1,
        }
        bookkeeping.dismiss(books, job, "seen", now, "anna")
        for n in range(2):
            watch.once(Look.of(settings, books), now + (5 + n) * MINUTE)
            post(books, settings, "webhook", now + (5 + n) * MINUTE)
        assert hook.posts[1:] == [
            {"node": "DICOMNODE", "alerts": [], "resolved": [{"kind": "failed", "subject": job}], "open": 0}
        ]


LIMITS = bookkeeping.Limits(timedelta(minutes=30), timedelta(hours=24))


def say(books: Books, found: set[tuple[str, str]], now: datetime) -> tuple[list[str], list[str], int] | None:
    """What is told at that moment: subjects that begin, subjects that have ended, how many are open."""
    said: list[tuple[list[str], list[str], int]] = []

    def compose(begun, ended, still_open) -> str:
        said.append(([of for _, of in begun], [of for _, of in ended], still_open))
        return "{}"

    bookkeeping.note_alerts(books, found, LIMITS, ["webhook"], compose, now)
    return said[0] if said else None


def test_a_flood_is_one_message_and_then_a_digest(books: Books, now: datetime):
    flood = {("failed", f"J{n:03d}") for n in range(100)}
    assert say(books, {("failed", "J000")}, now) == (["J000"], [], 1)
    assert say(books, flood, now + MINUTE) is None
    assert say(books, flood | {("away", "pacs")}, now + 2 * MINUTE) == (
        ["pacs"],
        [],
        101,
    )  # another kind waits for none
    begun, ended, still_open = say(books, flood, now + 30 * MINUTE) or ([], [], 0)
    assert (len(begun), ended, still_open) == (99, ["pacs"], 100)


def test_what_comes_and_goes_between_two_messages_is_not_told_and_what_flaps_is_told_seldom(books: Books, now):
    said = []
    for n in range(121):
        found = {("away", "pacs")} if n % 2 == 0 else set()
        said.append(say(books, found, now + n * MINUTE))
    told = [n for n, each in enumerate(said) if each]
    assert len(told) <= 2 * 5  # in two hours, begin and end once in half an hour each
    assert said[0] == (["pacs"], [], 1)
    assert said[1] == ([], ["pacs"], 0)


def test_what_does_not_end_is_told_again_after_a_day(books: Books, now: datetime):
    found = {("certificate", "listen")}
    told = [hour for hour in range(60) if say(books, found, now + timedelta(hours=hour))]
    assert told == [0, 24, 48]


def test_what_has_ended_is_forgotten_after_a_week_and_may_begin_again(books: Books, now: datetime):
    say(books, {("away", "pacs")}, now)
    say(books, set(), now + timedelta(hours=1))
    say(books, set(), now + timedelta(days=8))
    with bookkeeping.store.reading(books) as session:
        assert session.query(bookkeeping.tables.Alert).count() == 0
    assert say(books, {("away", "pacs")}, now + timedelta(days=9)) == (["pacs"], [], 1)


def test_a_channel_that_is_away_is_tried_again_and_the_other_does_not_wait(books: Books, tmp_path: Path, now):
    with Hook(answers=[500, 301]).running() as hook, Mailbox().running() as box:
        settings = configured(
            tmp_path,
            webhook_url=hook.url,
            email_to=["it@hospital.test", "pacs@hospital.test"],
            email_from="node@hospital.test",
            smtp_host="127.0.0.1",
            smtp_port=box.port,
            smtp_security="none",
        )
        Watch(settings, books, list(CHANNELS)).once(Look.of(settings, books), now)
        failed(books, now)
        Watch(settings, books, list(CHANNELS)).once(Look.of(settings, books), now)
        for minute, tried, taken in ((0, 1, 0), (0, 1, 0), (5, 2, 0), (10, 3, 1), (15, 3, 0)):
            assert post(books, settings, "webhook", now + minute * MINUTE) == taken
            assert len(hook.posts) == tried  # not again before its time, and whatever is no 2xx does not take it
        assert post(books, settings, "e-mail", now) == 1
    (mailed,) = box.mails
    assert mailed["Subject"] == "[DICOMNODE] 1 to look at"
    assert (mailed["From"], mailed["To"]) == ("node@hospital.test", "it@hospital.test, pacs@hospital.test")
    assert "rcpt TO:<pacs@hospital.test>" in box.heard
    assert "FAILED" in mailed.get_content()


def test_after_a_day_a_message_is_given_up(books: Books, tmp_path: Path, now: datetime):
    settings = configured(tmp_path)
    say(books, {("away", "pacs")}, now)
    for hours, left in ((0, 1), (23, 1), (25, 0)):
        post(books, settings, "webhook", now + timedelta(hours=hours))  # nobody listens
        with bookkeeping.store.reading(books) as session:
            assert session.query(bookkeeping.tables.Notice).count() == left


def test_nothing_of_a_patient_is_in_an_alert(books: Books, tmp_path: Path, now: datetime):
    settings = configured(tmp_path, away_minutes=0)
    job = failed(books, now, "Marked-accession")
    bookkeeping.note_away(books, "pacs", "Marked: its comment", lambda _: MINUTE, now)
    Watch(settings, books, ["webhook"]).once(Look.of(settings, books), now + MINUTE)
    body = bookkeeping.take_notice(books, "webhook", now + MINUTE).body
    assert {each["subject"] for each in json.loads(body)["alerts"]} == {job, "pacs"}
    assert "Marked" not in body
    assert "1.1" not in body


def test_two_processes_do_not_send_the_same_message(books: Books, now: datetime):
    say(books, {("away", "pacs")}, now)
    assert bookkeeping.take_notice(books, "webhook", now) is not None
    assert bookkeeping.take_notice(books, "webhook", now) is None


def test_each_kind_of_trouble_is_found_and_ends(books: Books, tmp_path: Path, now: datetime, monkeypatch):
    """Every row of KINDS is broken here, and mended."""
    hospital = Authority(tmp_path).found()
    certificate, key = hospital.sign("node", days=10)
    settings = configured(tmp_path, waiting_minutes=10)
    settings = replace(settings, listen=replace(settings.listen, tls=config.Tls(certificate, key)))
    look, later = Look.of(settings, books), now + 11 * MINUTE
    today = datetime.now(now.tzinfo)

    def found(at: datetime = later, of: Look = look) -> dict[str, str]:
        return {each.kind: each.words for each in concerns(of, at)}

    assert "[listen] ends on" in found(today)["certificate"]
    settings = replace(settings, listen=replace(settings.listen, tls=config.Tls()))
    look = Look.of(settings, books)
    assert found(of=look) == {}

    bookkeeping.note_away(books, "pacs", "no answer", lambda _: MINUTE, now)
    assert "destination pacs is away since 09:00 UTC" in found(of=look)["away"]
    bookkeeping.note_back(books, "pacs", later)

    bookkeeping.beat(books, "here:1", "work deliver", now)
    assert found(of=look)["silent"] == "`dicomnode work --queues deliver` has fallen silent"
    bookkeeping.end_pulse(books, "here:1")

    series_of(books, now)
    job = bookkeeping.open_job(books, order(books), now, now)
    assert f"the oldest stroke study is open for 11 min: job {job}" in found(of=look)["waiting"]
    assert "waiting" not in found(now + 9 * MINUTE, look)
    bookkeeping.claim(books, job, ACTOR, now)
    bookkeeping.advance(books, job, ACTOR, State.FAILED, "broken", now)
    assert set(found(of=look)) == {"failed"}
    bookkeeping.dismiss(books, job, "seen", now, "anna")

    monkeypatch.setattr(bookkeeping, "database_clock", lambda _: datetime.now(now.tzinfo) - 9 * MINUTE)
    assert found(of=look)["clock"] == "our clock is 540 s ahead of the database server's"
    monkeypatch.undo()

    full = replace(settings, listen=replace(settings.listen, keep_free_gib=1e9))
    assert "nothing is received any more" in found(of=Look.of(full, books))["disk"]
    monkeypatch.setattr(type(look.forecast), "hours_left", lambda *_: 3.0)
    assert "at this rate for 3 h" in found(of=look)["disk"]
    monkeypatch.undo()
    assert found(of=look) == {}
    assert set(KINDS) == {"failed", "waiting", "disk", "certificate", "clock", "away", "silent"}


def test_a_mail_server_that_hangs_holds_up_neither_the_sweep_nor_the_webhook(
    books: Books, tmp_path: Path, now, monkeypatch
):
    monkeypatch.setattr(alerts, "PERIOD", 0.05)
    monkeypatch.setattr(alerts, "PAUSE", 0.05)
    monkeypatch.setattr(mail, "PATIENCE", 60.0)
    failed(books, now)
    with hanging() as port, Hook().running() as hook:
        settings = configured(
            tmp_path,
            webhook_url=hook.url,
            email_to=["it@hospital.test"],
            email_from="node@hospital.test",
            smtp_host="127.0.0.1",
            smtp_port=port,
        )
        stop = threading.Event()
        manifest, spool = weights.read(weights.shipped()), Spool(settings.node.data_dir).make()
        sweep = Sweep(settings, books, spool, manifest, lambda *_: None, lambda _: None)
        thread = threading.Thread(target=sweep.run, args=(stop,))
        thread.start()
        try:
            wait_for(lambda: hook.posts, "the webhook")
            wait_for(lambda: bookkeeping.alive(books, datetime.now(now.tzinfo)) == {"sweep": 1}, "a sign of the sweep")
        finally:
            stop.set()
            thread.join(10)
        assert not thread.is_alive()  # though the mail server still says nothing
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("alerts")], "the end of the threads")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital")).found()


BODY = json.dumps({"node": "N", "alerts": [], "resolved": [{"kind": "away", "subject": "pacs"}], "open": 0})


def mailing(folder: Path, box: Mailbox, **keys: object) -> Settings:
    given = {"email_to": ["it@hospital.test"], "email_from": "n@hospital.test", "smtp_host": "localhost"}
    return configured(folder, **given, smtp_port=box.port, **keys)


def test_a_password_goes_over_tls_only_and_comes_from_a_credential(hospital: Authority, tmp_path: Path, monkeypatch):
    (tmp_path / "DICOMNODE_SMTP_PASSWORD").write_text("secret-word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with Mailbox(hospital.sign("mail")).running() as box:
        trusted = mailing(tmp_path, box, smtp_user="node", ca=str(hospital.certificate))
        mail.send(trusted, BODY)
        assert box.mails[0]["Subject"] == "[N] 1 resolved"
        assert box.mails[0].get_content().startswith("- resolved: away pacs")
        assert [line.split()[0] for line in box.heard][:4] == ["ehlo", "STARTTLS", "ehlo", "AUTH"]
        box.heard.clear()
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            mail.send(mailing(tmp_path, box, smtp_user="node"), BODY)
        assert not any(line.startswith("AUTH") for line in box.heard)
    with Mailbox().running() as plain, pytest.raises(OSError, match="STARTTLS"):
        mail.send(mailing(tmp_path, plain, smtp_user="node"), BODY)


def test_a_server_that_says_later_has_not_taken_it(tmp_path: Path):
    with Mailbox(refusing=1).running() as box:
        settings = mailing(tmp_path, box, smtp_security="none")
        with pytest.raises(OSError, match="later"):
            mail.send(settings, BODY)
        mail.send(settings, BODY)
    assert len(box.mails) == 1


def test_a_webhook_gets_its_authorization_and_whatever_is_no_success_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DICOMNODE_WEBHOOK_AUTHORIZATION", "Bearer abc")
    with Hook(answers=[302]).running() as hook:
        settings = configured(tmp_path, webhook_url=hook.url)
        with pytest.raises(OSError, match="answers 302"):
            webhook.send(settings, BODY)
        webhook.send(settings, BODY)
    assert hook.headers[0]["Authorization"] == "Bearer abc"
    with Mailbox().running() as not_http, pytest.raises(OSError, match="HTTP"):
        webhook.send(configured(tmp_path, webhook_url=f"http://127.0.0.1:{not_http.port}/"), BODY)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"email_to": ["it@a.test"]}, "needs the key 'email_from' too"),
        ({"email_to": ["it@a.test"], "email_from": "n@a.test"}, "needs the key 'smtp_host' too"),
        ({"email_to": ["it@a.test\nBcc: all@a.test"]}, "is not an e-mail address"),
        ({"email_from": "Node <n@a.test>"}, "is not an e-mail address"),
        ({"smtp_user": "n", "smtp_security": "none"}, "in clear text"),
        ({"webhook_url": "ftp://a"}, "webhook_url"),
        ({"webhook_url": "http://user:word@a/"}, "webhook_url"),
        ({"waiting_minutes": 0}, "waiting_minutes"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, words: str):
    with pytest.raises(ConfigError, match="alerts") as refused:
        config.parse({"alerts": keys})
    assert words in str(refused.value)


def test_nothing_runs_where_nobody_is_to_be_told(settings: Settings, books: Books):
    before = threading.active_count()
    alerts.start(settings, books, threading.Event())
    assert threading.active_count() == before


def test_a_long_message_is_cut_and_says_by_how_much():
    many = [{"kind": "failed", "subject": str(n), "says": f"job {n}"} for n in range(100)]
    message = {"node": "N", "alerts": many, "resolved": [], "open": 100}
    assert subject(message) == "[N] 100 to look at"
    assert lines(message)[20] == "- and 80 more"
