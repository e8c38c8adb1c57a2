"""dicomnode.scp over real associations: who may send, what is answered, and what is kept."""

from datetime import datetime
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification

from dicomnode import bookkeeping, config
from dicomnode.scp import Listener
from tests.dicomnode.arrivals import only_series, part10
from tests.dicomnode.scp.peers import associate, eventually


def test_c_echo_is_answered(listener: Listener):
    assoc = associate(listener, (Verification,))
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


def test_success_means_that_the_bytes_and_the_row_are_there(listener: Listener, head):
    assoc = associate(listener)
    for n, ds in enumerate(head, start=1):
        assert assoc.send_c_store(ds).Status == 0x0000
        series = only_series(listener.intake.books)
        assert len(series.instances) == n
        assert dcmread(listener.intake.spool.path(series.instances[-1].path)) == ds
    assert only_series(listener.intake.books).open_associations == 1
    assoc.release()
    assert eventually(lambda: only_series(listener.intake.books).open_associations == 0)


def test_an_aborted_association_has_ended_too(listener: Listener, head):
    assoc = associate(listener)
    assert assoc.send_c_store(head[0]).Status == 0x0000
    assoc.abort()
    assert eventually(lambda: only_series(listener.intake.books).open_associations == 0)
    assert len(only_series(listener.intake.books).instances) == 1


@pytest.mark.parametrize(
    ("calling", "called", "diagnostic", "code"),
    [("OTHER", "DICOMNODE", 0x03, "unlisted-source"), ("CT1", "ANOTHER", 0x07, "called-ae-title")],
)
def test_who_is_not_listed_is_rejected_and_the_books_say_so(
    listener: Listener, now: datetime, calling, called, diagnostic, code
):
    assoc = associate(listener, calling=calling, called=called)
    assert assoc.is_rejected
    assert (assoc.acceptor.primitive.result, assoc.acceptor.primitive.diagnostic) == (0x01, diagnostic)
    assert eventually(lambda: bookkeeping.refusals(listener.intake.books, "association", now))
    ((found, why, _, _),) = bookkeeping.refusals(listener.intake.books, "association", now)
    assert found == code
    assert calling in why
    ok = associate(listener, (Verification,))  # and the listener goes on
    assert ok.send_c_echo().Status == 0x0000
    ok.release()


def test_a_listed_ae_title_from_another_address_is_rejected(listener: Listener):
    elsewhere = config.Source("CT1", ("192.0.2.1",))
    object.__setattr__(listener.settings, "source", (elsewhere,))
    assert associate(listener).is_rejected


def test_every_storage_class_is_accepted_with_explicit_little_endian_before_implicit(listener: Listener):
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    for start in range(0, len(classes), 100):
        chunk = classes[start : start + 100]
        both = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
        assoc = associate(listener, *((sop_class, both) for sop_class in chunk))
        accepted = {cx.abstract_syntax: cx.transfer_syntax[0] for cx in assoc.accepted_contexts}
        assoc.release()
        assert accepted == dict.fromkeys(chunk, ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
        JPEGLosslessSV1,
        JPEGExtended12Bit,
    ],
    ids=lambda s: s.name,
)
def test_every_transfer_syntax_is_accepted(listener: Listener, syntax):
    assoc = associate(listener, (CTImageStorage, syntax))
    assert [cx.transfer_syntax[0] for cx in assoc.accepted_contexts] == [syntax]
    assoc.release()


def test_a_data_set_that_is_none_is_answered_cannot_understand_and_the_node_goes_on(listener: Listener, head, now):
    assoc = associate(listener)
    junk = Dataset()
    junk.file_meta = head[0].file_meta
    junk.SOPClassUID, junk.SOPInstanceUID = CTImageStorage, head[0].SOPInstanceUID
    assert assoc.send_c_store(junk).Status == 0xC000
    without_pixels = dcmread(BytesIO(part10(head[0])))
    del without_pixels.PixelData
    assert assoc.send_c_store(without_pixels).Status == 0xC000
    assert assoc.send_c_store(head[1]).Status == 0x0000
    assoc.release()
    codes = {code for code, *_ in bookkeeping.refusals(listener.intake.books, "instance", now)}
    assert codes == {"not-dicom", "truncated"}
    assert len(list((listener.intake.spool.root / "quarantine").iterdir())) == 2


def test_a_full_disk_is_answered_out_of_resources(listener: Listener, head):
    (listener.intake.spool.root / "tmp").rmdir()
    assoc = associate(listener)
    assert assoc.send_c_store(head[0]).Status == 0xA700
    (listener.intake.spool.root / "tmp").mkdir()
    assert assoc.send_c_store(head[0]).Status == 0x0000
    assoc.release()


def test_a_listener_that_starts_again_closes_what_its_predecessor_left_open(listener: Listener, head):
    assoc = associate(listener)
    assert assoc.send_c_store(head[0]).Status == 0x0000
    listener._peers.clear()  # as if killed: the release is never seen
    assoc.release()
    listener.shutdown()
    assert only_series(listener.intake.books).open_associations == 1
    listener.start()
    assert only_series(listener.intake.books).open_associations == 0
