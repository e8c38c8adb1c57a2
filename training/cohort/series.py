"""What lies in a folder of DICOM files: headers grouped into series, and what each series is to a cohort.

Only headers are read here. A series is the head CT without contrast, the CT perfusion, a perfusion map, or of no use,
and then it says why.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, ParametricMapStorage, SecondaryCaptureImageStorage
from rich.progress import track

from inference.maps import KINDS

Role = Literal["ncct", "ctp", "map", "unused"]
FEWEST_SLICES = 20  # of a head CT that covers a brain (simulation.md 7.3)
PHASES = 3  # so many images at one position are a time series
LEVELS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")  # all three: copied series keep their UID
SYNTHESIZING = "109100"  # DCM, Synthesizing Equipment: what a node like ours writes into its results
MULTI_FRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"  # Multi-frame True Color Secondary Capture Image Storage

# Each kind by the words that consoles write into descriptions and image types.
WORDS = {
    "CBF": r"R?CBF",
    "CBV": r"R?CBV",
    "MTT": r"MTT",
    "TTP": r"TTP",
    "Tmax": r"T[ _-]?MAX",
}
# Reconstructions of bone: by name, by the sharp ones of Siemens (H60s, Hr64, J70h, Bv68), and by those of Philips.
BONE = re.compile(r"BONE|EDGE|SHARP|\b[HBJ][RVF]?[6-9]\d|\b(?:YC|YD|YE)\b")
ELSEWHERE = re.compile(r"ABDOMEN|CHEST|NECK|SPINE|PELVIS|HEART|LUNG|KNEE|FOOT|HAND|HIP")


@dataclass(frozen=True, slots=True)
class Series:
    """The instances of one series, as their headers say.

    files: (path, header without pixels), in no order. kind: of a map, a key of KINDS; why: of no use.
    """

    role: Role
    files: tuple[tuple[Path, Dataset], ...]
    kind: str = ""
    why: str = ""

    @property
    def header(self) -> Dataset:
        """Of any instance; what the series shares."""
        return self.files[0][1]

    @property
    def when(self) -> datetime | None:
        """When its first instance was acquired, or made; a map may have been computed much later, so then its study."""
        levels = ("Acquisition", "Study") if self.role == "map" else ("Acquisition", "Content", "Series", "Study")
        times = [time for _, ds in self.files if (time := moment(ds, levels))]
        return min(times) if times else None

    @property
    def frame_of_reference(self) -> str:
        """Its Frame of Reference UID; empty where it has none."""
        return str(self.header.get("FrameOfReferenceUID") or "")

    def __str__(self) -> str:
        return f"series {self.header.get('SeriesNumber') or 'without a number'} ({self.kind or self.role})"


@dataclass(frozen=True, slots=True)
class Rules:
    """Which maps are wanted, and whether objects that say Synthetic Data YES count (virtual patients)."""

    simulated: bool = False


def scan(folder: Path, rules: Rules) -> tuple[list[Series], int]:
    """Every series below a folder, and how many files there are no DICOM."""
    found: dict[tuple[str, ...], list[tuple[Path, Dataset]]] = defaultdict(list)
    others = 0
    for path in track(sorted(_files(folder)), "headers"):
        ds = _header(path)
        if ds is None:
            others += 1
        else:
            found[tuple(str(ds.get(name) or "") for name in LEVELS)].append((path, ds))
    return [classify(tuple(files), rules) for files in found.values()], others


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


def _header(path: Path) -> Dataset | None:
    """A header that names patient, study and series; None for anything else, a DICOMDIR among it."""
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, EOFError, OSError):
        return None
    return ds if all(ds.get(name) for name in ("SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID")) else None


def classify(files: tuple[tuple[Path, Dataset], ...], rules: Rules) -> Series:
    """What a series is to the cohort."""
    ds = files[0][1]
    for why, applies in UNUSED:
        if applies(ds, rules):
            return Series("unused", files, why=why)
    kinds = kinds_named(ds)
    if len(kinds) > 1:
        return Series("unused", files, why=f"names {' and '.join(kinds)} at once; maps one by one are needed")
    if kinds:
        return Series("map", files, kind=kinds[0])
    return _anatomy(files)


def _anatomy(files: tuple[tuple[Path, Dataset], ...]) -> Series:
    ds = files[0][1]
    if ds.SOPClassUID != CTImageStorage:
        return Series("unused", files, why="is neither CT nor a map whose kind is named")
    if "DERIVED" in _words(ds, "ImageType")[:1] or {"LOCALIZER", "SCOUT"} & set(_words(ds, "ImageType")):
        return Series("unused", files, why="is derived or a localizer")
    positions = Counter(tuple(round(float(v), 1) for v in ds.get("ImagePositionPatient") or ()) for _, ds in files)
    if positions.most_common(1)[0][1] >= PHASES:
        return Series("ctp", files)
    if any(ds.get("ContrastBolusAgent") for _, ds in files):
        return Series("unused", files, why="says that contrast was given")
    if len(positions) < FEWEST_SLICES:
        return Series("unused", files, why=f"holds {len(positions)} slices; a head CT has at least {FEWEST_SLICES}")
    return Series("ncct", files)


def _synthesized(ds: Dataset) -> bool:
    purposes = (
        code.get("CodeValue")
        for item in ds.get("ContributingEquipmentSequence") or ()
        for code in item.get("PurposeOfReferenceCodeSequence") or ()
    )
    return SYNTHESIZING in purposes


Test = Callable[[Dataset, Rules], bool]
UNUSED: tuple[tuple[str, Test], ...] = (
    ("was synthesised by a node such as ours; it teaches nothing", lambda ds, _: _synthesized(ds)),
    ("says Synthetic Data YES", lambda ds, rules: ds.get("SyntheticData") == "YES" and not rules.simulated),
    ("does not show a head", lambda ds, _: bool(ELSEWHERE.search(str(ds.get("BodyPartExamined") or "").upper()))),
)
MAP_CLASSES = (ParametricMapStorage, SecondaryCaptureImageStorage, MULTI_FRAME_CAPTURE, CTImageStorage)


def kinds_named(ds: Dataset) -> list[str]:
    """The kinds of map that a header names: by the code of a parametric map, else by the words of the console."""
    if ds.SOPClassUID not in MAP_CLASSES:
        return []
    codes = _quantities(ds)
    if by_code := [name for name, kind in KINDS.items() if {kind.quantity[0], kind.relative_quantity[0]} & codes]:
        return by_code
    text = " ".join(word for name in ("SeriesDescription", "ProtocolName", "ImageType") for word in _words(ds, name))
    return [name for name, word in WORDS.items() if re.search(rf"(?<![A-Z]){word}(?![A-Z])", text)]


def _quantities(ds: Dataset) -> set[str]:
    return {
        str(item.ConceptCodeSequence[0].CodeValue)
        for mapping in mappings(ds)
        for item in mapping.get("QuantityDefinitionSequence") or ()
        if item.get("ConceptCodeSequence")
    }


def mappings(ds: Dataset) -> list[Dataset]:
    """The Real World Value Mapping items of a multi-frame object, shared or of its frames; PS3.3 C.7.6.16.2.11."""
    groups = [*(ds.get("SharedFunctionalGroupsSequence") or ()), *(ds.get("PerFrameFunctionalGroupsSequence") or ())]
    return [item for group in groups for item in group.get("RealWorldValueMappingSequence") or ()]


def is_bone(series: Series) -> bool:
    """Whether kernel or description speak of a reconstruction of bone."""
    words = [*_words(series.header, "ConvolutionKernel"), *_words(series.header, "SeriesDescription")]
    return any(BONE.search(word) for word in words)


def moment(ds: Dataset, levels: Sequence[str]) -> datetime | None:
    """The first date and time that an instance states, of some levels."""
    for level in levels:
        date, time = str(ds.get(f"{level}Date") or ""), str(ds.get(f"{level}Time") or "")
        try:
            return datetime.strptime(date + time.split(".")[0].ljust(6, "0"), "%Y%m%d%H%M%S")
        except ValueError:
            continue
    return None


def by_study(series: Iterable[Series]) -> dict[tuple[str, str], list[Series]]:
    """Series under (Patient ID, Study Instance UID)."""
    found: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        found[str(one.header.get("PatientID") or ""), str(one.header.StudyInstanceUID)].append(one)
    return found


def _words(ds: Dataset, keyword: str) -> list[str]:
    value = ds.get(keyword) or ()
    values: Sequence[object] = [value] if isinstance(value, str) else list(value)
    return [str(one).upper() for one in values]
