"""dicomnode.encoding: a file dressed for one destination is the same object, and the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from dicomnode import config, encoding, sender
from dicomnode.bookkeeping import Due
from dicomnode.encoding import Wish
from dicomnode.spool import Spool
from tests import phantom
from tests.dicomnode.writer import studies
from tests.pacs import Pacs

JAPANESE = ("", "ISO 2022 IR 87")
NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.fixture(scope="module")
def study():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", NAME
    return studies.stroke(source)


@pytest.fixture
def finished(spool: Spool, study):
    """Lay one object of the study into the spool."""

    def lay(kind: str) -> Due:
        ds = studies.one(study, kind, name="regions" if kind == "seg" else "Tmax")
        path = spool.root / "results" / "J1" / f"{kind}-Tmax-001.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(studies.saved(ds))
        relative = str(path.relative_to(spool.root))
        return Due(1, relative, str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), 0)

    return lay


def destination(**keys) -> config.Destination:
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    return config.parse({"destination": [peer | keys]}).destination[0]


def test_a_destination_without_wishes_gets_the_finished_file(finished, spool: Spool):
    due = finished("sc")
    assert encoding.wish(destination(), None) == Wish()
    assert encoding.file_for(due, Wish(), spool) == sender.File(spool.path(due.path), due.sop_class)
    assert len(list(spool.path(due.path).parent.iterdir())) == 1


@pytest.mark.parametrize(("name", "syntax"), [("rle", RLELossless), ("jpeg-ls", JPEGLSLossless)])
@pytest.mark.parametrize("kind", ["sc", "ct"])
def test_compression_loses_nothing(finished, spool: Spool, kind, name, syntax):
    due = finished(kind)
    file = encoding.file_for(due, encoding.wish(destination(transfer_syntax=name), None), spool)
    plain, made = dcmread(spool.path(due.path)), dcmread(file.path)
    assert file.plain == spool.path(due.path)
    assert (made.file_meta.TransferSyntaxUID, made.SOPInstanceUID) == (syntax, plain.SOPInstanceUID)
    assert np.array_equal(made.pixel_array, plain.pixel_array)
    assert (made.ImageType, made.LossyImageCompression) == (plain.ImageType, "00")
    assert file.path.stat().st_size < spool.path(due.path).stat().st_size / 2
    before = file.path.read_bytes()
    file.path.unlink()
    assert encoding.file_for(due, Wish(name), spool).path.read_bytes() == before


@pytest.mark.parametrize("kind", ["pm", "seg", "sr", "pdf"])
def test_what_has_no_pixels_to_compress_stays_as_it_is(finished, spool: Spool, kind):
    made = dcmread(encoding.file_for(finished(kind), Wish("jpeg-ls"), spool).path)
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_only_captures_change_their_modality(finished, spool: Spool):
    wanted = encoding.wish(destination(capture_modality="SC"), None)
    kinds = ("sc", "mosaic", "ct", "pm", "seg", "sr", "pdf")
    found = {kind: dcmread(encoding.file_for(finished(kind), wanted, spool).path).Modality for kind in kinds}
    assert found == {"sc": "SC", "mosaic": "SC", "ct": "CT", "pm": "OT", "seg": "SEG", "sr": "SR", "pdf": "DOC"}


@pytest.mark.parametrize("kind", ["sc", "ct", "pm", "seg", "sr", "pdf"])
def test_names_are_said_in_the_character_set_of_the_source(finished, spool: Spool, kind, tmp_path: Path):
    source = tmp_path / "source.dcm"
    ds = phantom.head(phantom.even(1), matrix=16)[0]
    ds.SpecificCharacterSet, ds.PatientName = list(JAPANESE), NAME
    ds.save_as(source, enforce_file_format=True)
    wanted = encoding.wish(destination(character_set="source"), source)
    assert wanted.character_set == JAPANESE
    made = dcmread(encoding.file_for(finished(kind), wanted, spool).path)
    assert made.SpecificCharacterSet == list(JAPANESE)
    assert str(made.PatientName) == NAME
    assert "山田".encode("iso2022_jp")[:7] in made.PatientName.original_string


def test_a_character_set_that_lacks_a_letter_leaves_the_file_in_unicode(finished, spool: Spool):
    made = dcmread(encoding.file_for(finished("sc"), Wish(character_set=("ISO_IR 100",)), spool).path)
    assert (made.SpecificCharacterSet, str(made.PatientName)) == ("ISO_IR 192", NAME)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, ExplicitVRLittleEndian])
def test_a_peer_that_does_not_take_the_compressed_file_gets_the_plain_one(finished, spool: Spool, syntax):
    due = finished("sc")
    file = encoding.file_for(due, Wish("jpeg-ls"), spool)
    with Pacs(syntaxes=[syntax]).running() as pacs:
        assert list(sender.send([file], pacs.destination(), "DICOMNODE")) == [0x0000]
    (received,) = pacs.received
    assert received.file_meta.TransferSyntaxUID == syntax
    plain = dcmread(spool.path(due.path))
    assert np.array_equal(received.pixel_array, plain.pixel_array)
