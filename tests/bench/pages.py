"""Every page and query with a million instances and 20,000 jobs in the books, SQLite and PostgreSQL.

The rows are written past the intake, with one finished file for each study; what is asked goes over HTTP to `dicomnode
web`, each address in turn, round by round, as an operator or a viewer.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from sqlalchemy import create_engine, insert, text
from ulid import ULID

from dicomnode import bookkeeping, config, passwords
from dicomnode.bookkeeping.tables import Base
from dicomnode.demo import free_port
from dicomnode.jobs import State
from dicomnode.roles import Role
from dicomnode.up import end_with_parent
from tests.bench.table import markdown
from tests.tools import missing
from tests.walks.node import Node, wait_for

INSTANCES, JOBS = 1_000_000, 20_000
RESULTS, LINES = 20, 10  # of each job: results, lines of history
POSTGRESQL = os.environ.get("PERFUSION_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
STATES = (*[State.DONE] * 950, *[State.FAILED] * 20, *[State.REJECTED] * 10, *[State.QUEUED] * 12, State.PROCESSING)
STATES = (*STATES, *[State.SENDING] * 7)  # of a thousand
WARM = 3  # rounds that are not counted
TARGET = 200  # milliseconds


def run(folder: Path, rounds: int, say: Callable[[str], None]) -> None:
    """Fill the books of each shape, and ask."""
    say(f"# Pages and queries: {INSTANCES:,} instances, {JOBS:,} jobs, {JOBS * RESULTS:,} results\n")
    for shape, place in SHAPES.items():
        with place(folder / shape) as (home, url):
            begun = time.perf_counter()
            path = node(home, url)
            settings = config.load(path)
            fill(settings)
            say(f"{shape}: filled in {time.perf_counter() - begun:.0f} s")
            with serving(path, settings) as (address, tokens, cookie):
                say(measure(address, tokens, cookie, settings, rounds * 10) + "\n")


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[Path, str]]:
    folder.mkdir()
    yield folder, ""


@contextmanager
def served(folder: Path) -> Iterator[tuple[Path, str]]:
    """An empty database of our own."""
    folder.mkdir()
    admin = create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS perfusion_bench WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE perfusion_bench"))
    except Exception as error:  # whatever the driver says
        missing(f"no PostgreSQL at {POSTGRESQL}: {error}")
    yield folder, POSTGRESQL.rsplit("/", 1)[0] + "/perfusion_bench"
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE perfusion_bench WITH (FORCE)"))
    admin.dispose()


SHAPES = {"SQLite": embedded, "PostgreSQL": served}


def node(folder: Path, url: str) -> Path:
    urls = {"books": url} if url else {}
    Node.init(folder, "--source", "CT1@127.0.0.1", "--destination", "PACS@127.0.0.1:104", **urls)
    path = folder / "node.toml"
    path.write_text(path.read_text().replace("port = 8080", f"port = {free_port()}"))
    return path


def fill(settings: config.Settings, instances: int = INSTANCES, jobs: int = JOBS) -> None:
    """All rows, the newest study a second old, a study every four minutes."""
    from pydicom import Dataset

    from tests.dicomnode.writer import studies

    engine = create_engine(settings.books_url)
    now, per_job = datetime.now(UTC), instances // jobs
    results = settings.node.data_dir / "results"
    some: Dataset = studies.one(studies.small())
    (results / "one").mkdir(parents=True, exist_ok=True)
    some.save_as(results / "one" / "file.dcm", enforce_file_format=True)
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in Base.metadata.tables}
    with engine.begin() as connection:
        association = {
            "id": "A",
            "calling_ae_title": "CT1",
            "address": "127.0.0.1",
            "opened_at": now,
            "released_at": now,
        }
        connection.execute(insert(Base.metadata.tables["association"]), [association])
        for n in range(jobs):
            at = now - timedelta(minutes=4) * (jobs - n)
            study(rows, n, at, per_job, results, newest=n >= jobs - 50)
            if n % 500 == 499:
                write(connection, rows)
        write(connection, rows)
    if engine.dialect.name == "postgresql":  # it does so by itself; SQLite never does
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    engine.dispose()


def write(connection, rows: dict[str, list[dict[str, object]]]) -> None:
    for table in Base.metadata.sorted_tables:
        if rows[table.name]:
            connection.execute(insert(table), rows[table.name])
            rows[table.name].clear()


def study(
    rows: dict[str, list[dict[str, object]]], n: int, at: datetime, instances: int, results: Path, *, newest: bool
) -> None:
    """One study of one series and one job, with its results, deliveries and history."""
    uid, series = f"2.25.{n}1", f"2.25.{n}2"
    job, study_id = (str(ULID.from_datetime(at)) for _ in "12")
    state = STATES[n * 7919 % 1000] if not newest else State.QUEUED if n % 2 else State.DONE
    seconds = 8 + n % 40
    rows["study"].append(
        {
            "study_instance_uid": uid, "id": study_id, "patient_id": f"P{n % 9000}",
            "patient_name": f"Name{n % 9000}^Virtual", "study_date": f"{at:%Y%m%d}", "accession_number": f"ACC{n}",
            "lane": "stroke" if n % 3 else "routine",
        }
    )  # fmt: skip
    refused = n % 11 == 0
    rows["series"].append(
        {
            "series_instance_uid": series, "study": uid, "modality": "CT", "description": "Head",
            "state": "REFUSED" if refused else "SELECTED", "reason_code": "gap" if refused else None,
            "reason": "a gap", "completed_by": "geometry", "last_received_at": at,
        }
    )  # fmt: skip
    for i in range(instances):
        rows["instance"].append(
            {
                "sop_instance_uid": f"{series}.{i}", "sop_class_uid": CTImageStorage, "sha256": f"{n:x}-{i:x}",
                "series": series, "path": f"in/{n}-{i}.dcm", "bytes": 527000, "transfer_syntax": "1.2.840.10008.1.2.1",
                "calling_ae_title": "CT1", "association": "A", "received_at": at, "patient_id": f"P{n % 9000}",
            }
        )  # fmt: skip
    done = at + timedelta(seconds=seconds) if state is State.DONE else None
    ended = state in (State.FAILED, State.REJECTED)
    rows["job"].append(
        {
            "id": job, "key": f"key{n}", "study": uid, "route": "ncct", "revision": 1, "supersedes": None,
            "lane": "stroke" if n % 3 else "routine", "state": str(state), "reason_code": "motion" if ended else None,
            "reason": "words", "warnings": "", "attempts": 1, "lease_owner": None, "lease_until": None,
            "enqueued_at": at, "created_at": at, "last_slice_at": at, "done_at": done, "dismissed_at": None,
            "engine": "torch",
        }
    )  # fmt: skip
    (results / job).mkdir()
    (results / job / "0.dcm").hardlink_to(results / "one" / "file.dcm")
    for i in range(RESULTS):
        result = f"2.25.{n}3{i:03d}"
        rows["result"].append(
            {
                "sop_instance_uid": result, "job": job, "series_instance_uid": f"2.25.{n}4{i % 5}",
                "sop_class": SecondaryCaptureImageStorage, "kind": "sc", "map": "Tmax", "index": i,
                "path": f"results/{job}/0.dcm", "sha256": "0",
            }
        )  # fmt: skip
        rows["delivery"].append(
            {
                "result": result, "destination": "pacs", "state": "PENDING" if state is State.SENDING else "CONFIRMED",
                "rung": 0, "status": "0x0000: stored", "confirmed_by": "query", "attempts": 1, "next_at": at,
                "sent_at": at, "transaction_uid": None,
            }
        )  # fmt: skip
    for i in range(LINES):
        rows["history"].append(
            {
                "subject": "series" if i < 2 else "job", "subject_id": series if i < 2 else job, "at": at,
                "before": None, "after": str(State.SENDING if i == LINES - 2 else State.QUEUED), "why": "words",
                "actor": "host:1",
            }
        )  # fmt: skip


@contextmanager
def serving(path: Path, settings: config.Settings) -> Iterator[tuple[str, dict[Role, str], str]]:
    """The running service: its address, tokens, and the cookie of an operator's session."""
    books, now, tokens = bookkeeping.open_books(settings.books_url), datetime.now(UTC), {}
    for role in (Role.VIEWER, Role.OPERATOR):
        bookkeeping.add_account(books, role.value, role, None, now, "bench")
        tokens[role] = access(books, role, bookkeeping.TOKEN, now)
    cookie = access(books, Role.OPERATOR, bookkeeping.SESSION, now)
    bookkeeping.close(books)
    address = f"http://127.0.0.1:{settings.web.port}"
    with (path.parent / "web.log").open("wb") as log:
        environment = {**os.environ, "DICOMNODE_CONFIG": str(path)}
        command = [sys.executable, "-m", "dicomnode", "web"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=end_with_parent)
        try:
            wait_for(lambda: answers(address), "the web service")
            yield address, tokens, cookie
        finally:
            process.terminate()
            process.wait(30)


