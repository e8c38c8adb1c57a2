"""Patient, study, equipment and provenance, read back from the files of every kind of object."""

from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import IGNORE

from dicomnode import MODEL_NAME
from dicomnode.writer import OBJECTS, common, mosaic
from inference.maps import KINDS
from tests import phantom
from tests.dicomnode.writer import studies

EVERY = pytest.mark.parametrize("kind", [kind for kind in OBJECTS if kind != "sr-comprehensive"])  # which is as sr


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """What stands in the pages is no matter here."""
    monkeypatch.setattr(mosaic, "TILE", 48)


def study_with(change, **changes):
    """A small study whose source headers went through `change` and through a file."""
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        change(ds)
    return studies.stroke([dcmread(BytesIO(studies.saved(ds))) for ds in source], **changes)


NAMES = [
    ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("GB18030", "Wang^XiaoDong=王^小东="),
    ("ISO_IR 127", "قباني^لنزار"),
    ("ISO_IR 100", "Äneas^Rüdiger"),
    ("ISO_IR 144", "Люкceмбypг"),
]


@EVERY
@pytest.mark.parametrize(("charset", "name"), NAMES, ids=[str(charset) for charset, _ in NAMES])
def test_names_survive_every_character_set(kind, charset, name):
    def change(ds):
        ds.SpecificCharacterSet = charset
        ds.PatientName = name
        alias = Dataset()
        alias.PatientID, alias.TypeOfPatientID = "OTHER-1", "TEXT"
        ds.OtherPatientIDsSequence = [alias]
        order = Dataset()
        order.RequestedProcedureDescription = name.split("^")[0].split("=")[0]
        ds.RequestAttributesSequence = [order]

    study = study_with(change)
    written = studies.one(study, kind)
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert str(written.PatientName).rstrip("=") == name.rstrip("=")
    order = written.RequestAttributesSequence[0].RequestedProcedureDescription
    assert order == study.source[0].RequestAttributesSequence[0].RequestedProcedureDescription
    assert written.OtherPatientIDsSequence[0].PatientID == "OTHER-1"


@EVERY
def test_text_without_a_character_set_keeps_its_bytes(kind):
    """The PACS guesses the set of source and result alike, so equal bytes are shown as equal names."""
    raw = "山田^太郎".encode("shift_jis")

    def change(ds):
        del ds.SpecificCharacterSet
        ds["PatientName"] = DataElement("PatientName", "PN", raw.decode("latin-1"), validation_mode=IGNORE)

    written = studies.one(study_with(change), kind)
    assert "SpecificCharacterSet" not in written
    assert written.PatientName.original_string == raw


@EVERY
def test_patient_study_and_order_are_those_of_the_source(kind):
    def change(ds):
        ds.IssuerOfPatientID, ds.PatientWeight, ds.PatientSize = "HOSPITAL", 71.5, 1.7
        issuer = Dataset()
        issuer.LocalNamespaceEntityID = "RIS"
        ds.IssuerOfAccessionNumberSequence = [issuer]
        order = Dataset()
        order.RequestedProcedureID, order.ScheduledProcedureStepID = "RP1", "SPS1"
        order.add_new(0x00091001, "LO", "private")
        ds.RequestAttributesSequence = [order]
        ds.add_new(0x00090010, "LO", "SCANNER PRIVATE")
        ds.add_new(0x00091001, "LO", "private")

    study = study_with(change)
    written, source = studies.one(study, kind), study.source[0]
    same = (*common.TYPE_2, "StudyInstanceUID", "StudyDescription", "PatientAge", "IssuerOfPatientID", "PatientWeight")
    same += (
        "PatientSize",
        "ProtocolName",
        "IssuerOfAccessionNumberSequence",
        "BodyPartExamined",
    )
    same += ("FrameOfReferenceUID",) if kind in studies.IN_SPACE else ()
    same = tuple(set(same) - {"ProtocolName", "BodyPartExamined"}) if kind in studies.DOCUMENTS else same
    assert {k: written[k].value for k in same} == {k: source[k].value for k in same}
    assert written.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert "Laterality" not in written
    assert not any(element.tag.is_private for element in written.iterall())


@EVERY
@pytest.mark.parametrize(
    "keyword", [*common.TYPE_2, "PatientAge", "StudyDescription", "SliceThickness", "BodyPartExamined"]
)
def test_an_absent_attribute_stops_nothing(kind, keyword):
    def change(ds):
        del ds[keyword]

    written = studies.one(study_with(change), kind)
    if keyword in common.TYPE_2:
        assert written[keyword].is_empty
    if keyword == "BodyPartExamined" and kind not in studies.DOCUMENTS:
        assert written.BodyPartExamined == "HEAD"


