"""inference.codestream: what a compressed picture says of its size, and what is refused before it is decoded."""

import struct
from copy import deepcopy

import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from inference import codestream
from inference.refusal import Refused
from inference.volume import LARGEST_SIDE, from_slices, hounsfield
from tests import phantom


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(12), matrix=32)


def stream_of(ds) -> bytes:
    return next(generate_frames(ds.PixelData, number_of_frames=1))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda s: s.name)
def test_the_announced_size_is_read_and_a_bomb_refused(head, syntax):
    ds = deepcopy(head[5])
    ds.compress(syntax)
    stream = bytearray(stream_of(ds))
    assert codestream.size(bytes(stream)) == (32, 32)
    hounsfield(ds)
    if syntax == JPEGLSLossless:
        at = stream.index(b"\xff\xf7") + 5
        stream[at : at + 4] = struct.pack(">HH", 65535, 65535)
    else:
        at = stream.index(b"\xff\x51") + 6
        stream[at : at + 8] = struct.pack(">II", 2**30, 2**30)
    ds.PixelData = encapsulate([bytes(stream)])
    with pytest.raises(Refused, match="its header says 32 x 32"):
        hounsfield(ds)


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\0", b"\xff\xd8\0\0\0\0", b"\xff\x4f\xff\x51\0\x02"]
)
def test_a_stream_that_does_not_say_is_left_to_the_decoder(stream):
    assert codestream.size(stream) is None


def test_images_larger_than_any_ct_are_refused_before_they_are_decoded(head):
    series = deepcopy(head)
    for ds in series:
        ds.Rows = ds.Columns = LARGEST_SIDE + 1
    with pytest.raises(Refused, match="which no CT of a head does"):
        from_slices(series)
