"""How the series arrives: in pieces, mixed up, late, twice, changed on the way, broken."""

from collections.abc import Callable
from io import BytesIO

from pydicom import Dataset

from tests.cases.case import Arrival, Instance, Wait, changed, head, other_series, other_study, process, refuse, warn
from tests.dicomnode.arrivals import part10


def _pieces(*parts: slice, apart: float = 1.5) -> Callable[[], list[Arrival]]:
    return lambda: [Arrival(apart * i, head()[part]) for i, part in enumerate(parts)]


def _interleaved() -> list[Dataset]:
    return [ds for pair in zip(head(), other_study(head(), 31), strict=True) for ds in pair]


def _late(first: slice, then: slice, after: float = 20.0) -> Callable[[], list[Arrival]]:
    return lambda: [Arrival(0.0, head()[first]), Arrival(after, head()[then])]


def _again() -> list[Arrival]:
    return [Arrival(0.0, head()), Arrival(20.0, head())]


def _missing_comes() -> list[Arrival]:
    """The missing slice comes after maps were made without it."""
    return [Arrival(0.0, [*head()[:9], *head()[10:]]), Arrival(90.0, head()[9:10])]


def _corrected() -> list[Arrival]:
    """The whole series again, with another kernel name in the same instances."""
    return [Arrival(0.0, head()), Arrival(20.0, changed(head(), ConvolutionKernel="H37s"))]


def _merged(*parts: slice) -> Callable[[], list[Arrival]]:
    """The patient is merged into another; parts: what is sent again under the new one."""
    again = lambda part: changed(head()[part], PatientID="MERGED-1", PatientName="Merged^Patient")  # noqa: E731
    return lambda: [Arrival(0.0, head()), *(Arrival(20.0 + 10 * i, again(part)) for i, part in enumerate(parts))]


def _two_patients() -> list[Dataset]:
    return [*head()[:11], *changed(head()[11:], PatientID="OTHER-1")]


def _two_patients_in_two_series() -> list[Dataset]:
    return [*head(), *other_series(head()[:1], 32, PatientID="OTHER-1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]


def _two_studies() -> list[Dataset]:
    return [*head()[:11], *changed(head()[11:], StudyInstanceUID="1.2.3")]


def _with(spoil: Callable[[bytes], bytes], where: int = 9) -> Callable[[], list[Instance]]:
    """One instance spoilt on its way."""
    return lambda: [spoil(part10(ds)) if i == where else ds for i, ds in enumerate(head())]


def _spoilt_and_sent_again() -> list[Arrival]:
    return [Arrival(0.0, _with(lambda file: file[:-500])()), Arrival(20.0, head()[9:10])]


def _without_uid(file: bytes) -> bytes:
    from pydicom import dcmread

    ds, stream = dcmread(BytesIO(file)), BytesIO()
    ds.SOPInstanceUID = "../../etc/passwd"
    ds.save_as(stream)
    return stream.getvalue()


INCOMPLETE = "INCOMPLETE SERIES"
CASES = (
    process("split over three associations", _pieces(slice(0, 7), slice(7, 15), slice(15, 22)), waits=Wait.PIECES),
    process("split into even and odd slices", _pieces(slice(0, 22, 2), slice(1, 22, 2), apart=10.0), waits=Wait.PIECES),
    process("two studies interleaved", _interleaved, states=("SELECTED", "SELECTED")),
    process("the series sent twice", _again),
    process("a pause after the slices that already cover 80 mm", _late(slice(0, 15), slice(15, 22)), revisions=2),
    process("a late slice at the end", _late(slice(0, 21), slice(21, 22)), revisions=2),
    process("the missing slice comes after a minute", _missing_comes, waits=Wait.TIMER, revisions=2),
    process("instances sent again with other bytes", _corrected, revisions=2),
    refuse("a patient merged half-way", _merged(slice(0, 11)), "patient-conflict", "different patients"),
    process("a patient merged in the end", _merged(slice(0, 11), slice(11, 22)), revisions=2),
    refuse("two patients in one series", _two_patients, "patient-conflict"),
    refuse("two patients in two series", _two_patients_in_two_series, "patient-conflict",
           states=("patient-conflict", "localizer")),
    refuse("two studies in one series", _two_studies, "patient-conflict"),
    warn("one file cut short", _with(lambda file: file[:-500]), INCOMPLETE, door="truncated", waits=Wait.TIMER),
    warn("one file cut within its header", _with(lambda file: file[:500]), INCOMPLETE, door="not-dicom",
         waits=Wait.TIMER),
    warn("one file that is not DICOM", _with(lambda file: b"%PDF-1.4 " + bytes(999)), INCOMPLETE, door="not-dicom",
         waits=Wait.TIMER),
    warn("a SOP Instance UID that is a path", _with(_without_uid), INCOMPLETE, door="not-dicom", waits=Wait.TIMER),
    process("a file cut short, and sent again whole", _spoilt_and_sent_again, door="truncated", waits=Wait.PIECES),
)  # fmt: skip
