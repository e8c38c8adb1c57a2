"""dicomnode.header: the few elements are read, and bytes that are not what they claim are refused in words."""

import struct
from copy import deepcopy
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode import header
from inference.refusal import Refused
from tests import phantom
from tests.dicomnode.arrivals import part10


@pytest.fixture(scope="module")
def ds():
    return phantom.head(matrix=64)[5]


def in_syntax(ds, syntax):
    copy = deepcopy(ds)
    if syntax in (JPEGLSLossless, RLELossless):
        copy.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        copy.PixelData = struct.pack(f">{64 * 64}h", *struct.unpack(f"<{64 * 64}h", ds.PixelData))
    copy.file_meta.TransferSyntaxUID = syntax
    return copy


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless]


def test_what_the_books_want_is_read(ds):
    head = header.read(part10(ds))
    assert head.elements["SOPInstanceUID"] == ds.SOPInstanceUID
    assert head.elements["AccessionNumber"] == "PHANTOM1"
    assert head.transfer_syntax == ds.file_meta.TransferSyntaxUID
    assert len(head.sha256) == 64
    assert "PatientName" not in head.elements  # nothing is read that is not asked for


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_every_transfer_syntax_is_read(ds, syntax):
    assert header.read(part10(in_syntax(ds, syntax))).transfer_syntax == syntax


@pytest.mark.parametrize("syntax", [s for s in SYNTAXES if s != DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_pixel_data_cut_short_is_truncated(ds, syntax):
    with pytest.raises(Refused) as refused:
        header.read(part10(in_syntax(ds, syntax))[:-100])
    assert refused.value.code == "truncated"
    assert "send the instance again" in refused.value.sentence


@pytest.mark.parametrize("keep", [1200, 1300])
def test_a_data_set_that_ends_before_its_pixels_is_truncated(ds, keep):
    with pytest.raises(Refused) as refused:
        header.read(part10(ds)[:keep])
    assert refused.value.code in ("truncated", "not-dicom")


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(2000), b"\x00" * 128 + b"DICM", b"\x00" * 128 + b"DICM" + b"x" * 99]
)
def test_what_is_not_dicom_is_refused(content):
    with pytest.raises(Refused) as refused:
        header.read(content)
    assert refused.value.code == "not-dicom"


@pytest.mark.parametrize("keyword", header.IDENTITY)
def test_an_instance_that_cannot_be_filed_is_refused_by_the_name_of_what_it_lacks(ds, keyword):
    value = ds[keyword].value
    damaged = b"9" + value[1:].encode().replace(b".", b"!")
    content = part10(ds)
    assert content.count(value.encode()) in (1, 2)  # two of them stand in the file meta information too
    with pytest.raises(Refused) as refused:
        header.read(content.replace(value.encode(), damaged))
    assert refused.value.code == "not-dicom"
    assert keyword in refused.value.sentence


@pytest.mark.filterwarnings("ignore:.*encoding")
@pytest.mark.parametrize("declared", [b"I       ", b"ISO_IR 999", b"\\\\      "])
def test_a_broken_character_set_does_not_cost_the_instance(ds, declared):
    content = part10(ds).replace(b"ISO_IR 192", declared.ljust(10))
    assert header.read(content).elements["SOPInstanceUID"] == ds.SOPInstanceUID


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(ds, data):
    content = bytearray(part10(ds))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 1400))] = data.draw(st.integers(0, 255))
    try:
        header.read(bytes(content))
    except Refused as refused:
        assert refused.code in ("not-dicom", "truncated")


def test_a_file_is_read_once_with_what_it_is_judged_by(ds, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(part10(ds))
    first = header.of_file(path)
    assert first is header.of_file(path)
    assert header.numbers(first, "ImagePositionPatient", 3) == [float(v) for v in ds.ImagePositionPatient]
    assert header.numbers(first, "ImageOrientationPatient", 3) is None
    assert header.numbers(first, "WindowCenter", 1) is None


def test_the_digest_is_of_the_data_set_and_not_of_the_receivers_file_meta(ds):
    first = header.read(part10(ds))
    other = deepcopy(ds)
    other.file_meta.ImplementationVersionName = "ANOTHER_RECEIVER"
    assert header.read(part10(other)).sha256 == first.sha256
    other.PatientID = "CHANGED"
    assert header.read(part10(other)).sha256 != first.sha256


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_quick_walk_and_the_parser_agree(ds, syntax, undefined):
    """Sequences within sequences before, between and behind what is wanted, with and without stated lengths."""
    copy = in_syntax(ds, syntax)
    inner, outer = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    outer.PurposeOfReferenceCodeSequence = [inner, Dataset()]
    outer.SeriesDescription = "not the one of the series"
    for keyword in ("ReferencedStudySequence", "RequestAttributesSequence"):
        setattr(copy, keyword, [deepcopy(outer), Dataset()])
        copy[keyword].is_undefined_length = undefined
    content = BytesIO(part10(copy))
    walked = header._walked(content)
    stopped = content.tell()
    assert walked == header._parsed(content)
    assert stopped == content.tell()
    assert walked is not None
    assert walked[0]["SeriesDescription"] == "Head 5 mm"


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_what_is_unusual_is_left_to_the_parser(ds, syntax):
    assert header._walked(BytesIO(part10(in_syntax(ds, syntax)))) is None
    named = deepcopy(ds)
    named.SeriesDescription = "tête"
    assert header._walked(BytesIO(part10(named))) is None
    assert header.read(part10(named)).elements["SeriesDescription"] == "tête"
