"""What the audit trail says of an event: PS3.15 A.5.3 messages, with studies by UID and never a patient's name or ID.

A message is a mapping in the words and the order of the schema (PS3.15 A.5.1): texts are attributes, everything else
is an element. The books chain it (dicomnode.bookkeeping.audits); as_xml() writes it as the schema has it.
"""

import getpass
import os
import socket
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree as ET

Message = dict[str, Any]
Code = tuple[str, str]  # value of PS3.16, meaning

# PS3.16 CID 400: what happened.
APPLICATION_ACTIVITY = ("110100", "Application Activity")
AUDIT_LOG_USED = ("110101", "Audit Log Used")
INSTANCES_ACCESSED = ("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = ("110104", "DICOM Instances Transferred")
STUDY_DELETED = ("110105", "DICOM Study Deleted")
PROCEDURE_RECORD = ("110111", "Procedure Record")
QUERY = ("110112", "Query")
SECURITY_ALERT = ("110113", "Security Alert")
USER_AUTHENTICATION = ("110114", "User Authentication")
# PS3.16 CID 401: of what kind.
START, STOP = ("110120", "Application Start"), ("110121", "Application Stop")
LOGIN, LOGOUT = ("110122", "Login"), ("110123", "Logout")
NODE_AUTHENTICATION = ("110126", "Node Authentication")
USER_CHANGED = ("110137", "User Security Attributes Changed")
# PS3.16 CID 402: who took part, as what.
APPLICATION, SOURCE, DESTINATION = (
    ("110150", "Application"),
    ("110153", "Source Role ID"),
    ("110152", "Destination Role ID"),
)
STUDY_UID, NODE_ID, URI = ("110180", "Study Instance UID"), ("110182", "Node ID"), ("12", "URI")
DCM, RFC_3881, OWN = "DCM", "RFC-3881", "99PERFNODE"

SYSTEM_OBJECT, STUDY_ROLE = "2", "3"  # PS3.15 A.5.1: ParticipantObjectTypeCode, ParticipantObjectTypeCodeRole
LOG_ROLE, USER_ROLE, MASTER_FILE = "13", "11", "7"  # security resource, security user entity, list
NODE = socket.gethostname()


class Outcome(StrEnum):
    """PS3.15 A.5.1, EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


class Action(StrEnum):
    """PS3.15 A.5.1, EventActionCode."""

    CREATE, READ, UPDATE, DELETE, EXECUTE = "C", "R", "U", "D", "E"


@dataclass(frozen=True, slots=True)
class Who:
    """One who takes part. user: account, AE title or process; address: of the network, where it has one."""

    user: str
    address: str = ""
    role: Code | None = None
    requestor: bool = False


def transferred(study: str, counts: Mapping[str, int], source: Who, destination: Who, *, received: bool) -> Message:
    """A.5.3.7: instances of one study have come or gone. counts: instances by SOP class UID."""
    what = _event(INSTANCES_TRANSFERRED, Action.CREATE if received else Action.READ)
    return _message(what, (source, destination), [_study(study, counts)])


def accessed(study: str, who: Who) -> Message:
    """A.5.3.6: somebody has looked at a study, or fetched of it."""
    return _message(_event(INSTANCES_ACCESSED, Action.READ), (who,), [_study(study)])


def queried(keys: Iterable[str], who: Who) -> Message:
    """A.5.3.10: somebody searched; by which attributes, not for which values, because those are of patients."""
    asked = _object("QIDO-RS", MASTER_FILE, URI, {"keys": " ".join(sorted(keys))}, scheme=RFC_3881)
    return _message(_event(QUERY, Action.EXECUTE), (who, _node(DESTINATION)), [asked])


def deleted(study: str, why: str, who: Who) -> Message:
    """A.5.3.8: files of a study have been removed here. why: ours, without a patient's data."""
    return _message(_event(STUDY_DELETED, Action.DELETE), (who,), [_study(study, details={"why": why})])


def acted(study: str, job: str, verb: str, who: Who) -> Message:
    """A.5.3.15: an operator did something about a job: retry, resend, dismiss."""
    what = _event(PROCEDURE_RECORD, Action.UPDATE, kind=(verb, f"Operator: {verb}"), scheme=OWN)
    return _message(what, (who,), [_study(study, details={"job": job})])


def refused(code: str, who: Who, times: int = 1) -> Message:
    """A.5.3.11: an association was refused at the door; times: as often as since the last message."""
    what = _event(SECURITY_ALERT, Action.EXECUTE, Outcome.MINOR_FAILURE, NODE_AUTHENTICATION)
    details = {"reason": code, "times": str(times)}
    return _message(what, (who, _node(DESTINATION)), [_object(NODE, LOG_ROLE, NODE_ID, details)])


def account_changed(name: str, how: str, who: Who) -> Message:
    """A.5.3.11: an account was made, changed or removed, or has another token."""
    what = _event(SECURITY_ALERT, Action.EXECUTE, Outcome.SUCCESS, USER_CHANGED)
    return _message(what, (who,), [_object(name, USER_ROLE, ("11", "User Identifier"), {"change": how}, RFC_3881)])


def authenticated(name: str, kind: Code, where: str, outcome: Outcome = Outcome.SUCCESS) -> Message:
    """A.5.3.12: somebody logged in or out, or failed to."""
    what = _event(USER_AUTHENTICATION, Action.EXECUTE, outcome, kind)
    return _message(what, (Who(name, where, requestor=True), _node(None)), [])


def activity(application: str, kind: Code) -> Message:
    """A.5.3.1: a service of the node has started or stopped."""
    return _message(_event(APPLICATION_ACTIVITY, Action.EXECUTE, kind=kind), (Who(application, NODE, APPLICATION),), [])


def log_used(who: Who) -> Message:
    """A.5.3.2: somebody has read the audit trail."""
    log = _object("audit", LOG_ROLE, URI, {}, RFC_3881) | {"ParticipantObjectName": ["Security Audit Log"]}
    return _message(_event(AUDIT_LOG_USED, Action.READ), (who,), [log])


def person() -> str:
    """Who types a command, as the machine knows them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        name = f"user {os.getuid()}"
    return f"{name} at the command line"


def as_xml(message: Message, at: datetime) -> str:
    """The message as PS3.15 A.5.1 writes it."""
    moment = {"EventDateTime": at.isoformat()}
    dated = message | {"EventIdentification": {**message["EventIdentification"], **moment}}
    return ET.tostring(_element("AuditMessage", dated), encoding="unicode")


def _element(name: str, content: Mapping[str, Any] | str) -> ET.Element:
    element = ET.Element(name)
    if isinstance(content, str):
        element.text = content
        return element
    for key, value in content.items():
        if isinstance(value, str):
            binary = (name, key) == ("ParticipantObjectDetail", "value")  # xsd:base64Binary
            element.set(key, b64encode(value.encode()).decode() if binary else value)
        else:
            for each in value if isinstance(value, list) else [value]:
                element.append(_element(key, each))
    return element


def _message(event: Message, participants: Iterable[Who], objects: list[Message]) -> Message:
    message: Message = {"EventIdentification": event, "ActiveParticipant": [_participant(who) for who in participants]}
    message["AuditSourceIdentification"] = {"AuditSourceID": NODE}
    return message | ({"ParticipantObjectIdentification": objects} if objects else {})


def _event(
    what: Code, action: Action, outcome: Outcome = Outcome.SUCCESS, kind: Code | None = None, scheme: str = DCM
) -> Message:
    event = {"EventActionCode": str(action), "EventOutcomeIndicator": str(outcome), "EventID": _coded(what)}
    return event | ({"EventTypeCode": [_coded(kind, scheme)]} if kind else {})


def _coded(code: Code, scheme: str = DCM) -> Message:
    return {"csd-code": code[0], "codeSystemName": scheme, "originalText": code[1]}


def _participant(who: Who) -> Message:
    found: Message = {"UserID": printable(who.user), "UserIsRequestor": str(who.requestor).lower()}
    if who.address:  # PS3.15 A.5.1, NetworkAccessPointTypeCode: 1 a name, 2 an IP address
        kind = "2" if set(who.address) <= set("0123456789abcdefABCDEF.:") else "1"
        found |= {"NetworkAccessPointID": printable(who.address), "NetworkAccessPointTypeCode": kind}
    return found | ({"RoleIDCode": [_coded(who.role)]} if who.role else {})


def _node(role: Code | None) -> Who:
    return Who(NODE, NODE, role)


def _study(uid: str, counts: Mapping[str, int] | None = None, details: Mapping[str, str] | None = None) -> Message:
    study = _object(uid, STUDY_ROLE, STUDY_UID, details or {})
    classes = [{"UID": sop_class, "NumberOfInstances": str(n)} for sop_class, n in sorted((counts or {}).items())]
    return study | ({"ParticipantObjectDescription": [{"SOPClass": classes}]} if classes else {})


def _object(name: str, role: str, kind: Code, details: Mapping[str, str], scheme: str = DCM) -> Message:
    found: Message = {
        "ParticipantObjectID": printable(name),
        "ParticipantObjectTypeCode": SYSTEM_OBJECT,
        "ParticipantObjectTypeCodeRole": role,
        "ParticipantObjectIDTypeCode": [_coded(kind, scheme)],
    }
    values = [{"type": key, "value": printable(value)} for key, value in details.items()]
    return found | ({"ParticipantObjectDetail": values} if values else {})


def printable(text: str) -> str:
    """The text without what could end a line or colour a terminal: strangers choose their AE titles."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
