"""The reference data path: pynetdicom receives the whole message into memory, and we keep it then."""

from pynetdicom import evt

from dicomnode.bookkeeping import Peer
from dicomnode.scp import wire
from dicomnode.scp.store import Store, status_of


def on_c_store(event: evt.Event, store: Store, peer: Peer) -> int:
    """Answer one C-STORE request."""
    request = event.request
    sop_class, sop_instance = (str(u).encode() for u in (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID))
    meta = wire.file_meta(sop_class, sop_instance, event.context.transfer_syntax)
    try:
        with store.begin(meta) as part:
            store.write(part, event.encoded_dataset(include_meta=False), len(meta))
            return store.finish(part, peer)
    except OSError as error:
        return status_of(error, peer)