def access(books: bookkeeping.Books, role: Role, kind: str, now: datetime) -> str:
    secret = passwords.new_secret()
    until = now + timedelta(days=1)
    bookkeeping.add_access(books, passwords.digest(secret), role.value, kind, "csrf", until, now, "bench")
    return secret


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health/ready", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def measure(address: str, tokens: dict[Role, str], cookie: str, settings: config.Settings, rounds: int) -> str:
    """A table of p50 and p95 of each address, in milliseconds."""
    books = bookkeeping.open_books(settings.books_url)
    middle = f"2.25.{JOBS // 2}1"
    study_id = bookkeeping.study_of(books, middle).id
    done = bookkeeping.list_jobs(books, bookkeeping.Chosen((State.DONE,)), "", JOBS // 2)[-1].job.id
    bookkeeping.close(books)
    web = f"{address}/dicom-web/studies"
    series = f"2.25.{JOBS // 2}40"
    viewer, operator = ({"Authorization": f"Bearer {tokens[role]}"} for role in (Role.VIEWER, Role.OPERATOR))
    browser = {"Cookie": f"dicomnode={cookie}"}
    asked: list[tuple[str, str, str, dict[str, str], dict[str, str] | None]] = [
        ("metrics, kept for 5 s", "GET", f"{address}/metrics", viewer, None),
        ("page: waiting", "GET", f"{address}/", browser, None),
        ("page: failed", "GET", f"{address}/?show=failed", browser, None),
        (
            "page: failed, by reason and lane",
            "GET",
            f"{address}/?show=failed&reason=motion&lane=routine",
            browser,
            None,
        ),
        ("page: done", "GET", f"{address}/?show=done", browser, None),
        ("page: done, from the middle", "GET", f"{address}/?show=done&after={done}", browser, None),
        ("page: all, a reason that nothing has", "GET", f"{address}/?show=all&reason=none", browser, None),
        ("page: refused series", "GET", f"{address}/?show=refused", browser, None),
        ("page: one study", "GET", f"{address}/study/{study_id}", browser, None),
        (
            "page: find an accession number",
            "POST",
            f"{address}/find",
            browser,
            {"csrf": "csrf", "key": f"ACC{JOBS // 2}"},
        ),
        ("QIDO: newest 100 studies", "GET", web, viewer, None),
        ("QIDO: newest 100, received too", "GET", web, operator, None),
        ("QIDO: by accession number", "GET", f"{web}?AccessionNumber=ACC77", viewer, None),
        ("QIDO: by PatientID", "GET", f"{web}?PatientID=P77", viewer, None),
        ("QIDO: by part of a name", "GET", f"{web}?PatientName=*me77%5E*", viewer, None),
        ("QIDO: by date", "GET", f"{web}?StudyDate=20260101-20271231&limit=25&offset=500", viewer, None),
        ("QIDO: by a modality that nothing has", "GET", f"{web}?ModalitiesInStudy=SEG", viewer, None),
        ("QIDO: series of a study", "GET", f"{web}/{middle}/series", operator, None),
        ("QIDO: instances of a study", "GET", f"{web}/{middle}/instances", viewer, None),
        ("WADO: metadata of a series", "GET", f"{web}/{middle}/series/{series}/metadata", viewer, None),
    ]
    times: dict[str, list[float]] = {name: [] for name, *_ in asked}
    with requests.Session() as session:
        for turn in range(WARM + rounds):
            for name, method, url, headers, form in asked:
                begun = time.perf_counter()
                answer = session.request(method, url, headers=headers, data=form, allow_redirects=False, timeout=120)
                spent = (time.perf_counter() - begun) * 1000
                if answer.status_code not in (200, 204, 303) or answer.headers.get("Location") == "/login":
                    raise RuntimeError(f"{name}: {answer.status_code} {answer.text[:300]}")
                if turn >= WARM:
                    times[name].append(spent)
    rows = []
    for name, spent in times.items():
        rising = sorted(spent)
        p50, p95 = (bookkeeping.percentile(rising, share) or 0.0 for share in (0.50, 0.95))
        rows.append([name, f"{p50:.0f}", f"{p95:.0f}", "" if p95 < TARGET else f"over {TARGET}"])
    return markdown(("what is asked", "p50 ms", "p95 ms", ""), rows)
