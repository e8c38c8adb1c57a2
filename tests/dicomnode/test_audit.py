"""dicomnode.audit and the chain in the books: what is told, that no patient is named, and that tampering shows."""

import re
import threading
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import text

from dicomnode import audit, bookkeeping
from dicomnode.audit import Who
from dicomnode.bookkeeping import Answer, Books
from dicomnode.bookkeeping.audits import GENESIS
from dicomnode.intake import Intake
from dicomnode.jobs import DeliveryState, State
from dicomnode.lately import Lately
from dicomnode.roles import Role
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.arrivals import arrive, peer
from tests.dicomnode.deliveries import finished_job
from tests.dicomnode.test_bookkeeping import order, received, series_of
from tests.walks.node import Node, dicomnode

MARKED = "MARKED^PATIENT"
MINUTE = timedelta(minutes=1)


def told(books: Books) -> list[tuple[str, str, str]]:
    """Event, outcome and the first participant of each message."""
    return [
        (
            message["EventIdentification"]["EventID"]["originalText"],
            message["EventIdentification"]["EventOutcomeIndicator"],
            message["ActiveParticipant"][0]["UserID"],
        )
        for _, message in bookkeeping.trail(books)
    ]


def fill(books: Books, now: datetime, count: int = 5) -> None:
    for n in range(count):
        bookkeeping.record(books, audit.refused("unlisted-source", Who(f"CT{n}", "192.0.2.1")), now + n * MINUTE)


def tamper(books: Books, statement: str) -> None:
    with bookkeeping.store.writing(books) as session:
        session.execute(text(statement))


def test_an_association_that_brought_instances_is_one_message_for_each_study(books: Books, spool: Spool, now: datetime):
    head = phantom.head(phantom.even(12), matrix=16)
    for ds in head:
        ds.PatientName, ds.PatientID = MARKED, "MARKED-ID"
    arrive(Intake(books, spool), head, now)
    bookkeeping.release(books, "A1", now)  # lost and released are both told, and count once
    ((at, message),) = bookkeeping.trail(books)
    assert at == now
    assert message["EventIdentification"]["EventID"]["csd-code"] == "110104"
    assert message["EventIdentification"]["EventActionCode"] == "C"
    source, destination = message["ActiveParticipant"]
    assert (source["UserID"], source["NetworkAccessPointID"]) == ("CT1", "127.0.0.1")
    assert source["RoleIDCode"][0]["csd-code"] == "110153"
    assert destination["RoleIDCode"][0]["csd-code"] == "110152"
    (study,) = message["ParticipantObjectIdentification"]
    assert study["ParticipantObjectID"] == head[0].StudyInstanceUID
    assert study["ParticipantObjectDescription"][0]["SOPClass"] == [
        {"UID": head[0].SOPClassUID, "NumberOfInstances": "12"}
    ]
    with bookkeeping.store.reading(books) as session:
        assert "MARKED" not in str(session.execute(text("SELECT * FROM audit")).all())


def test_associations_left_open_are_told_when_their_listener_starts_again(books: Books, now: datetime):
    bookkeeping.note_instance(books, received(), peer(now), now)
    assert bookkeeping.release_all(books, now) == 1
    assert told(books) == [("DICOM Instances Transferred", "0", "CT1")]


def test_what_a_destination_has_taken_is_told_once(books: Books, spool: Spool, now: datetime):
    job = finished_job(books, spool, now)
    before = len(told(books))
    due = bookkeeping.due(books, job, "pacs", now)
    for state in (DeliveryState.SENT, DeliveryState.CONFIRMED):
        answers = [Answer(each.delivery, state, "stored", now) for each in due]
        bookkeeping.note_answers(books, job, "pacs", answers, now)
    messages = [message for _, message in bookkeeping.trail(books)][before:]
    assert len(messages) == 1
    assert messages[0]["EventIdentification"]["EventActionCode"] == "R"
    assert [who["UserID"] for who in messages[0]["ActiveParticipant"]][1] == "pacs"
    (study,) = messages[0]["ParticipantObjectIdentification"]
    assert study["ParticipantObjectDescription"][0]["SOPClass"][0]["NumberOfInstances"] == "3"


