"""The PILO page over real HTTP: who may open it, by what, for how long, and what is asked for there."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import numpy as np
import pytest
import requests

from dicomnode import bookkeeping, passwords, pipeline
from dicomnode.bookkeeping import Job
from dicomnode.jobs import State
from dicomnode.roles import Role
from inference import pilo
from tests.dicomnode.web.pages import csrf_of, history, session_of
from tests.dicomnode.web.place import NAMES, Place, computed, head_ct, looped, serving
from tests.walks.test_sides import Copier

EVIL = "<script>alert('x')</script>^Eva"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Job, Job]]:
    """A service with a job that keeps what other ratios need, and one made before that."""
    folder = tmp_path_factory.mktemp("pilo")
    with serving(folder) as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
        mine = looped(place, head_ct(PatientName=EVIL), Copier.manifest)
        uids = {"StudyInstanceUID": "2.25.71", "SeriesInstanceUID": "2.25.72", "AccessionNumber": "A2"}
        other = head_ct(**uids)
        for n, ds in enumerate(other):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.73{n}"
        yield place, mine, computed(place, other)


@pytest.fixture
def place(house) -> Place:
    return house[0]


@pytest.fixture
def job(house) -> Job:
    return house[1]


def a_link(place: Place, key: str, role: Role = Role.VIEWER) -> requests.Response:
    with place.authorised(role) as session:
        return session.post(f"{place.url}/pilo/link", data={"key": key}, timeout=60)


def test_nobody_sees_the_page_or_its_data_without_login(place: Place, job: Job):
    for path in (f"/pilo/{job.id}", f"/pilo/{job.id}/data"):
        assert requests.get(place.url + path, timeout=60).url == place.url + "/login"
        with place.authorised(Role.VIEWER) as program:  # a token is for programs, not for pages
            assert program.get(place.url + path, timeout=60).url == place.url + "/login"


def test_the_timeline_leads_to_the_page_which_says_who_and_what_it_is(place: Place, job: Job):
    study = bookkeeping.study_of(place.books, job.study)
    with session_of(place, Role.VIEWER) as session:
        assert f'href="/pilo/{job.id}"' in session.get(f"{place.url}/study/{study.id}", timeout=60).text
        answer = session.get(f"{place.url}/pilo/{job.id}", timeout=60)
    assert answer.status_code == 200
    assert "&lt;script&gt;alert" in answer.text
    assert EVIL not in answer.text
    for words in ("SYNTHETIC, not acquired perfusion", "TRAINED ON SIMULATED DATA", "SYNTHETIC Tmax", "No volumes"):
        assert words in answer.text
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "Send to PACS" not in answer.text  # a viewer may not


def test_no_address_that_a_page_leads_to_names_a_patient(place: Place, house, job: Job):
    study = bookkeeping.study_of(place.books, job.study)
    secrets = {"A1", "A2", "P1", "P2", "Eva", job.study, house[2].study, NAMES[Role.OPERATOR]}
    with session_of(place, Role.OPERATOR) as session:
        csrf = csrf_of(session.get(place.url + "/", timeout=60).text)
        pages = [
            session.get(place.url + path, timeout=60)
            for path in ("/?show=all", f"/study/{study.id}", f"/pilo/{job.id}")
        ]
        pages.append(session.post(place.url + "/find", data={"csrf": csrf, "key": "A1"}, timeout=60))
        for page in pages:
            assert page.ok
            led = [page.url, *re.findall(r'(?:href|src|action)="([^"]*)"', page.text)]
            assert len(led) > 5
            parts = {unquote(part) for address in led for part in re.split(r"[/?&=]", address)}
            assert not parts & secrets
            assert "script" not in " ".join(led)


def test_the_data_is_what_is_kept_and_nothing_else(place: Place, job: Job):
    with session_of(place, Role.VIEWER) as session:
        content = session.get(f"{place.url}/pilo/{job.id}/data", timeout=60).content
    kept = pilo.load(place.spool.pilo(job.id))
    length = int.from_bytes(content[:4], "little")
    about, rest = json.loads(content[4 : 4 + length]), content[4 + length :]
    assert "Eva" not in json.dumps(about)
    assert about["shape"] == list(kept.mask.shape)
    assert rest == np.packbits(kept.mask).tobytes() + kept.perfusion.tobytes() + kept.planes.tobytes()


def test_a_job_that_kept_nothing_says_why(place: Place, house):
    older = house[2]
    with session_of(place, Role.VIEWER) as session:
        for path in (f"/pilo/{older.id}", f"/pilo/{older.id}/data"):
            answer = session.get(place.url + path, headers={"Accept": "text/html"}, timeout=60)
            assert (answer.status_code, "made before this version" in answer.text) == (404, True)
        assert session.get(f"{place.url}/pilo/01NOTHING", timeout=60).status_code == 404
        assert session.get(f"{place.url}/pilo/..%2f..%2fbooks.db", timeout=60).status_code == 404
    assert a_link(place, older.id).status_code == 404


@pytest.mark.parametrize("key", ["A1", "study", "job"])
def test_a_program_gets_a_link_that_opens_one_page_to_read(place: Place, house, job: Job, key):
    key = {"study": job.study, "job": job.id}.get(key, key)
    answer = a_link(place, key)
    assert answer.status_code == 201
    url = answer.json()["url"]
    assert not {"A1", "P1", job.study, "Eva"} & set(re.split(r"[/?&=]", url))  # the token may hold "A1" by chance
    with requests.Session() as visitor:
        shown = visitor.get(url, timeout=60)
        assert shown.url == f"{place.url}/pilo/{job.id}"
        assert "TRAINED ON SIMULATED DATA" in shown.text
        assert "csrf" not in shown.text  # neither menu nor anything to send
        (cookie,) = visitor.cookies
        assert (cookie.path, cookie.has_nonstandard_attr("HttpOnly")) == ("/pilo", True)
        assert visitor.get(f"{place.url}/pilo/{job.id}/data", timeout=60).ok
        assert visitor.get(f"{place.url}/pilo/{house[2].id}", timeout=60).status_code == 403
        stolen = {"Cookie": f"dicomnode={cookie.value}"}
        for path in ("/", f"/study/{bookkeeping.study_of(place.books, job.study).id}", "/accounts"):
            assert visitor.get(place.url + path, timeout=60).url.endswith("/login")
            assert requests.get(place.url + path, headers=stolen, timeout=60).url.endswith("/login")
        bearer = {"Authorization": f"Bearer {cookie.value}"}
        assert requests.get(f"{place.dicomweb}/studies", headers=bearer, timeout=60).status_code == 401
        order = visitor.post(f"{place.url}/pilo/{job.id}/captures", data={"percent": "75", "csrf": ""}, timeout=60)
        assert order.url.endswith("/login")
    assert bookkeeping.renderings(place.books, job.id) == []
    assert (job.id, NAMES[Role.VIEWER]) in {(of, actor) for of, _, actor in history(place, "LINK")}


def test_a_link_ends_after_minutes(place: Place, job: Job):
    def link_until(until: datetime) -> str:
        secret, now = passwords.new_secret(), datetime.now(UTC)
        who = (NAMES[Role.VIEWER], bookkeeping.LINK, "", until, now, "test", job.id)
        bookkeeping.add_access(place.books, passwords.digest(secret), *who)
        return secret

    now = datetime.now(UTC)
    old, fresh = (link_until(now + timedelta(seconds=s)) for s in (-1, 60))
    for secret, ends in ((old, "/login"), (fresh, f"/pilo/{job.id}"), ("guess", "/login")):
        assert requests.get(f"{place.url}/pilo/link/{secret}", timeout=60).url == place.url + ends
    cookie = {"Cookie": f"dicomnode-link={old}"}
    assert requests.get(f"{place.url}/pilo/{job.id}", headers=cookie, timeout=60).url.endswith("/login")
    expires = datetime.fromisoformat(a_link(place, job.id).json()["expires_at"])
    assert timedelta(minutes=4) < expires - datetime.now(UTC) <= timedelta(minutes=5)


@pytest.mark.parametrize(("role", "status"), [(Role.SENDER, 403), (Role.VIEWER, 404)])
def test_links_are_for_programs_that_may_read(place: Place, role, status):
    assert a_link(place, "nothing known", role).status_code == status
    assert requests.post(f"{place.url}/pilo/link", data={"key": "A1"}, timeout=60).status_code == 401
    with session_of(place, Role.ADMINISTRATOR) as session:
        assert session.post(f"{place.url}/pilo/link", data={"key": "A1"}, timeout=60).status_code == 403


def test_captures_are_asked_for_by_an_operator_from_a_page_of_their_session(place: Place, job: Job):
    path = f"{place.url}/pilo/{job.id}/captures"
    with session_of(place, Role.VIEWER) as viewer, session_of(place, Role.OPERATOR) as operator:
        theirs = csrf_of(viewer.get(place.url + "/", timeout=60).text)
        own = csrf_of(operator.get(f"{place.url}/pilo/{job.id}", timeout=60).text)
        for session, data, headers in (
            (viewer, {"csrf": theirs, "percent": "75"}, {}),
            (operator, {"percent": "75"}, {}),
            (operator, {"csrf": theirs, "percent": "75"}, {}),
            (operator, {"csrf": own, "percent": "75"}, {"Origin": "https://evil.example"}),
        ):
            assert session.post(path, data=data, headers=headers, timeout=60).status_code == 403
        for percent in ("50", "101", "-1", "7.5", "x", "", "²"):
            answer = operator.post(path, data={"csrf": own, "percent": percent}, timeout=60)
            assert answer.status_code == 400, percent
        assert bookkeeping.renderings(place.books, job.id) == []
        answer = operator.post(path, data={"csrf": own, "percent": "75"}, timeout=60)
        assert (answer.status_code, answer.json()) == (202, {"sent_to": ["pacs"], "percent": 75})
        unknown = f"{place.url}/pilo/01NOTHING/captures"
        assert operator.post(unknown, data={"csrf": own, "percent": "75"}, timeout=60).status_code == 404
    assert [r.percent for r in bookkeeping.renderings(place.books, job.id)] == [75]
    asked = history(place, "captures at ratio 0.75 ASKED FOR")
    assert asked == [(job.id, "for pacs", NAMES[Role.OPERATOR])]


def test_nothing_is_sent_where_no_destination_takes_captures(tmp_path):
    only_maps = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "objects": ["pm"]}
    with serving(tmp_path, destination=[only_maps]) as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
        job = looped(place, head_ct(), Copier.manifest)
        with session_of(place, Role.OPERATOR) as operator:
            text = operator.get(f"{place.url}/pilo/{job.id}", timeout=60).text
            assert "Send to PACS" not in text
            form = {"csrf": csrf_of(text), "percent": "75"}
            answer = operator.post(f"{place.url}/pilo/{job.id}/captures", data=form, timeout=60)
            assert answer.status_code == 409
        with bookkeeping.store.writing(place.books) as session:
            session.get_one(Job, job.id).state = State.PROCESSING
            place.spool.pilo(job.id).unlink()
        with session_of(place, Role.VIEWER) as viewer:
            answer = viewer.get(f"{place.url}/pilo/{job.id}", headers={"Accept": "text/html"}, timeout=60)
            assert "not finished yet" in answer.text
