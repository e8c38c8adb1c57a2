"""The administrator's page over real HTTP: log in, see, act; and what an attacker tries with it."""

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

from dicomnode import bookkeeping, explain
from dicomnode.bookkeeping import Job
from dicomnode.forecast import Forecast
from dicomnode.jobs import State
from dicomnode.roles import Role
from dicomnode.web.actions import ACTIONS
from tests.dicomnode.arrivals import part10
from tests.dicomnode.web.pages import csrf_of, history, session_of
from tests.dicomnode.web.place import NAMES, PASSWORD, Place, computed, head_ct, serving

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Job]]:
    """A service with one study whose job can be made to end as a test likes; its names are an attack."""
    with serving(tmp_path_factory.mktemp("pages")) as running:
        evil = {"AccessionNumber": "<b>A1</b>", "SeriesDescription": '"><script>alert(1)</script>{{ 7*7 }}'}
        job = computed(running, head_ct(PatientName="<script>alert('x')</script>^Eva", **evil), ("sc",))
        yield running, job


@pytest.fixture
def place(house) -> Place:
    return house[0]


@pytest.fixture
def job(house) -> Job:
    """The job, failed."""
    place, job = house
    now = datetime.now(UTC)
    with bookkeeping.store.writing(place.books) as session:
        found = session.get_one(Job, job.id)
        found.state, found.reason_code, found.dismissed_at = State.FAILED, "world", None
        found.lease_owner, found.created_at = None, now - HOUR
    return job


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMINISTRATOR])
def test_people_log_in_and_out(place: Place, role):
    with session_of(place, role) as session:
        (cookie,) = session.cookies
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "strict"
        text = session.get(place.url + "/", timeout=60).text
        stolen = cookie.value
        assert session.post(place.url + "/logout", data={"csrf": csrf_of(text)}, timeout=60).url.endswith("/login")
    answer = requests.get(place.url + "/", headers={"Cookie": f"dicomnode={stolen}"}, timeout=60)
    assert answer.url.endswith("/login")  # ended in the books, not only in the browser
    assert any(actor == NAMES[role] for _, _, actor in history(place, "LOGIN"))
    assert any(actor == NAMES[role] for _, _, actor in history(place, "LOGOUT"))


def test_a_wrong_password_and_an_account_of_a_program_get_no_session(place: Place):
    for name, password in (
        (NAMES[Role.VIEWER], "wrong"),
        (NAMES[Role.SENDER], PASSWORD),
        ("", ""),
        ("nobody", PASSWORD),
    ):
        form = {"name": name, "password": password}
        answer = requests.post(place.url + "/login", data=form, timeout=60, allow_redirects=False)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers


def test_a_session_ends_when_nobody_uses_it_and_a_page_that_refreshes_itself_is_nobody(place: Place):
    with session_of(place, Role.VIEWER) as session:
        digest = bookkeeping.SESSION
        with bookkeeping.store.writing(place.books) as books:
            access = bookkeeping.tables.Access
            newest = books.query(access).filter(access.kind == digest).order_by(access.created_at.desc()).first()
            newest.used_at = datetime.now(UTC) - timedelta(minutes=29)
            before = newest.used_at
            which = newest.digest
        assert session.get(place.url + "/", headers={"X-Refresh": "1"}, timeout=60).url == place.url + "/"
        with bookkeeping.store.writing(place.books) as books:
            assert books.get(access, which).used_at == before
            books.get(access, which).used_at = datetime.now(UTC) - timedelta(minutes=31)
        assert session.get(place.url + "/", timeout=60).url.endswith("/login")


def test_the_page_shows_what_failed_and_the_study_tells_what_explain_tells(place: Place, job: Job):
    with session_of(place, Role.VIEWER) as session:
        listed = session.get(place.url + "/?show=failed", timeout=60).text
        (study_id,) = set(re.findall(r'<td data-label="Study"><a href="/study/(\w+)"', listed))
        assert "1 FAILED: world" in html.unescape(listed)
        text = session.get(f"{place.url}/study/{study_id}", timeout=60).text
        told = [html.unescape(line) for line in re.findall(r'<li class="d\d [^"]*">(.*?)</li>', text)]
        now = datetime.now(UTC)
        assert told == [line.strip() for line in explain.tell(place.books, job.study, now)]
        assert "Retry" not in text  # a viewer only looks