def test_what_operators_do_is_told_with_their_names(books: Books, now: datetime):
    series_of(books, now)
    job = bookkeeping.open_job(books, order(books), now, now) or ""
    bookkeeping.claim(books, job, "w", now)
    bookkeeping.advance(books, job, "w", State.FAILED, "no", now)
    assert bookkeeping.dismiss(books, job, "seen", now, "ann")
    assert bookkeeping.retry(books, job, now, "bob")
    *_, dismissed, retried = bookkeeping.trail(books)
    for (_, message), verb, actor in ((dismissed, "dismiss", "ann"), (retried, "retry", "bob")):
        assert message["EventIdentification"]["EventTypeCode"][0]["csd-code"] == verb
        assert message["ActiveParticipant"][0]["UserID"] == actor
        assert message["ParticipantObjectIdentification"][0]["ParticipantObjectID"] == "1.1"


def test_accounts_and_logins_are_told_and_what_was_typed_is_not(books: Books, now: datetime):
    bookkeeping.add_account(books, "ann", Role.OPERATOR, "hash", now, "root")
    bookkeeping.note_login(books, "ann", "192.0.2.1", now)
    bookkeeping.note_failure(books, "ann", "192.0.2.1", now)
    bookkeeping.note_failure(books, "hunter2", "192.0.2.1", now)
    for _ in range(4):
        bookkeeping.note_failure(books, "ann", "192.0.2.1", now)
    bookkeeping.remove_account(books, "ann", now, "root")
    login = "User Authentication"
    assert told(books) == [
        ("Security Alert", "0", "root"),
        (login, "0", "ann"),
        (login, "4", "ann"),
        (login, "4", "(unknown)"),
        *[(login, "4", "ann")] * 3,
        (login, "8", "ann"),  # locked
        ("Security Alert", "0", "root"),
    ]


def test_an_untouched_chain_is_whole_and_a_noted_head_stays_in_it(books: Books, now: datetime):
    assert bookkeeping.verify(books) == bookkeeping.Chain(0, GENESIS)
    fill(books, now)
    noted = bookkeeping.verify(books)
    assert (noted.events, noted.broken) == (5, "")
    fill(books, now + 10 * MINUTE)
    assert bookkeeping.verify(books, noted.head).events == 10
    assert "known hash" in bookkeeping.verify(books, "f" * 64).broken


@pytest.mark.parametrize(
    ("statement", "whole", "words"),
    [
        ("UPDATE audit SET event = replace(event, 'CT2', 'CT9') WHERE id = 3", 2, "message 3 .* has been changed"),
        ("UPDATE audit SET at = '2026-01-01 00:00:00' WHERE id = 4", 3, "message 4 .* has been changed"),
        ("DELETE FROM audit WHERE id = 3", 2, "message 4 .* does not follow"),
        ("DELETE FROM audit WHERE id = 1", 0, "message 2 .* does not follow"),
        ("DELETE FROM audit WHERE id > 3", 3, "the end is cut: 5 messages were recorded, 3 are there"),
        ("DELETE FROM audit_head", 5, "where the trail ends is gone"),
    ],
)
def test_the_first_broken_link_is_named(books: Books, now: datetime, statement, whole, words):
    fill(books, now)
    tamper(books, statement)
    chain = bookkeeping.verify(books)
    assert chain.events == whole
    assert re.search(words, chain.broken)


def test_an_end_cut_with_its_record_shows_by_a_hash_that_was_noted(books: Books, now: datetime):
    """Who may write the books can do this; that is why the head is to be noted elsewhere."""
    fill(books, now)
    noted = bookkeeping.verify(books).head
    tamper(books, "DELETE FROM audit WHERE id > 3")
    tamper(books, "UPDATE audit_head SET events = 3, hash = (SELECT hash FROM audit WHERE id = 3)")
    assert bookkeeping.verify(books).broken == ""
    assert "known hash" in bookkeeping.verify(books, noted).broken


