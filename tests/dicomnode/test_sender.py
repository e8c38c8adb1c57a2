"""dicomnode.sender over real associations with a PACS that remembers, and that can be told to misbehave."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode import sender
from dicomnode.sender import ClassRefused, File, Unreachable
from tests import phantom
from tests.pacs import HangUp, Pacs


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    """Three captures and one object of another class, as finished files."""
    found = []
    for n, ds in enumerate(phantom.head(phantom.even(12), matrix=16)[:4]):
        ds.SOPClassUID = SecondaryCaptureImageStorage if n < 3 else ParametricMapStorage
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        path = tmp_path / f"{n}.dcm"
        ds.save_as(path, enforce_file_format=True)
        found.append(File(path, str(ds.SOPClassUID)))
    return found


def send(files, pacs: Pacs, **other) -> list:
    return list(sender.send(files, pacs.destination(**other), "DICOMNODE"))


def test_finished_files_arrive_byte_for_byte_over_one_association(files):
    with Pacs().running() as pacs:
        assert send(files, pacs) == [0x0000] * 4
        assert pacs.associations == 1
    for file, encoded in zip(files, pacs.encoded, strict=True):
        assert file.path.read_bytes().endswith(encoded)


def test_a_class_the_peer_does_not_take_is_said_and_the_others_are_stored(files):
    with Pacs(classes=(SecondaryCaptureImageStorage,)).running() as pacs:
        answers = send(files, pacs)
    assert answers[:3] == [0x0000] * 3
    assert isinstance(answers[3], ClassRefused)
    assert str(answers[3]) == "pacs does not accept Parametric Map Storage"


def test_a_peer_that_knows_only_implicit_gets_implicit(files):
    with Pacs(syntaxes=(ImplicitVRLittleEndian,)).running() as pacs:
        assert send(files, pacs) == [0x0000] * 4
    assert {ds.file_meta.TransferSyntaxUID for ds in pacs.received} == {ImplicitVRLittleEndian}
    assert pacs.received[0].PixelData == dcmread(files[0].path).PixelData
    assert dcmread(files[0].path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_nobody_there_says_what_to_look_at(files):
    with pytest.raises(Unreachable) as away:
        send(files, Pacs())
    assert "is it running" in str(away.value)
    assert "127.0.0.1" in str(away.value)


@pytest.mark.parametrize(
    ("pacs", "other", "words"),
    [
        (Pacs(known=("SOMEONE",)), {}, "does not know our AE title DICOMNODE; register it there"),
        (Pacs(), {"ae_title": "WRONG"}, "says that its AE title is not WRONG"),
        (Pacs(classes=("1.2.840.10008.5.1.4.1.1.4",)), {}, "accepts none of the classes we offered"),
    ],
)
def test_a_rejection_names_its_remedy(files, pacs: Pacs, other, words):
    with pacs.running(), pytest.raises(Unreachable) as away:
        send(files, pacs, **other)
    assert words in str(away.value)


def test_what_was_answered_before_the_peer_hung_up_stands(files):
    def hang_up(n: int) -> int:
        if n == 2:
            raise HangUp
        return 0x0000

    answers = []
    with Pacs(answer=hang_up).running() as pacs, pytest.raises(Unreachable):
        for status in sender.send(files, pacs.destination(), "DICOMNODE"):
            answers.append(status)
    assert answers == [0x0000, 0x0000]


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0xB000, 0x0110, 0x0124])
def test_every_status_is_handed_on_as_it_is(files, status):
    with Pacs(answer=lambda n: status).running() as pacs:
        assert send(files[:1], pacs) == [status]