def test_what_patients_are_called_harms_nobody(place: Place, job: Job):
    with session_of(place, Role.ADMINISTRATOR) as session:
        study = bookkeeping.study_of(place.books, job.study)
        for path in ("/?show=failed", "/?show=all", f"/study/{study.id}"):
            text = session.get(place.url + path, timeout=60).text
            assert "<script>alert" not in text
            assert "<b>A1" not in text
            assert "49" not in re.findall(r"script&gt;(.*?)<", text)
            assert "&lt;b&gt;A1" in text


def test_a_study_is_found_without_its_number_in_an_address(place: Place, job: Job):
    with session_of(place, Role.VIEWER) as session:
        csrf = csrf_of(session.get(place.url + "/", timeout=60).text)
        for key in ("<b>A1</b>", job.id, job.study):
            answer = session.post(place.url + "/find", data={"csrf": csrf, "key": key}, timeout=60)
            assert re.fullmatch(r"http://[^/]+/study/[0-9A-Z]{26}", answer.url)
        answer = session.post(place.url + "/find", data={"csrf": csrf, "key": "nothing"}, timeout=60)
        assert "Nothing is known of that" in answer.text


def test_an_operator_dismisses_retries_and_resends_and_the_history_names_them(place: Place, job: Job):
    study = bookkeeping.study_of(place.books, job.study)
    with session_of(place, Role.OPERATOR) as session:
        csrf = csrf_of(session.get(f"{place.url}/study/{study.id}", timeout=60).text)

        def do(action: str, **form: str) -> str:
            data = {"csrf": csrf, **form}
            answer = session.post(f"{place.url}/job/{job.id}/{action}", data=data, timeout=60)
            assert answer.url.startswith(f"{place.url}/study/{study.id}?said=")
            return answer.url.partition("said=")[2]

        assert do("dismiss", note="  ") == "no-note"
        assert do("dismiss", note="patient moved\non <i>") == "dismissed"
        assert do("dismiss", note="again") == "not-dismissed"
        assert job.id not in session.get(place.url + "/?show=failed", timeout=60).text
        assert study.id in session.get(place.url + "/?show=dismissed", timeout=60).text
        told = session.get(f"{place.url}/study/{study.id}", timeout=60).text
        assert "DISMISSED: patient moved on &lt;i&gt; (by operator)" in told
        assert do("retry") == "retried"
        assert do("retry") == "not-retried"
        assert do("resend", to="pacs") == "resent"
        assert do("resend", to="elsewhere") == "not-resent"
    name = NAMES[Role.OPERATOR]
    assert (job.id, "patient moved on <i>", name) in history(place, "DISMISSED")
    assert any((i, actor) == (job.id, name) for i, _, actor in history(place, str(State.SENDING)))


@pytest.mark.parametrize("action", [*ACTIONS, "erase"])
def test_a_viewer_does_nothing_and_a_form_without_the_secret_of_the_session_does_nothing(
    place: Place, job: Job, action
):
    path = f"{place.url}/job/{job.id}/{action}"
    with session_of(place, Role.VIEWER) as viewer, session_of(place, Role.OPERATOR) as operator:
        theirs = csrf_of(viewer.get(place.url + "/", timeout=60).text)
        own = csrf_of(operator.get(place.url + "/", timeout=60).text)
        for session, data, headers in (
            (viewer, {"csrf": theirs, "note": "x"}, {}),
            (operator, {"note": "x"}, {}),
            (operator, {"csrf": theirs, "note": "x"}, {}),
            (operator, {"csrf": own, "note": "x"}, {"Origin": "https://evil.example"}),
            (operator, {"csrf": own, "note": "x"}, {"Sec-Fetch-Site": "cross-site"}),
        ):
            answer = session.post(path, data=data, headers=headers, timeout=60, allow_redirects=False)
            assert answer.status_code == 403
        answer = operator.post(path, json={"csrf": own}, timeout=60, allow_redirects=False)
        assert answer.status_code == 415
    assert bookkeeping.get_job(place.books, job.id).state is State.FAILED


def test_a_login_from_another_site_s_page_is_refused(place: Place):
    form = {"name": NAMES[Role.VIEWER], "password": PASSWORD}
    for origin in ("https://evil.example", "null"):
        answer = requests.post(place.url + "/login", data=form, headers={"Origin": origin}, timeout=60)
        assert answer.status_code == 403


