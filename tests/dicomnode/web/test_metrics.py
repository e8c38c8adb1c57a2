"""dicomnode.web.metrics and health: what machines read of a node, in both shapes of the books."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from dicomnode import bookkeeping, timekeeping
from dicomnode.bookkeeping import Books, Tally, gauges
from dicomnode.intake import Intake
from dicomnode.pulse import Pulse, name
from dicomnode.roles import Right, Role
from dicomnode.spool import Spool
from dicomnode.web.metrics import FIGURES, NAME
from tests.dicomnode.arrivals import arrive
from tests.dicomnode.web.place import Place, computed, head_ct, serving

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana-dashboard.json"
MARK = "Marked"


def scrape(place: Place, role: Role = Role.MONITOR) -> requests.Response:
    with place.authorised(role) as session:
        return session.get(place.url + "/metrics", timeout=60)


def values(said: str) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) -> figure."""
    families = text_string_to_metric_families(said)
    return {(s.name.removeprefix(NAME), *s.labels.values()): s.value for f in families for s in f.samples}


def test_the_figures_are_those_of_the_books_and_name_no_patient(tmp_path: Path, books_url: str):
    with serving(tmp_path, books_url) as place:
        slices = head_ct(PatientName=f"{MARK}^Eva", PatientID=f"{MARK}1", AccessionNumber=f"{MARK}2")
        job = computed(place, slices)
        bookkeeping.note_refusal(place.books, "association", "192.0.2.1", "unlisted-source", MARK, datetime.now(UTC))
        bookkeeping.note_away(place.books, "pacs", MARK, lambda _: timedelta(seconds=9), datetime.now(UTC))
        Pulse(place.books, "sweep").beat(datetime.now(UTC))
        answer = scrape(place)
        assert answer.status_code == 200
        assert MARK not in answer.text
        assert all(ds.StudyInstanceUID not in answer.text for ds in slices)
        found = values(answer.text)
        assert found["instances_received_total",] == len(slices)
        assert found["jobs", "stroke", "SENDING"] == 1
        assert found["oldest_waiting_seconds", "stroke"] >= 0
        assert found["oldest_waiting_seconds", "routine"] == 0
        assert found["deliveries", "pacs", "PENDING"] == len(bookkeeping.results(place.books, job.id))
        assert found["refusals_last_day", "unlisted-source", "association"] == 1
        assert found["destination_absent_seconds", "pacs"] > 0
        assert found["processes_alive", "sweep"] == 1
        assert found["disk_free_bytes",] > 0
        assert ("clock_offset_seconds",) in found or books_url.startswith("sqlite")
        assert abs(found.get(("clock_offset_seconds",), 0.0)) < 5


def test_who_asks_at_once_again_gets_the_answer_that_was_given(empty: Place):
    first = values(scrape(empty).text)
    arrive(Intake(empty.books, empty.spool), head_ct()[:2], datetime.now(UTC))
    assert values(scrape(empty).text) == first


def test_metrics_are_for_programs_and_people_with_the_right_and_for_nobody_else(place: Place):
    assert requests.get(place.url + "/metrics", timeout=60).status_code == 401  # from the loopback, as behind a proxy
    assert {role: scrape(place, role).status_code for role in Role} == {
        role: 403 if role is Role.SENDER else 200 for role in Role
    }
    assert place.get("/studies", Role.MONITOR).status_code == 403
    assert Right.READ.value in place.get("/studies", Role.MONITOR).text


def test_every_metric_of_the_dashboard_exists_and_the_dashboard_shows_every_metric():
    board = json.loads(DASHBOARD.read_text())
    asked = {target["expr"] for panel in board["panels"] for target in panel["targets"]}
    named = {n for expr in asked for n in re.findall(rf"\b{NAME}\w+", expr)}
    made = {NAME + figure.name + ("_total" if figure.counts else "") for figure in FIGURES}
    assert named == made


def test_instances_are_counted_once_and_those_that_come_late_too(
    books: Books, spool: Spool, now: datetime, monkeypatch
):
    monkeypatch.setattr(gauges, "LATE", 3)
    intake, slices, tally = Intake(books, spool), head_ct(), Tally()
    arrive(intake, slices[:10], now, "A1")
    assert (tally.count(books), tally._settled) == (10, 7)
    arrive(intake, slices[10:], now, "A2")
    arrive(intake, slices[10:], now, "A3")  # sent again: no new instance, though PostgreSQL spends ids on it
    assert tally.count(books) == Tally().count(books) == 14


def test_a_node_is_ready_while_it_can_receive_and_whole_while_everybody_gives_signs(empty: Place):
    def asked(**params: str) -> tuple[int, list[str]]:
        answer = requests.get(empty.url + "/health/ready", params=params, timeout=60)
        return answer.status_code, answer.json()["lacks"]

    now, everybody = datetime.now(UTC), ["no listener", "no sweep", "no worker computes", "no worker sends"]
    assert asked() == (200, everybody)
    assert asked(whole="true") == (503, everybody)
    for process, role in enumerate(("listen", "sweep", "work process.stroke,process.routine,deliver")):
        bookkeeping.beat(empty.books, f"here:{process}", role, now)
    assert asked(whole="true") == (200, [])
    bookkeeping.beat(empty.books, "here:1", "sweep", now - bookkeeping.FRESH - timedelta(seconds=1))
    assert asked(whole="true") == (503, ["no sweep"])
    assert asked()[0] == 200


def test_books_that_are_away_make_it_unready(empty: Place, monkeypatch):
    def away(*_: object) -> None:
        raise bookkeeping.BooksAway("select", {}, OSError("gone"))

    monkeypatch.setattr(bookkeeping, "alive", away)
    answer = requests.get(empty.url + "/health/ready", timeout=60)
    assert (answer.status_code, answer.json()["why"]) == (503, "the books do not answer")


def test_a_process_gives_signs_and_takes_its_leave(books: Books, now: datetime):
    pulse = Pulse(books, "sweep")
    pulse.beat(now)
    pulse.beat(now + timedelta(seconds=1))  # too soon to be worth a row
    (row,) = bookkeeping.pulses(books)
    assert (row.process, row.seen_at) == (name(), now)
    pulse.beat(now + bookkeeping.BEAT)
    assert bookkeeping.alive(books, now + bookkeeping.BEAT + bookkeeping.FRESH) == {"sweep": 1}
    assert bookkeeping.alive(books, now + timedelta(hours=1)) == {"sweep": 0}
    pulse.end()
    assert bookkeeping.alive(books, now) == {}
    bookkeeping.beat(books, "old:1", "listen", now - timedelta(days=2))
    bookkeeping.beat(books, "new:1", "listen", now)
    assert [row.process for row in bookkeeping.pulses(books)] == ["new:1"]


def test_the_clock_is_compared_with_the_database_s(books: Books):
    clock = timekeeping.look(books, lambda: datetime.now(UTC) + timedelta(seconds=100))
    sqlite = books.kw["bind"].dialect.name == "sqlite"
    assert clock.offset is None if sqlite else clock.offset == pytest.approx(100, abs=5)
