"""Four scanners that send without pause, and write down what the node has told them that it keeps."""

import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicomnode.demo import free_port
from dicomnode.sender.inquiry import report_of, request_of
from tests import phantom

SLICES, STEP, MATRIX = 10, 9.0, 64  # the fewest and smallest that the node computes from: 81 mm
PATIENCE = 30.0  # seconds a scanner waits for any answer
PAUSE = 0.2  # seconds before it tries again
SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000


@cache
def _head() -> list[Dataset]:
    return phantom.head(phantom.even(SLICES, STEP, -45.0), matrix=MATRIX, thickness=STEP)


def study(name: str, *, localizer: bool = False) -> list[Dataset]:
    """A head of its own patient and study; as a localizer it is received, and refused by the sweep."""
    series = []
    for number, original in enumerate(_head()[: SLICES // 2 if localizer else SLICES]):
        ds = deepcopy(original)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.SOPInstanceUID = (
            generate_uid(entropy_srcs=[name, level]) for level in ("study", "series", "frame", str(number))
        )
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PatientID, ds.AccessionNumber, ds.PatientName = name, name[-16:], f"Phantom^{name}"
        if localizer:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        series.append(ds)
    return series


@dataclass
class Ledger:
    """What one scanner was told. kept: SOP Instance UID -> sha256 of the data set that was answered with Success."""

    kept: dict[str, str] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    studies: int = 0
    committed: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    last_at: datetime | None = None


@dataclass
class Scanner:
    """Sends study after study over associations that break; an instance that was not acknowledged is sent again.

    wants_head: asked before each study whether the node may have another head; else it gets a localizer.
    """

    name: str
    node_port: int
    wants_head: Callable[[], bool]
    commitment_port: int = field(default_factory=free_port)
    ledger: Ledger = field(default_factory=Ledger)
    asked: dict[str, set[str]] = field(default_factory=dict)  # transaction -> SOP Instance UIDs, until it is reported
    problems: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop, then one head more; returns when the node has committed to all of it."""
        server = self._entity().start_server(
            ("127.0.0.1", self.commitment_port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        try:
            while not stop.is_set():
                self._send_study(head=self.wants_head())
            self._send_study(head=True)
            while self.asked:
                time.sleep(PAUSE)
        finally:
            server.shutdown()

    def _entity(self) -> AE:
        ae = AE(self.name)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        return ae

    def _send_study(self, *, head: bool) -> None:
        self.ledger.studies += 1
        series = study(f"{self.name}-{self.node_port}-{self.ledger.studies}", localizer=not head)
        if head:
            self.ledger.heads.append(str(series[0].StudyInstanceUID))
        else:
            self._offer_rubbish(series[0])
        left = series
        while left := [ds for ds in left if ds.SOPInstanceUID not in self.ledger.kept]:
            self._send(left)
        self._ask(series)

    def _send(self, series: list[Dataset]) -> None:
        """What one association takes."""
        ae = self._entity()
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        assoc = ae.associate("127.0.0.1", self.node_port, ae_title="DICOMNODE")
        try:
            for ds in series if assoc.is_established else ():
                if assoc.send_c_store(ds).get("Status") != SUCCESS:
                    break
                self.ledger.kept[str(ds.SOPInstanceUID)] = digest(ds)
                self.ledger.last_at = datetime.now(UTC)
        except (RuntimeError, ValueError):  # pynetdicom's words for an association that has ended
            pass
        if assoc.is_established:
            assoc.release()
        else:
            time.sleep(PAUSE)

    def _offer_rubbish(self, original: Dataset) -> None:
        """A data set that nobody can file must not be acknowledged, whatever dies."""
        ae = self._entity()
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        assoc = ae.associate("127.0.0.1", self.node_port, ae_title="DICOMNODE")
        if not assoc.is_established:
            return
        ds = deepcopy(original)
        del ds.SeriesInstanceUID
        try:
            status = assoc.send_c_store(ds).get("Status")
        except (RuntimeError, ValueError):
            return
        if status == SUCCESS:
            self.problems.append("a data set without a Series Instance UID was acknowledged")
        if assoc.is_established:
            assoc.release()

    def _ask(self, series: list[Dataset]) -> None:
        """Storage commitment for all of a series; the report comes over this association, or later to our port."""
        transaction = str(generate_uid())
        self.asked[transaction] = {str(ds.SOPInstanceUID) for ds in series}
        references = [(str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in series]
        while transaction in self.asked and not self._ask_once(transaction, references):
            time.sleep(PAUSE)

    def _ask_once(self, transaction: str, references: list[tuple[str, str]]) -> bool:
        ae = self._entity()
        ae.add_requested_context(StorageCommitmentPushModel)
        assoc = ae.associate(
            "127.0.0.1",
            self.node_port,
            ae_title="DICOMNODE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        if not assoc.is_established:
            return False
        model = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        try:
            status, _ = assoc.send_n_action(request_of(transaction, references), 1, *model)
        except (RuntimeError, ValueError):
            return False
        deadline = time.monotonic() + 1.0
        while transaction in self.asked and assoc.is_established and time.monotonic() < deadline:
            time.sleep(0.02)
        if assoc.is_established:
            assoc.abort()  # a release would stop this scanner for ever where it meets a report
        return bool(status.get("Status") == SUCCESS)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        report = report_of(event.event_type, event.event_information)
        self.ledger.committed |= report.kept
        self.ledger.denied |= set(report.failed)
        self.asked.pop(report.transaction_uid, None)
        return SUCCESS, None


def digest(ds: Dataset) -> str:
    """sha256 of the data set as it goes over the network: Explicit VR Little Endian."""
    return sha256(encode(ds, is_implicit_vr=False, is_little_endian=True)).hexdigest()
