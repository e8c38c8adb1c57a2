"""Asking a destination whether it keeps what it took: storage commitment (PS3.4 Annex J), else C-FIND (Annex C)."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from dicomnode.config import Destination
from dicomnode.sender.peers import NothingAccepted, Unreachable, associate, words

SUCCESS, PENDING = 0x0000, 0xFF00  # PS3.4 C.4.1.1.4; 0xFF01 is pending too
REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 J.3.2.1
COMMITTED, SOME_FAILED = 1, 2  # Event Type IDs, PS3.4 J.3.3.1
ENDING = 5.0  # seconds that a report which is being answered may hold up the release
NO_SUCH_EVENT, INVALID_ARGUMENT = 0x0113, 0x0115  # PS3.7 Annex C


class QueryFailed(Exception):
    """The destination took the query and did not answer it well."""


@dataclass(frozen=True, slots=True)
class Report:
    """A storage commitment report (PS3.4 J.3.3): what is kept, and what is not with its failure reason."""

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, int]


def report_of(event_type: int, information: Dataset) -> Report:
    """Read the event information; raises ValueError where it is not as it must be."""
    if event_type not in (COMMITTED, SOME_FAILED) or "TransactionUID" not in information:
        raise ValueError(f"event type {event_type} with a transaction: {'TransactionUID' in information}")
    kept = (str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ())
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0)
        for item in information.get("FailedSOPSequence") or ()
    }
    return Report(str(information.TransactionUID), frozenset(kept) - set(failed), failed)


def request_of(transaction_uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    """The action information that names these (SOP class, SOP instance) pairs."""
    ds = Dataset()
    ds.TransactionUID = UID(transaction_uid)
    ds.ReferencedSOPSequence = [_reference(*pair) for pair in instances]
    return ds


def report_to_send(
    transaction_uid: str, kept: Sequence[tuple[str, str]], failed: Sequence[tuple[str, str, int]]
) -> Dataset:
    """The event information for (SOP class, SOP instance) pairs, those that failed with their reason."""
    ds = Dataset()
    ds.TransactionUID = UID(transaction_uid)
    if kept:
        ds.ReferencedSOPSequence = [_reference(*pair) for pair in kept]
    if failed:
        ds.FailedSOPSequence = [_reference(*pair) for *pair, _ in failed]
        for item, (*_, reason) in zip(ds.FailedSOPSequence, failed, strict=True):
            item.FailureReason = reason
    return ds


def _reference(sop_class: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID(sop_class), UID(sop_instance_uid)
    return item


@dataclass(slots=True)
class Inquiry:
    """One association with a destination, open while the `with` block runs. Raises Unreachable on entry.

    commits, finds: what the destination offers.
    """

    destination: Destination
    calling_ae_title: str
    commits: bool = False
    finds: bool = False
    _assoc: Association | None = None
    _reports: "queue.SimpleQueue[Report]" = field(default_factory=queue.SimpleQueue)
    _serving: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        classes = [StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind]
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        try:
            self._assoc = associate(self.destination, self.calling_ae_title, classes, handlers)
        except NothingAccepted:
            return self
        self._assoc._serve_request = partial(self._serve, self._assoc._serve_request)
        offered = {cx.abstract_syntax for cx in self._assoc.accepted_contexts}
        self.commits, self.finds = (sop_class in offered for sop_class in classes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._assoc is None:
            return
        ready = not error and self._serving.acquire(timeout=ENDING)  # what is being answered is answered first
        try:
            if self._assoc.is_established:
                self._assoc.release() if ready else self._assoc.abort()
        finally:
            if ready:
                self._serving.release()

    def _serve(self, serve: Callable[[Any, int], None], message: Any, context_id: int) -> None:
        """Answer what the destination asks, a report as a rule: pynetdicom does that in a thread of its own.

        That thread says of the association's other thread that it runs. Where it does not, whoever waits for it to
        pause, to query or to release, would wait for ever (docs/upstream/pynetdicom-event-reports.md).
        """
        with self._serving:
            serve(message, context_id)
            if self._assoc:
                self._assoc._is_paused = True

    def commit(self, transaction_uid: str, instances: Sequence[tuple[str, str]]) -> int:
        """Ask for storage commitment of (SOP class, SOP instance) pairs; the status of the N-ACTION response."""
        request = request_of(transaction_uid, instances)
        model = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        status, _ = self._established().send_n_action(request, REQUEST_COMMITMENT, *model)
        if "Status" not in status:
            raise Unreachable(f"{words(self.destination)} did not answer an N-ACTION request")
        return int(status.Status)

    def report(self, seconds: float) -> Report | None:
        """The next report that comes over this association within so many seconds."""
        try:
            return self._reports.get(timeout=seconds)
        except queue.Empty:
            return None

    def find(self, study_instance_uid: str, series_instance_uid: str) -> set[str]:
        """The SOP Instance UIDs that the destination holds of a series; raises QueryFailed or Unreachable."""
        ds = Dataset()
        ds.QueryRetrieveLevel = "IMAGE"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study_instance_uid, series_instance_uid, ""
        found = set[str]()
        for status, identifier in self._established().send_c_find(ds, StudyRootQueryRetrieveInformationModelFind):
            if "Status" not in status:
                raise Unreachable(f"{words(self.destination)} did not answer a C-FIND request")
            if status.Status not in (SUCCESS, PENDING, PENDING + 1):
                raise QueryFailed(f"it answers a C-FIND request with 0x{status.Status:04X}")
            if identifier is not None:
                found.add(str(identifier.get("SOPInstanceUID", "")))
        return found

    def _established(self) -> Association:
        if self._assoc is None or not self._assoc.is_established:
            raise Unreachable(f"{words(self.destination)} ended the association")
        return self._assoc

    def _on_report(self, event: Any) -> tuple[int, None]:
        try:
            self._reports.put(report_of(event.event_type, event.event_information))
        except (ValueError, AttributeError):
            return INVALID_ARGUMENT, None
        return SUCCESS, None
