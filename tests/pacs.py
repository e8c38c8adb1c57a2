"""A PACS that remembers what it was sent, and can be told to misbehave. The only double of the tests."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from dicomnode.config import Destination
from dicomnode.demo import free_port

ALL_CLASSES = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)


class HangUp(Exception):
    """Raised by `answer`: the PACS aborts the association instead of answering."""


@dataclass
class Pacs:
    """answer(n) is the status of the n-th C-STORE request, counted from 0."""

    answer: Callable[[int], int] = lambda n: 0x0000
    classes: Sequence[str] = ALL_CLASSES
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ae_title: str = "PACS"
    known: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    received: list[Dataset] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
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

    def on_accepted(self, event: evt.Event) -> None:
        self.associations += 1

    @contextmanager
    def running(self) -> Iterator["Pacs"]:
        ae = AE(self.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(self.known)
        ae.add_supported_context(Verification)
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, list(self.syntaxes))
        handlers = [(evt.EVT_C_STORE, self.on_c_store), (evt.EVT_ACCEPTED, self.on_accepted)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def destination(self, **other) -> Destination:
        values = {"name": "pacs", "ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port}
        return Destination(**{**values, **other})
