"""dicomnode.inflate: what swells is refused before anybody unpacks it."""

import tracemalloc
import zlib
from io import BytesIO

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode import header, inflate
from inference.refusal import Refused
from tests.fuzz import cases


def packed(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def test_an_empty_picture_may_shrink_a_thousandfold():
    inflate.check(BytesIO(packed(bytes(8 * 2**20))), 0)


def test_what_swells_is_refused():
    with pytest.raises(Refused, match="swells to more than 100 times its size"):
        inflate.check(BytesIO(packed(bytes(inflate.MODEST + 1))), 0)


@pytest.mark.parametrize(("content", "code"), [(b"", "truncated"), (packed(b"a" * 999)[:-3], "truncated")])
def test_what_has_no_end_is_truncated(content, code):
    with pytest.raises(Refused) as refused:
        inflate.check(BytesIO(content), 0)
    assert refused.value.code == code


def test_what_is_not_deflated_is_not_dicom():
    with pytest.raises(Refused) as refused:
        inflate.check(BytesIO(b"\xff" * 100), 0)
    assert refused.value.code == "not-dicom"


@pytest.mark.parametrize("claimed", [0, 1, 100, 2**31])
def test_a_bomb_is_refused_in_little_memory_whatever_its_file_meta_claims(claimed):
    content = bytearray(next(b for b in map(cases.bomb, range(20)) if "swells" in sentence(b)))
    content[140:144] = claimed.to_bytes(4, "little")
    tracemalloc.start()
    try:
        assert sentence(bytes(content))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def sentence(content: bytes) -> str:
    with pytest.raises(Refused) as refused:
        header.read(content)
    return refused.value.sentence


def test_a_deflated_slice_is_read():
    assert header.read(cases.good()[str(DeflatedExplicitVRLittleEndian)]).elements["Modality"] == "CT"
