"""All that a study can yield, beside its source: one patient, one study, in every object."""

from pathlib import Path

import pytest
from pydicom import Dataset

from dicomnode.writer import OBJECTS, page, write
from tests import phantom
from tests.dcentvfy import disagreements
from tests.dicomnode.writer import studies
from tests.dicomnode.writer.test_common import NAMES

SOURCES = 2  # slices of the source that stand beside the objects


def whole(tmp_path: Path, charset: object, name: str) -> list[Path]:
    """The source, every kind of object and the page, as files."""
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    for ds in source:
        ds.SpecificCharacterSet, ds.PatientName = charset, name
        ds.IssuerOfPatientID, ds.PatientWeight, ds.StudyDescription = "HOSPITAL", 71.5, "CT head"
        ds.IssuerOfAccessionNumberSequence = [issuer]
    source = [studies.read_back(ds) for ds in source]
    study = studies.stroke(source)
    objects = [r.dataset for r in write(study, lambda kind, name, i: kind not in studies.PER_SLICE or i == 5, OBJECTS)]
    said = page.Refusal(source, "gap", "slices are missing", study.created_at, "0.1.0", "NODE-1")
    paths = []
    for number, ds in enumerate([*source[:SOURCES], *objects, page.write(said)]):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(studies.saved(ds))
    return paths


@pytest.mark.parametrize(("charset", "name"), [NAMES[0], NAMES[3], NAMES[5]], ids=["Japanese", "Korean", "Arabic"])
def test_dcentvfy_finds_one_patient_and_one_study_in_all_objects(tmp_path: Path, charset, name):
    paths = whole(tmp_path, charset, name)
    # It compares bytes: a source that says the name in another character set looks different to it.
    assert disagreements(paths if charset == "ISO_IR 192" else paths[SOURCES:]) == set()


def test_dcentvfy_would_find_an_object_that_differs(tmp_path: Path):
    paths = whole(tmp_path, "ISO_IR 192", "Aneas^Rudiger")
    odd = paths[SOURCES]
    odd.write_bytes(odd.read_bytes().replace(b"19600101", b"19610101"))
    assert any("PatientBirthDate" in line for line in disagreements(paths))
