"""What the header says, leaves out or says wrongly."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pydicom import DataElement, Dataset

from dicomnode import MODEL_NAME
from dicomnode.writer.common import TYPE_2
from tests.cases.case import Case, Wait, changed, head, process, refuse, warn, with_header
from tests.dicomnode.arrivals import part10
from tests.dicomnode.writer.test_common import NAMES

MORE_NAMES = (
    ("ISO_IR 101", "Wałęsa^Żółć"),
    ("ISO_IR 126", "Διονυσιος"),
    ("ISO_IR 138", "שרון^דבורה"),
    ("ISO_IR 148", "Çavuşoğlu^Gül"),
    ("ISO_IR 166", "นามสกุล^ชื่อ"),
    ("GBK", "Wang^XiaoDong=王^小东="),
    (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Äneas^Rüdiger"),
)


def _named(charset: Any, name: str) -> Case:
    """The name is found again in the capture, whatever set it was written in."""

    def check(capture: Dataset) -> None:
        assert str(capture.PatientName).rstrip("=") == name.rstrip("=")

    label = charset if isinstance(charset, str) else "\\".join(charset)
    return process(
        f"character set {label}",
        with_header(SpecificCharacterSet=charset, PatientName=name.split("\\")[0]),
        check=check,
    )


def _replacing(*pairs: tuple[bytes, bytes], **elements: Any) -> Callable[[], list[bytes]]:
    """The files with bytes in place of others of the same length, as no library would write them."""
    assert all(len(old) == len(new) for old, new in pairs)

    def make() -> list[bytes]:
        files = [part10(ds) for ds in changed(head(), **elements)]
        for old, new in pairs:
            assert old in files[0]
            files = [file.replace(old, new) for file in files]
        return files

    return make


def _raw_name(raw: bytes, charset: bytes) -> Callable[[], list[bytes]]:
    """A name in bytes; charset: at most 29 bytes of Specific Character Set."""
    name, declared = b"N" * (len(raw) + len(raw) % 2), b"ISO 2022 IR 6\\ISO 2022 IR 100"
    padded = charset.ljust(len(declared))
    return _replacing((name, raw.ljust(len(name))), (declared, padded), PatientName=name.decode(),
                      SpecificCharacterSet=["ISO 2022 IR 6", "ISO 2022 IR 100"])  # fmt: skip


def _is_named(name: str) -> Callable[[Dataset], None]:
    def check(capture: Dataset) -> None:
        assert str(capture.PatientName).rstrip(" =") == name

    return check


def _keeps_bytes(raw: bytes) -> Callable[[Dataset], None]:
    """Nobody knows the set, so the bytes stay and no set is claimed."""

    def check(capture: Dataset) -> None:
        assert "SpecificCharacterSet" not in capture
        assert str(capture.PatientName).encode("latin-1").rstrip() == raw

    return check


def _private(ds: Dataset) -> None:
    block = ds.private_block(0x0009, "MAKER 1.0", create=True)
    block.add_new(0x10, "LO", "private words")
    block.add_new(0x11, "UN", b"\x00\x01\x02\x03")
    item = Dataset()
    item.private_block(0x0009, "MAKER 1.0", create=True).add_new(0x12, "DS", "1.5")
    block.add_new(0x13, "SQ", [item])
    ds.add(DataElement(0x00110010, "LO", "ANOTHER"))
    ds.add(DataElement(0x00131001, "UN", b"without a creator"))


def _overlay(ds: Dataset) -> None:
    """An overlay plane of one bit (PS3.3 C.9.2)."""
    for element, vr, value in ((0x10, "US", 64), (0x11, "US", 64), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
                               (0x100, "US", 1), (0x102, "US", 0), (0x3000, "OW", bytes(512))):  # fmt: skip
        ds.add_new(0x60000000 + element, vr, value)


def _edited(edit: Callable[[Dataset], None]) -> Callable[[], list[Dataset]]:
    def make() -> list[Dataset]:
        slices = head()
        for ds in slices:
            edit(ds)
        return slices

    return make


def _nothing_private(capture: Dataset) -> None:
    assert not [element.tag for element in capture.iterall() if element.tag.is_private]


def _all_type_2(capture: Dataset) -> None:
    assert all(keyword in capture for keyword in TYPE_2)


def _is_lossy(capture: Dataset) -> None:
    assert capture.LossyImageCompression == "01"


def _ours() -> list[Dataset]:
    item = Dataset()
    item.ManufacturerModelName = MODEL_NAME
    return changed(head(), ContributingEquipmentSequence=[item], SyntheticData="YES")


def _phases(count: int, **elements: Any) -> Callable[[], list[Dataset]]:
    """A few positions, each shown again and again."""

    def make() -> list[Dataset]:
        few = changed(head(z=(0.0, 7.0), matrix=16), **elements)
        series = []
        for phase in range(count):
            for ds in deepcopy(few):
                uid = f"{few[0].SOPInstanceUID[:50]}.{len(series)}"
                ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
                ds.AcquisitionNumber = phase + 1
                series.append(ds)
        return series

    return make


SHIFT_JIS, LATIN = "山田^太郎".encode("shift_jis"), b"M\xfcller^Anna"
CHINESE = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="  # the example of PS3.5 K.2
NONSENSE = (
    (b"71.50", b"70 kg"),
    (b"066Y", b"66 J"),
    (b"20260302", b"02.03.26"),
    (b"083000", b"8:30 h"),
    (b"SN12", b"S\0\0\0"),
)
EMPTIED = [k for k in TYPE_2 if k != "PatientID"]
ANONYMOUS = {"accept_anonymous": True}
SIMULATED = {"accept_simulated": True}
UNKNOWN_KERNEL, UNKNOWN_AGE = "The kernel in-house is not known.", "The age of the patient is not stated."

CASES = (
    *(_named(charset, name) for charset, name in (*NAMES, *MORE_NAMES)),
    process("character set \\ISO 2022 IR 58", _raw_name(CHINESE, b"\\ISO 2022 IR 58"),
            check=_is_named("Zhang^XiaoDong=张^小东")),
    process("a name with braces and quotes", with_header(PatientName="O'Neil^{Zoe}~`")),
    process("no character set, bytes beyond ASCII", _raw_name(SHIFT_JIS, b""), check=_keeps_bytes(SHIFT_JIS)),
    process("a character set that does not exist", _raw_name(LATIN, b"ISO_IR 999"), check=_keeps_bytes(LATIN)),
    process("UTF-8 declared, Latin-1 written", _raw_name(LATIN, b"ISO_IR 192"), check=_keeps_bytes(LATIN)),
    process("private blocks, with and without creators", _edited(_private), check=_nothing_private),
    process("an overlay plane", _edited(_overlay)),
    warn("numbers, dates and ages that are none", _replacing(*NONSENSE, PatientWeight="71.50",
         DeviceSerialNumber="SN12"),
         UNKNOWN_AGE),
    process("text longer than its VR allows", with_header(StudyDescription="long " * 40)),
    process("no frame of reference", with_header(FrameOfReferenceUID=None)),
    process("type 2 elements empty", with_header(**dict.fromkeys(EMPTIED, "")), check=_all_type_2),
    process("type 2 elements absent", with_header(**dict.fromkeys(EMPTIED)), check=_all_type_2),
    refuse("Patient ID empty", with_header(PatientID=""), "patient-conflict", "accept_anonymous"),
    refuse("Patient ID absent", with_header(PatientID=None), "patient-conflict", "accept_anonymous"),
    process("Patient ID empty, where the node is told to accept it", with_header(PatientID=""), node=ANONYMOUS),
    warn("no age and no date of birth", with_header(PatientAge=None, PatientBirthDate=None), UNKNOWN_AGE),
    process("an age by the date of birth", with_header(PatientAge=None)),
    refuse("seventeen years old", with_header(PatientAge="017Y"), "paediatric", "17 years"),
    refuse("nine months old", with_header(PatientAge="009M"), "paediatric"),
    refuse("a child by the date of birth", with_header(PatientAge="", PatientBirthDate="20100101"), "paediatric"),
    process("Body Part Examined BRAIN", with_header(BodyPartExamined="BRAIN")),
    process("Body Part Examined absent", with_header(BodyPartExamined=None)),
    refuse("Body Part Examined CHEST", with_header(BodyPartExamined="CHEST"), "not-head", "CHEST"),
    refuse("a bone kernel", with_header(ConvolutionKernel="H60s"), "bone-kernel", "H60s"),
    refuse("a bone kernel of two values", with_header(ConvolutionKernel=["Hr69h", "3"]), "bone-kernel", "Hr69h"),
    *(process(f"kernel {k}", with_header(ConvolutionKernel=k)) for k in ("J30s", "Hr40f", "STANDARD", "FC26", "UB")),
    warn("an unknown kernel", with_header(ConvolutionKernel="in-house"), UNKNOWN_KERNEL),
    warn("no kernel", with_header(ConvolutionKernel=None), "kernel of the reconstruction is not stated"),
    warn("pixels that were compressed with loss once", with_header(LossyImageCompression="01"), "with loss",
         check=_is_lossy),
    refuse("a contrast agent", with_header(ContrastBolusAgent="Iomeprol"), "contrast", "Iomeprol"),
    refuse("contrast in one slice", lambda: [*head()[:-1], *changed(head()[-1:], ContrastBolusAgent="Iomeprol")],
           "contrast"),
    *(refuse(f'described as "{d}"', with_header(SeriesDescription=d), "contrast")
      for d in ("Head CTA 0.75", "Head post contrast 5 mm", "Kopf mit KM", "Angio Circle of Willis")),
    *(process(f'described as "{d}"', with_header(SeriesDescription=d)) for d in ("Head w/o contrast", "Head NCCT")),
    refuse("CT perfusion with contrast", _phases(20, ContrastBolusAgent="Iomeprol"), "no-route", "CT perfusion"),
    refuse("CT perfusion by its description", with_header(SeriesDescription="Perfusion 4D"), "no-route",
           "CT perfusion"),
    refuse("CT perfusion by Number of Temporal Positions", with_header(NumberOfTemporalPositions=20), "no-route"),
    refuse("bolus tracking", _phases(12), "perfusion-series", "12 images at one position", waits=Wait.TIMER),
    refuse("MR by its modality", with_header(Modality="MR"), "wrong-modality", "MR"),
    refuse("no modality", with_header(Modality=None), "wrong-modality"),
    refuse("a localizer", lambda: changed(head()[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    refuse("a scout", lambda: changed(head()[:2], ImageType=["ORIGINAL", "PRIMARY", "SCOUT"]), "localizer"),
    refuse("a reformat", with_header(ImageType=["DERIVED", "SECONDARY", "MPR"]), "derived", "MPR"),
    refuse("a dose page as CT", lambda: changed(head()[:1], ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]),
           "derived"),
    refuse("an object of ours that comes back", _ours, "own-object"),
    refuse("a virtual patient", with_header(SyntheticData="YES"), "simulated-input", "accept_simulated"),
    process("a virtual patient, where the node is told to accept it", with_header(SyntheticData="YES"), node=SIMULATED),
)  # fmt: skip
