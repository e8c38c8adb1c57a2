"""The walk of the self-test: from a scanner that it plays, through the running node, to a receiver that it plays."""

import getpass
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Verification

from dicomnode import bookkeeping, data
from dicomnode.bookkeeping import Books, SelfTest, StudyStory
from dicomnode.config import LOOPBACK, Settings
from dicomnode.jobs import DeliveryState, SeriesState, State
from dicomnode.selftest import checks, permit
from dicomnode.selftest.checks import Check, Truth
from inference.weights import Manifest

PATIENCE = 600.0  # seconds for the whole walk, which takes 15 on an idle machine
PERIOD = 0.2
STATES = frozenset({*State, *SeriesState})
ENDED = (State.DONE, State.FAILED, State.REJECTED)
PATIENT_ID, PATIENT_NAME = "SELFTEST", "SELFTEST^VIRTUAL PATIENT"
Say = Callable[[str], None]


@dataclass(slots=True)
class Record:
    """What happened. steps: what and how many seconds after the first."""

    began_at: datetime
    study_instance_uid: str
    steps: list[tuple[str, float]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True where every check did."""
        return bool(self.checks) and all(check.passed for check in self.checks)


@dataclass(slots=True)
class Receiver:
    """A PACS that keeps what it gets in memory."""

    received: list[Dataset] = field(default_factory=list)
    first_at: datetime | None = None
    last_at: datetime | None = None

    @contextmanager
    def running(self, host: str) -> Iterator[int]:
        """Listen while the block runs; the port."""
        ae = AE("SELFTEST")
        ae.supported_contexts = [*AllStoragePresentationContexts, build_context(Verification)]
        where = ("127.0.0.1" if host in LOOPBACK else "0.0.0.0", 0)
        server = ae.start_server(where, block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_c_store)])
        try:
            yield int(server.socket.getsockname()[1])
        finally:
            server.shutdown()

    def _on_c_store(self, event: evt.Event) -> int:
        now = datetime.now(UTC)
        self.received.append(event.dataset)
        self.first_at, self.last_at = self.first_at or now, now
        return 0x0000


def run(settings: Settings, books: Books, manifest: Manifest, to: tuple[str, ...], host: str, say: Say) -> Record:
    """The whole self-test. host: where the senders reach this machine. Each step is said as it comes."""
    slices, truth = patient(datetime.now(UTC))
    study, now = str(slices[0].StudyInstanceUID), datetime.now(UTC)
    record, receiver, caller = Record(now, study), Receiver(), permit.new_ae_title()
    with receiver.running(host) as port:
        test = SelfTest(study, permit.digest(caller), host, port, to)
        actor = f"{getpass.getuser()} at the command line"
        bookkeeping.open_selftest(books, test, now, actor)
        try:
            statuses = send(slices, settings, caller)
            _step(record, f"{len(statuses)} instances sent and acknowledged", datetime.now(UTC), say)
            story = _wait(books, study, say) if statuses else None
        finally:
            bookkeeping.close_selftest(books, study, datetime.now(UTC), actor)
    for check in _of_walk(settings, slices, statuses, story, test):
        _check(record, check, say)
    if story:
        _timeline(record, story, receiver, say)
    if receiver.received:
        for check in checks.of_objects(slices, receiver.received, manifest.kinds, truth):
            _check(record, check, say)
    return record


def patient(now: datetime) -> tuple[list[Dataset], Truth]:
    """The virtual patient as a new study of nobody."""
    paths = data.ncct()
    known = json.loads((Path(paths[0]).parent.parent / "truth.json").read_text(encoding="utf-8"))
    slices: list[Dataset] = [dcmread(path) for path in paths]
    study, series = generate_uid(prefix=None), generate_uid(prefix=None)
    for ds in slices:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        ds.PatientID, ds.PatientName, ds.AccessionNumber = PATIENT_ID, PATIENT_NAME, f"ST{now:%y%m%d%H%M%S}"
        ds.StudyDate = ds.SeriesDate = f"{now:%Y%m%d}"
    return slices, Truth(known["side"], tuple(known["lesion_centroid_lps_mm"]))


def send(slices: Sequence[Dataset], settings: Settings, caller: str) -> list[int]:
    """As the scanner: a status for each C-STORE; none where the node did not accept the association."""
    ae = AE(caller)
    for pair in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in slices}:
        ae.add_requested_context(*pair)
    host = "127.0.0.1" if settings.listen.host in ("0.0.0.0", "::") else settings.listen.host
    assoc = ae.associate(host, settings.listen.port, ae_title=settings.node.ae_title, tls_args=_tls(settings))
    if not assoc.is_established:
        return []
    statuses = [int(assoc.send_c_store(ds).get("Status", 0xFFFF)) for ds in slices]
    assoc.release()
    return statuses


def _tls(settings: Settings) -> tuple[ssl.SSLContext, str] | None:
    """The node's own certificate stands for a scanner's; whether others trust it is `doctor`'s question."""
    files = settings.listen.tls
    if not files.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(files.certificate, files.key)
    return context, ""


def _wait(books: Books, study: str, say: Say) -> StudyStory | None:
    """Until the node has done with the study; what it knows then."""
    deadline, told = time.monotonic() + PATIENCE, ""
    story = None
    while time.monotonic() < deadline:
        if bookkeeping.find_studies(books, study):
            story = bookkeeping.story(books, study)
            state = str(story.jobs[-1].state if story.jobs else story.series[-1].state)
            if state != told:
                say(f"      {state}")
            told = state
            if state == "REFUSED" or state in ENDED:
                return story
        time.sleep(PERIOD)
    return story


def _of_walk(
    settings: Settings, slices: Sequence[Dataset], statuses: Sequence[int], story: StudyStory | None, test: SelfTest
) -> Iterator[Check]:
    count = len(slices)
    admitted = "accepted" if statuses else "rejected, or nobody listens; see `dicomnode doctor`"
    yield Check("The listener's answer to the association", "accepted", admitted, bool(statuses))
    good = sum(status == 0 for status in statuses)
    yield Check("C-STORE acknowledged with 0x0000", f"{count} instances", f"{good} instances", good == count)
    if story is None:
        return
    series, job = story.series[-1], story.jobs[-1] if story.jobs else None
    found = series.completed_by or f"{series.state}: {series.reason or 'no word'}"
    yield Check("How the series was found complete", "geometry", found, found == "geometry")
    if job is None:
        return
    found = f"{job.state}" + (f": {job.reason}" if job.state != State.DONE else "")
    yield Check("The job", "DONE", found, job.state == State.DONE)
    own = permit.receiver(test.host, test.port).name
    went: Counter[str] = Counter()
    for _, destination, state, _, number in story.deliveries:
        if state == DeliveryState.CONFIRMED:
            went["the self-test's receiver" if destination == own else destination] += number
    wanted = {"the self-test's receiver", *(name for name in test.to if settings.destination_named(name))}
    everywhere = {"the self-test's receiver" if d == own else d for _, d, *_ in story.deliveries}
    words = ", ".join(f"{went[name]} files to {name}" for name in sorted(everywhere)) or "nowhere"
    yield Check(
        "Results confirmed, and where", f"only to {', '.join(sorted(wanted))}", words, everywhere == wanted == set(went)
    )


def _timeline(record: Record, story: StudyStory, receiver: Receiver, say: Say) -> None:
    for row in story.history:
        if row.after in STATES and row.subject in ("series", "job"):
            _step(record, f"{row.subject}: {row.after}", row.at, say)
    for words, at in (("first", receiver.first_at), ("last", receiver.last_at)):
        if at:
            _step(record, f"{words} result at the receiver", at, say)
    record.steps.sort(key=lambda step: step[1])


def _step(record: Record, what: str, at: datetime, say: Say) -> None:
    seconds = (at - record.began_at).total_seconds()
    record.steps.append((what, seconds))
    say(f"{seconds:7.2f} s  {what}")


def _check(record: Record, check: Check, say: Say) -> None:
    record.checks.append(check)
    say(f"{'ok' if check.passed else 'FAIL':4s}  {check.what}: {check.found}")
    if not check.passed:
        say(f"      -> expected: {check.expected}")
