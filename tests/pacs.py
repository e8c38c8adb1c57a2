"""A PACS that remembers what it was sent, and can be told to misbehave. The only double of the tests."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicomnode.config import Destination
from dicomnode.demo import free_port

ALL_CLASSES = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
COMMITMENT = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


class HangUp(Exception):
    """Raised by `answer`: the PACS aborts the association instead of answering."""


@dataclass
class Pacs:
    """answer(n) is the status of the n-th C-STORE request, counted from 0.

    commits: "same" reports on the association that asked, "new" on one that it opens to `node` (AE title and port),
    "never" takes the request and stays silent, "" does not offer the class.
    finds: offers C-FIND and answers with `find_status`. loses: SOP Instance UIDs lost since they were stored.
    """

    answer: Callable[[int], int] = lambda n: 0x0000
    classes: Sequence[str] = ALL_CLASSES
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ae_title: str = "PACS"
    known: Sequence[str] = ()
    commits: str = ""
    node: tuple[str, int] = ("DICOMNODE", 0)
    finds: bool = False
    maximum_pdu: int = 16382
    find_status: int = 0x0000
    loses: set[str] = field(default_factory=set)
    port: int = field(default_factory=free_port)
    received: list[Dataset] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    queries: list[Dataset] = field(default_factory=list)
    report_statuses: list[int | None] = field(default_factory=list)
    requests: int = 0
    associations: int = 0

    def on_c_store(self, event: evt.Event) -> int:
        try:
            status = self.answer(self.requests)
        except HangUp:
            event.assoc.abort()
            return 0x0110
        finally:
            self.requests += 1
        if status == 0x0000 or status >> 12 == 0xB:
            ds = event.dataset
            ds.file_meta = event.file_meta
            self.received.append(ds)
            self.encoded.append(event.encoded_dataset(include_meta=False))
        return status

    def on_n_action(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        self.asked.append(request)
        report = {"same": self.report_on_same, "new": self.report_on_new}.get(self.commits)
        if report:
            threading.Thread(target=report, args=(event.assoc, request), daemon=True).start()
        return 0x0000, None

    def report_on_same(self, assoc: Association, request: Dataset) -> None:
        time.sleep(0.05)  # the response to the request goes first
        self.send_report(assoc, request)

    def report_on_new(self, _: Association, request: Dataset) -> None:
        ae = AE(self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        assoc = ae.associate("127.0.0.1", self.node[1], ae_title=self.node[0], ext_neg=roles)
        if assoc.is_established:
            self.send_report(assoc, request)
            assoc.release()
        else:
            self.report_statuses.append(None)

    def send_report(self, assoc: Association, request: Dataset) -> None:
        ds, held = Dataset(), {each.SOPInstanceUID for each in self.received} - self.loses
        ds.TransactionUID = request.TransactionUID
        ds.ReferencedSOPSequence = [i for i in request.ReferencedSOPSequence if i.ReferencedSOPInstanceUID in held]
        failed = [i for i in request.ReferencedSOPSequence if i.ReferencedSOPInstanceUID not in held]
        for item in failed:
            item.FailureReason = 0x0112
        if failed:
            ds.FailedSOPSequence = failed
        status, _ = assoc.send_n_event_report(ds, 2 if failed else 1, *COMMITMENT)
        self.report_statuses.append(status.get("Status"))

    def on_c_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.queries.append(query)
        if self.find_status:
            yield self.find_status, None
            return
        for ds in self.received:
            if ds.SeriesInstanceUID == query.SeriesInstanceUID and ds.SOPInstanceUID not in self.loses:
                found = Dataset()
                found.QueryRetrieveLevel = "IMAGE"
                found.SOPInstanceUID = ds.SOPInstanceUID
                yield 0xFF00, found

    def on_accepted(self, event: evt.Event) -> None:
        self.associations += 1

    @contextmanager
    def running(self) -> Iterator["Pacs"]:
        ae = AE(self.ae_title)
        ae.maximum_pdu_size = self.maximum_pdu
        ae.require_called_aet = True
        ae.require_calling_aet = list(self.known)
        ae.add_supported_context(Verification)
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, list(self.syntaxes))
        if self.commits:
            ae.add_supported_context(StorageCommitmentPushModel)
        if self.finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [
            (evt.EVT_C_STORE, self.on_c_store),
            (evt.EVT_C_FIND, self.on_c_find),
            (evt.EVT_N_ACTION, self.on_n_action),
            (evt.EVT_ACCEPTED, self.on_accepted),
        ]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def destination(self, **other) -> Destination:
        values = {"name": "pacs", "ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port}
        return Destination(**{**values, **other})


@contextmanager
def swallowing() -> Iterator[int]:
    """A port that takes connections and whatever is sent, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
