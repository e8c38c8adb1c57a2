"""What all objects of a study have in common: patient, study, equipment, provenance and honesty (dicom-output 1.1)."""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import datetime

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat, format_number_as_ds

from dicomnode import MANUFACTURER, MODEL_NAME
from dicomnode.writer import codes
from dicomnode.writer.study import Study
from inference.maps import KINDS, MapKind

IMPLEMENTATION_CLASS_UID = UID("2.25.158008260905421630141731765326967375534")  # of the software that writes the files

UNICODE = "ISO_IR 192"
ESCAPE = re.compile(r"\x1b[ -/]+[0-~]")  # ISO 2022; pydicom leaves those of GB 2312 in the text
DISCLAIMER = "SYNTHETIC, not acquired perfusion"
NOT_AN_EXCLUSION = "A normal synthetic map does not exclude stroke."

TYPE_2 = (  # must be present in the Patient and General Study modules, if only empty (PS3.3 C.7.1.1, C.7.2.1)
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
COPIED = (  # the rest of Patient, General Study, Patient Study and Clinical Trial, and the order behind the series
    *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthTime", "OtherPatientIDsSequence"),
    *("OtherPatientNames", "EthnicGroup", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "QualityControlSubject"),
    *("StudyInstanceUID", "StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence"),
    *("ReferringPhysicianIdentificationSequence", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy"),
    *("ConsultingPhysicianName", "RequestingService"),
    *("PatientAge", "PatientSize", "PatientWeight", "AdmittingDiagnosesDescription", "AdmissionID"),
    *("IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "Occupation", "AdditionalPatientHistory", "PatientState"),
    *("MedicalAlerts", "Allergies", "SmokingStatus", "PregnancyStatus"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription"),
    *("RequestAttributesSequence", "ProtocolName", "BodyPartExamined", "TimezoneOffsetFromUTC"),
)
_SCANNER = (  # what a Contributing Equipment item says of the scanner (PS3.3 C.12.1.1.5)
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName"),
    *("InstitutionName", "InstitutionalDepartmentName"),
)


def base(study: Study) -> Dataset:
    """The attributes that every object of the study carries, whatever its kind and map."""
    made = f"Synthetic maps inferred by a neural network; no perfusion acquisition. {_training(study)}"
    return of_node(study.source, study.written_at, study.device_serial_number, software(study), made)


def of_node(
    source: Sequence[Dataset], stamp: datetime, device_serial_number: str, software_versions: list[str], made: str
) -> Dataset:
    """The attributes of anything that this node adds to a study.

    source: headers of the series it was made from; stamp: on the clock of the source; made: what was done, in words.
    """
    ds = patient_and_study(source[0])
    ds.InstanceCreationDate = ds.SeriesDate = ds.ContentDate = stamp.strftime("%Y%m%d")
    ds.InstanceCreationTime = ds.SeriesTime = ds.ContentTime = stamp.strftime("%H%M%S")
    ds.SyntheticData = "YES"
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    ds.DeviceSerialNumber, ds.SoftwareVersions = device_serial_number, software_versions
    ds.CodingSchemeIdentificationSequence = [codes.own_scheme()]
    ds.ContributingEquipmentSequence = [_acquisition(source[0]), _synthesis(ds, stamp, made)]
    _lossy(ds, source)
    return ds


def patient_and_study(source: Dataset) -> Dataset:
    """Patient, study and order as the source states them, in Unicode, with the holes of type 2 filled.

    A source with text beyond ASCII but no character set stays as it is, byte for byte: the PACS guesses the set of
    both objects alike, and the names still agree.
    """
    ds = in_unicode(source, (*TYPE_2, *COPIED))
    unlabelled = not source.get("SpecificCharacterSet") and not str(ds).isascii()
    if not unlabelled:
        ds.SpecificCharacterSet = UNICODE
    for keyword in TYPE_2:
        if keyword not in ds:
            setattr(ds, keyword, None)
    if "BodyPartExamined" not in ds:
        ds.BodyPartExamined = "HEAD"
    if ds.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in ds:
        ds.DeidentificationMethod = ds.get("DeidentificationMethod") or "not stated by the source"  # type 1C
    return ds


def in_unicode(source: Dataset, keywords: Sequence[str] | None = None) -> Dataset:
    """A copy of the named (or all) elements with values decoded, so that it can be written in any character set."""
    ds = Dataset()
    tags = source.keys() if keywords is None else [k for k in keywords if k in source]
    for element in (source[tag] for tag in tags):
        if _copied(element):
            ds.add(DataElement(element.tag, element.VR, _decoded(element), validation_mode=IGNORE))
    return ds


def _copied(element: DataElement) -> bool:
    """Whether an element of the source is passed on: neither empty, nor private, nor a number that is none.

    A text that breaks the rules of its VR is passed on, because it is the source's; a weight of "70 kg" cannot be, and
    pydicom reads it as text.
    """
    if element.is_empty or element.tag.is_private or element.keyword == "SpecificCharacterSet":
        return False
    return not (element.VR in ("DS", "IS") and isinstance(element.value, str))


def _decoded(element: DataElement) -> object:
    """The value of an element, rebuilt as plain text and lists: a PersonName would keep the bytes it was read from."""
    if element.VR == "SQ":
        return [in_unicode(item) for item in element.value]
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    if element.VR == "PN":
        values = [str(value) for value in values]
    values = [ESCAPE.sub("", value) if isinstance(value, str) else value for value in values]
    return values if len(values) > 1 else values[0]


def software(study: Study) -> list[str]:
    """What made the maps: the node, the weights and the digest by which the weights are known."""
    manifest = study.manifest
    return [study.software_version, f"{manifest.name} {manifest.version}", f"weights sha256 {manifest.sha256[:16]}"]


def decimals(values: Iterable[float]) -> list[DSfloat | str]:
    """Values as Decimal Strings: as the source wrote them, or shortened to the 16 characters that the VR allows."""
    return [v if isinstance(v, DSfloat) and len(str(v)) <= 16 else format_number_as_ds(float(v)) for v in values]


def _acquisition(source: Dataset) -> Dataset:
    item = in_unicode(source, _SCANNER)
    if "Manufacturer" not in item:
        item.Manufacturer = "unknown"  # type 1 in this sequence
    item.PurposeOfReferenceCodeSequence = [deepcopy(codes.ACQUISITION_EQUIPMENT)]
    return item


def _synthesis(ds: Dataset, stamp: datetime, made: str) -> Dataset:
    item = Dataset()
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        setattr(item, keyword, ds[keyword].value)
    item.ContributionDateTime = stamp.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = made
    item.PurposeOfReferenceCodeSequence = [deepcopy(codes.SYNTHESIZING_EQUIPMENT)]
    return item


def _training(study: Study) -> str:
    return {
        "untrained": "The weights are random and the maps have no meaning.",
        "virtual": "The weights were trained on simulated data.",
        "clinical": "The weights were trained on clinical data.",
    }[study.manifest.training_domain]


def derivation(study: Study, what: str) -> str:
    """How an object came to be, in words (ST, 1024 characters); what: the title of its map, or what stands for it."""
    manifest = study.manifest
    source = "the non-contrast CT of a simulated patient" if study.simulated_input else "non-contrast CT"
    replaces = f" Revision {study.revision}, replaces revision {study.supersedes}." if study.supersedes else ""
    return (
        f"{DISCLAIMER}: {what} inferred from {source} by {manifest.name} {manifest.version} (weights sha256 "
        f"{manifest.sha256[:16]}). {_training(study)}{replaces} {NOT_AN_EXCLUSION}"
    )


def _lossy(ds: Dataset, source: Sequence[Dataset]) -> None:
    """A lossy source makes a lossy result, for good (PS3.3 C.7.6.1.1.5)."""
    lossy = next((s for s in source if s.get("LossyImageCompression") == "01"), None)
    ds.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        ds.update(in_unicode(lossy, ("LossyImageCompressionRatio", "LossyImageCompressionMethod")))


def comments(study: Study) -> str:
    """What a reader must know, in words that programs can read too (LT, 10240 characters)."""
    return " ".join((f"{DISCLAIMER}.", NOT_AN_EXCLUSION, *study.warnings))[:10240]


def series_description(study: Study, name: str, extent: str = "") -> str:
    """`SYNTHETIC <name> <extent> <training> <revision> (NCCT-AI)`; viewers show the first 15 characters."""
    training = {"untrained": "UNTRAINED", "virtual": "sim-trained", "clinical": ""}[study.manifest.training_domain]
    revision = f"rev {study.revision}" if study.supersedes else ""
    text = " ".join(word for word in ("SYNTHETIC", name, extent, training, revision, "(NCCT-AI)") if word)
    if len(text) > 64:
        raise ValueError(f"series description {text!r} is longer than 64 characters; shorten that of {name}")
    return text


def extent(study: Study, kind: MapKind) -> str:
    """The range of display in words, "0-12 s"; nothing where units are relative."""
    return f"0-{kind.ceiling:g} {kind.unit}" if study.manifest.units == "physical" else ""


def series_number(first: int, kind: MapKind) -> int:
    """The series number of a map: its place in the table of kinds, so it is the same in every study."""
    return first + list(KINDS).index(kind.name)


def finish(ds: Dataset, sop_class_uid: UID, sop_instance_uid: UID, software_version: str) -> Dataset:
    """Give a data set its identity and the File Meta Information it needs to be saved."""
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, sop_instance_uid
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class_uid, sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = f"PERFNODE_{software_version}"[:16]
    ds.file_meta = meta
    return ds