def test_a_message_after_a_cut_end_does_not_heal_it(books: Books, now: datetime):
    fill(books, now)
    tamper(books, "DELETE FROM audit WHERE id > 3")
    fill(books, now + 10 * MINUTE, 1)
    assert "does not follow" in bookkeeping.verify(books).broken


def test_many_who_add_at_once_make_one_chain(books: Books, now: datetime):
    threads = [threading.Thread(target=fill, args=(books, now, 10)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bookkeeping.verify(books).events == 60
    assert bookkeeping.verify(books).broken == ""


def test_what_is_rolled_back_is_not_in_the_chain(books: Books, now: datetime):
    fill(books, now, 1)
    with pytest.raises(RuntimeError), bookkeeping.store.writing(books) as session:
        bookkeeping.audits.append(session, audit.log_used(Who("ann")), now)
        raise RuntimeError
    fill(books, now, 1)
    assert bookkeeping.verify(books).events == 2


def test_a_message_is_written_as_the_schema_has_it(now: datetime):
    message = audit.transferred("1.2.3", {"1.2.840": 2}, Who("CT1", "192.0.2.1"), Who("node"), received=True)
    root = ET.fromstring(audit.as_xml(message, now))
    order = ["EventIdentification", "ActiveParticipant", "ActiveParticipant", "AuditSourceIdentification"]
    assert [child.tag for child in root] == [*order, "ParticipantObjectIdentification"]
    assert root[0].attrib["EventDateTime"] == "2026-03-02T09:00:00+00:00"
    assert root[0][0].attrib == {
        "csd-code": "110104",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Transferred",
    }
    assert root[1].attrib["UserIsRequestor"] == "false"
    sop_class = root.find("ParticipantObjectIdentification/ParticipantObjectDescription/SOPClass")
    assert sop_class is not None
    assert sop_class.attrib == {"UID": "1.2.840", "NumberOfInstances": "2"}
    details = ET.fromstring(audit.as_xml(audit.refused("called-ae-title", Who("X")), now))
    found = details.find("ParticipantObjectIdentification/ParticipantObjectDetail")
    assert found is not None
    assert found.attrib == {"type": "reason", "value": "Y2FsbGVkLWFlLXRpdGxl"}  # base64, as the schema wants it


def test_what_strangers_call_themselves_cannot_end_a_line():
    message = audit.refused("unlisted-source", Who("A\n\x1b[31mB", "192.0.2.1"))
    assert message["ActiveParticipant"][0]["UserID"] == "A??[31mB"


def test_what_comes_often_is_told_once_in_a_while_with_its_count(now: datetime):
    lately = Lately(MINUTE, most=3)
    assert [lately.due("a", now) for _ in range(4)] == [1, 0, 0, 0]
    assert lately.due("b", now) == 1
    assert lately.due("a", now + MINUTE) == 4
    many = [lately.due(n, now + MINUTE) for n in range(100)]
    assert sum(many) < 5
    assert lately.due("c", now + 3 * MINUTE) == 1


def test_the_commands_prove_list_and_record_that_they_listed(tmp_path: Path):
    node = Node.init(tmp_path, "--source", "CT1@192.0.2.10")
    assert "0 messages" in dicomnode("audit", "verify", cwd=tmp_path).stdout
    assert dicomnode("audit", "list", cwd=tmp_path).stdout == ""
    listed = dicomnode("audit", "list", "--xml", cwd=tmp_path).stdout
    assert ET.fromstring(listed).find("EventIdentification/EventID").attrib["csd-code"] == "110101"  # type: ignore[union-attr]
    head = bookkeeping.verify(node.books).head
    assert head in dicomnode("audit", "verify", "--known", head, cwd=tmp_path).stdout
    tamper(node.books, "DELETE FROM audit WHERE id = 1")
    node.books.kw["bind"].dispose()
    failed = dicomnode("audit", "verify", cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "BROKEN after 0 messages: message 2" in failed.stderr