@EVERY
def test_values_that_break_the_standard_stop_nothing(kind):
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    for ds in source:
        ds.PatientWeight, ds.PatientAge = "71.234", "066Y"
    files = [studies.saved(ds).replace(b"71.234", b"71 kg ").replace(b"066Y", b"66  ") for ds in source]
    written = studies.one(studies.stroke([dcmread(BytesIO(file)) for file in files]), kind)
    assert written.PatientAge == "66"
    assert "PatientWeight" not in written


@EVERY
def test_a_sex_that_the_library_does_not_know_stops_nothing(kind):
    def change(ds):
        ds.PatientSex = "U"

    assert studies.one(study_with(change), kind).PatientSex == "U"


@EVERY
def test_a_de_identified_source_without_method_gets_a_valid_result(kind):
    def change(ds):
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", ""

    assert studies.one(study_with(change), kind).DeidentificationMethod == "not stated by the source"


@EVERY
def test_the_equipment_is_ours_and_both_contributors_are_named(kind):
    def change(ds):
        ds.StationName, ds.ManufacturerModelName, ds.DeviceSerialNumber = "CT1", "Scanner 9", "S-9"

    written = studies.one(study_with(change), kind)
    assert (written.ManufacturerModelName, written.DeviceSerialNumber) == (MODEL_NAME, "NODE-1")
    assert list(written.SoftwareVersions) == [
        "0.1.0",
        "ncct-virtual 1",
        f"weights sha256 {studies.MANIFEST.sha256[:16]}",
    ]
    scanner, node = written.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.StationName, scanner.ManufacturerModelName) == (
        "Test scanner",
        "CT1",
        "Scanner 9",
    )
    assert node.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
    assert node.ManufacturerModelName == MODEL_NAME
    assert node.ContributionDateTime == "20260302083000.000000+0000"
    assert "no perfusion acquisition" in node.ContributionDescription


@EVERY
def test_a_scanner_without_a_name_is_unknown(kind):
    def change(ds):
        ds.Manufacturer = ""

    assert studies.one(study_with(change), kind).ContributingEquipmentSequence[0].Manufacturer == "unknown"


@pytest.mark.parametrize("kind", [kind for kind in OBJECTS if kind not in studies.DOCUMENTS])
def test_a_lossy_source_makes_a_lossy_result(kind):
    def change(ds):
        if ds.InstanceNumber == 7:
            ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", [8.0, 2.0]
            ds.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]

    written = studies.one(study_with(change), kind)
    assert written.LossyImageCompression == "01"
    assert list(written.LossyImageCompressionRatio) == [8.0, 2.0]
    assert list(written.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_1"]
    assert studies.one(study_with(lambda ds: None), kind).LossyImageCompression == "00"


@pytest.mark.parametrize(
    ("domain", "changes", "capture", "parametric"),
    [
        ("virtual", {}, "SYNTHETIC Tmax sim-trained (NCCT-AI)", "SYNTHETIC Tmax 0-12 s sim-trained (NCCT-AI)"),
        ("untrained", {}, "SYNTHETIC Tmax UNTRAINED (NCCT-AI)", "SYNTHETIC Tmax 0-12 s UNTRAINED (NCCT-AI)"),
        (
            "clinical",
            {"revision": 3, "supersedes": 2},
            "SYNTHETIC Tmax rev 3 (NCCT-AI)",
            "SYNTHETIC Tmax 0-12 s rev 3 (NCCT-AI)",
        ),
    ],
)
def test_series_descriptions(domain, changes, capture, parametric):
    study = studies.small(manifest=replace(studies.MANIFEST, training_domain=domain), **changes)
    assert studies.one(study).SeriesDescription == capture
    assert studies.one(study, "pm").SeriesDescription == parametric


def test_no_series_description_is_too_long():
    study = studies.small(kinds=KINDS, revision=12, supersedes=11)
    for name in KINDS:
        assert len(studies.one(study, "pm", name=name).SeriesDescription) <= 64
    with pytest.raises(ValueError, match="longer than 64"):
        common.series_description(study, "Tmax", "a range of values that nobody could print")


@pytest.mark.parametrize(("kind", "first"), [("sc", 9001), ("pm", 9101), ("ct", 9201)])
def test_series_numbers_are_fixed(kind, first):
    study = studies.small(kinds=("CBV", "TTP"))
    assert [studies.one(study, kind, name=name).SeriesNumber for name in ("CBV", "TTP")] == [first + 1, first + 3]


def test_the_derivation_names_weights_training_and_revision():
    ds = studies.one(studies.small(revision=2, supersedes=1, simulated_input=True))
    for words in (
        "ncct-virtual 1",
        studies.MANIFEST.sha256[:16],
        "simulated data",
        "simulated patient",
        "replaces revision 1",
    ):
        assert words in ds.DerivationDescription
    code = ds.DerivationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("SYNPERF", "99PERFNODE")
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PERFNODE"