def test_only_administrators_manage_accounts_and_not_themselves(tmp_path):
    with serving(tmp_path) as place:
        for role in (Role.VIEWER, Role.OPERATOR):
            with session_of(place, role) as session:
                csrf = csrf_of(session.get(place.url + "/", timeout=60).text)
                assert session.get(place.url + "/accounts", timeout=60).status_code == 403
                form = {"csrf": csrf, "name": NAMES[role], "role": "administrator"}
                assert session.post(place.url + "/accounts/role", data=form, timeout=60).status_code == 403
        with session_of(place, Role.ADMINISTRATOR) as session, session_of(place, Role.VIEWER) as viewer:
            csrf = csrf_of(session.get(place.url + "/accounts", timeout=60).text)

            def do(action: str, **form: str) -> str:
                data = {"csrf": csrf, **form}
                return session.post(f"{place.url}/accounts/{action}", data=data, timeout=60).url.partition("said=")[2]

            new = {"name": "new", "role": "viewer"}
            assert do("add", **new, password="short") == "account-refused"
            assert do("add", **new, password="long enough for this") == "account-changed"
            assert do("add", **new, password="long enough for this") == "account-refused"
            assert do("role", name="viewer", role="operator") == "account-changed"
            assert viewer.get(place.url + "/", timeout=60).url.endswith("/login")  # the old role's session has ended
            assert do("role", name="viewer", role="emperor") == "account-refused"
            assert do("remove", name="new") == "account-changed"
            assert do("remove", name=NAMES[Role.ADMINISTRATOR]) == "not-yourself"
            assert do("role", name=NAMES[Role.ADMINISTRATOR], role="viewer") == "not-yourself"
        assert ("new", "as viewer", NAMES[Role.ADMINISTRATOR]) in history(place, "ADDED")


@pytest.mark.parametrize(
    "query", ["show=nothing", "lane=fast", "show=refused&after=x", "show=refused&after=1.", "show=refused&after=.1"]
)
def test_a_list_that_no_page_links_to_is_not_there(place: Place, query):
    with session_of(place, Role.VIEWER) as session:
        assert session.get(f"{place.url}/?{query}", timeout=60).status_code == 404
        assert session.get(f"{place.url}/study/nothing", timeout=60).status_code == 404


def test_pages_of_a_list_follow_one_another_without_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr("dicomnode.web.views.MOST", 3)
    with serving(tmp_path) as place:
        numbers = []
        for n in range(11):
            parts = head_ct(StudyInstanceUID=f"2.25.{n}1", SeriesInstanceUID=f"2.25.{n}2", AccessionNumber=f"N{n}")[:1]
            parts[0].SOPInstanceUID = parts[0].file_meta.MediaStorageSOPInstanceUID = f"2.25.{n}3"
            assert place.store([part10(parts[0])]).status_code == 200
            numbers.append(f"N{n}")
        at = datetime.now(UTC)
        with bookkeeping.store.writing(place.books) as session:
            for n, series in enumerate(session.query(bookkeeping.tables.Series).all()):
                series.state, series.reason_code, series.reason = "REFUSED", "gap", "one slice"
                series.last_received_at = at - timedelta(seconds=n // 5)  # several at one moment
        seen, address = [], "/?show=refused&reason=gap"
        with session_of(place, Role.VIEWER) as session:
            while address:
                text = session.get(place.url + address, timeout=60).text
                seen += re.findall(r'data-label="Study"><a href="/study/\w+">(\w+)<', text)
                further = re.search(r'rel="next" href="([^"]+)"', text)
                address = html.unescape(further[1]) if further else ""
                assert "reason=gap" in address or not address
        assert sorted(seen) == sorted(numbers)


def test_hours_left_of_a_disk_that_fills_up(tmp_path, monkeypatch):
    free = 100 * 2**30
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    forecast, now = Forecast(tmp_path, 10 * 2**30), datetime.now(UTC)
    assert forecast.hours_left(forecast.look(now), now) is None
    assert forecast.hours_left(forecast.look(now + HOUR), now + HOUR) == float("inf")
    free -= 30 * 2**30
    assert forecast.hours_left(forecast.look(now + 2 * HOUR), now + 2 * HOUR) == pytest.approx(4.0)  # 60 at 15 an hour


def test_percentiles_by_nearest_rank():
    assert bookkeeping.percentile([], 0.5) is None
    assert [bookkeeping.percentile([1.0], share) for share in (0.5, 0.95)] == [1.0, 1.0]
    hundred = [float(n) for n in range(1, 101)]
    assert [bookkeeping.percentile(hundred, share) for share in (0.5, 0.95)] == [50.0, 95.0]
