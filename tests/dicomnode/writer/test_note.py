"""The rejection note: names what was replaced, and says by what."""

import subprocess
from pathlib import Path

from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode.writer import Replaced, plan
from tests.dicomnode.writer import studies
from tests.tools import program

CLASSES = (SecondaryCaptureImageStorage, ParametricMapStorage, Comprehensive3DSRStorage, EncapsulatedPDFStorage)
REPLACED = tuple(Replaced(uid, f"2.25.1{n}", f"2.25.9{n % 3}") for n, uid in enumerate(CLASSES))


def test_a_study_that_replaces_nothing_has_no_note():
    assert plan(studies.small(replaced=()), ("note",)) == []


def test_the_note_names_every_instance_once_as_content_and_as_evidence():
    ds = studies.one(studies.small(revision=2, supersedes=1, replaced=REPLACED), "note")
    assert (ds.SOPClassUID, ds.Modality) == (KeyObjectSelectionDocumentStorage, "KO")
    title = ds.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    said, *content = ds.ContentSequence
    assert said.TextValue.endswith("Replaced by revision 2 of the same study.")
    named = [(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID, i.ValueType) for i in content]
    assert named == [("2.25.10", "IMAGE"), ("2.25.11", "IMAGE"), ("2.25.12", "COMPOSITE"), ("2.25.13", "COMPOSITE")]
    (evidence,) = ds.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == ds.StudyInstanceUID
    found = {
        (series.SeriesInstanceUID, item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert found == {(r.series_instance_uid, r.sop_class, r.sop_instance_uid) for r in REPLACED}
    assert len(evidence.ReferencedSeriesSequence) == 3


def test_dcmtk_reads_the_note(tmp_path: Path):
    path = tmp_path / "note.dcm"
    path.write_bytes(studies.saved(studies.one(studies.small(replaced=REPLACED), "note")))
    said = subprocess.run([program("dsrdump"), str(path)], capture_output=True, text=True, check=True).stdout
    assert "Rejected for Quality Reasons" in said
    assert said.count("<contains") == 5
