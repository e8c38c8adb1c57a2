"""The pages as a program asks for them: a session as a role, the secret of its forms, and what the history says."""

import re

import requests

from dicomnode import bookkeeping
from dicomnode.bookkeeping import History
from dicomnode.roles import Role
from tests.dicomnode.web.place import NAMES, PASSWORD, Place


def session_of(place: Place, role: Role) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    answer = session.post(place.url + "/login", data={"name": NAMES[role], "password": PASSWORD}, timeout=60)
    assert (answer.status_code, answer.url) == (200, place.url + "/")
    return session


def csrf_of(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def history(place: Place, after: str) -> list[tuple[str, str, str]]:
    with bookkeeping.store.reading(place.books) as session:
        return [(h.subject_id, h.why, h.actor) for h in session.query(History).filter(History.after == after)]
