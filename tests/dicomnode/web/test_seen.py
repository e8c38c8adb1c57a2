"""dicomnode.web.seen: the audit trail says who looked at what, and not what they searched for."""

from dicomnode import bookkeeping
from dicomnode.roles import Role
from tests.dicomnode.web.place import Place


def test_searches_and_looks_are_told_once_in_a_while_without_values(empty: Place):
    before = len(list(bookkeeping.trail(empty.books)))
    for _ in range(3):
        assert empty.get("/studies", PatientName="MARKED^NAME").status_code in (200, 204)
        empty.get("/studies/1.2.3/series")
        empty.get("/studies/MARKED^NAME/series")  # no UID: not told, for it may be anything
    empty.get("/studies/1.2.3/series", role=Role.OPERATOR)
    messages = [message for _, message in bookkeeping.trail(empty.books)][before:]
    told = [
        (
            message["EventIdentification"]["EventID"]["originalText"],
            message["ActiveParticipant"][0]["UserID"],
            message["ParticipantObjectIdentification"][0]["ParticipantObjectID"],
        )
        for message in messages
    ]
    assert told == [
        ("Query", "viewer", "QIDO-RS"),
        ("DICOM Instances Accessed", "viewer", "1.2.3"),
        ("DICOM Instances Accessed", "operator", "1.2.3"),
    ]
    (details,) = messages[0]["ParticipantObjectIdentification"][0]["ParticipantObjectDetail"]
    assert details == {"type": "keys", "value": "PatientName"}
    assert "MARKED" not in str(messages)


def test_who_may_not_read_leaves_no_look(empty: Place):
    before = len(list(bookkeeping.trail(empty.books)))
    assert empty.get("/studies/1.2.3/series", role=Role.SENDER).status_code == 403
    assert len(list(bookkeeping.trail(empty.books))) == before
