"""Rejection note: a Key Object that takes back what an earlier revision sent (PS3.3 A.35.4, PS3.16 TID 2010, IHE IOCM).

A PACS that knows such notes hides what they name; one that does not shows a key object to readers, so it is sent only
where a destination allows it. The new revision says "replaces rev N" in its pixels and descriptions anyway.
"""

from collections.abc import Sequence
from itertools import groupby

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
)

from dicomnode.writer import common, document
from dicomnode.writer.study import Replaced, Study

NAME = "replaced"
SERIES_NUMBER = 9701
# Not "for Patient Safety Reasons" (113037): what is replaced was no danger, a later revision knows more.
REJECTED = CodedConcept("113001", "DCM", "Rejected for Quality Reasons")
DESCRIPTION = CodedConcept("113012", "DCM", "Key Object Description")
NO_IMAGES = frozenset({EncapsulatedPDFStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage})


def plan(study: Study) -> list[tuple[str, int]]:
    """One note, where something has been replaced."""
    return [(NAME, 0)] if study.replaced else []


def write(study: Study) -> Dataset:
    """The note over all that the study replaces."""
    ds = document.base(study)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = study.uid("note", NAME, "series"), SERIES_NUMBER, 1
    ds.SeriesDescription = common.series_description(study, NAME)
    ds.Modality, ds.ReferencedPerformedProcedureStepSequence = "KO", []
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(study)]
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [REJECTED]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ContentTemplateSequence = [template]
    ds.ContentSequence = [_description(study), *map(_item, study.replaced)]
    uid = study.uid("note", NAME, 0)
    return common.finish(ds, KeyObjectSelectionDocumentStorage, uid, study.software_version)


def _evidence(study: Study) -> Dataset:
    """The replaced instances by series."""
    item = Dataset()
    item.StudyInstanceUID = study.source[0].StudyInstanceUID
    ordered = sorted(study.replaced, key=lambda each: (each.series_instance_uid, each.sop_instance_uid))
    item.ReferencedSeriesSequence = [
        _series(uid, list(each)) for uid, each in groupby(ordered, key=lambda each: each.series_instance_uid)
    ]
    return item


def _series(uid: str, replaced: Sequence[Replaced]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID, item.ReferencedSOPSequence = uid, [_reference(each) for each in replaced]
    return item


def _reference(replaced: Replaced) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = replaced.sop_class, replaced.sop_instance_uid
    return item


def _item(replaced: Replaced) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "COMPOSITE" if replaced.sop_class in NO_IMAGES else "IMAGE"
    item.ReferencedSOPSequence = [_reference(replaced)]
    return item


def _description(study: Study) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", "TEXT", [DESCRIPTION]
    item.TextValue = f"{common.DISCLAIMER}. Replaced by revision {study.revision} of the same study."
    return item
