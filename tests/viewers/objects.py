"""What the viewers are shown: the demo's patient through the pipeline, and maps that are wrong on purpose."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicomnode import bookkeeping, config, data, pipeline
from dicomnode.intake import Intake
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from inference import weights
from inference.maps import KINDS
from tests.dicomnode.arrivals import arrive

CEILING = KINDS["Tmax"].ceiling
IMAGES = ["sc", "pm", "ct", "seg", "mosaic"]
CONTROLS = ("as highdicom orders it", "in seconds", "in 16 bits")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One study, read back from its files by pydicom alone.

    files: of the CT and of its Tmax objects and controls.
    tmax: (slices, rows, columns) seconds, foot to head, ordered by the positions that the parametric map states.
    slices: SOP Instance UID of the CT, the captures and the derived CT -> index of the slice; the CT comes first.
    series: name of the files without their number -> Series Description.
    """

    files: list[Path]
    study_instance_uid: str
    tmax: np.ndarray
    slices: dict[str, int]
    series: dict[str, str]

    def ct(self, index: int) -> str:
        """SOP Instance UID of a CT slice."""
        return next(uid for uid, at in self.slices.items() if at == index)


def make(folder: Path) -> None:
    """Every kind of image of the demo's patient, through intake, sweep and pipeline; those of Tmax stay, as files."""
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "objects": IMAGES}
    raw = {"node": {"accept_simulated": True}, "completeness": {"quiet_seconds": 0}, "destination": [peer]}
    settings = config.parse(raw, folder=folder)
    url = f"sqlite:///{folder}/books.db"
    bookkeeping.migrate(url)
    books, spool = bookkeeping.open_books(url), Spool(folder / "data").make()
    now, opened = datetime.now(UTC), list[str]()
    arrive(Intake(books, spool), [dcmread(path) for path in data.ncct()], now)
    manifest = weights.read(settings.weights_folder)
    Sweep(settings, books, spool, manifest, lambda job, lane: opened.append(job), print).once(now)
    job = bookkeeping.claim(books, opened[0], bookkeeping.ACTOR, now)
    assert job is not None
    pipeline.run(job, settings, books, spool)
    out = folder / "study"
    out.mkdir()
    for result in bookkeeping.results(books, job.id):
        if result.map in ("Tmax", "regions", "summary"):
            (out / f"{result.kind}-{result.map}-{result.index:03d}.dcm").hardlink_to(spool.path(result.path))
    books.kw["bind"].dispose()
    for number, control in enumerate(wrong(out / "pm-Tmax-000.dcm")):
        control.save_as(out / f"control-{number}.dcm", enforce_file_format=True)


def wrong(path: Path) -> Iterator[Dataset]:
    """The map as it would be without what pm-in-ohif calls for, one thing at a time; in the order of CONTROLS."""
    for number, name in enumerate(CONTROLS):
        ds = dcmread(path)
        stored = np.frombuffer(ds.FloatPixelData, np.float32).reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)
        shared = ds.SharedFunctionalGroupsSequence[0]
        if name == "as highdicom orders it":  # descending along the normal
            ds.FloatPixelData = stored[::-1].tobytes()
            ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence)[::-1]
        elif name == "in seconds":
            ds.FloatPixelData = (stored * np.float32(CEILING)).tobytes()
            shared.RealWorldValueMappingSequence[0].RealWorldValueSlope = 1.0
        else:
            del ds.FloatPixelData
            ds.PixelData = (stored * 4095).clip(0, 65535).astype("<u2").tobytes()
            ds["PixelData"].VR = "OW"
            ds.BitsAllocated = ds.BitsStored = 16
            ds.HighBit, ds.PixelRepresentation = 15, 0
            shared.RealWorldValueMappingSequence[0].RealWorldValueSlope = CEILING / 4095
        ds.SeriesInstanceUID, ds.SOPInstanceUID = generate_uid(), generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SeriesDescription, ds.SeriesNumber = f"CONTROL {name}", 9901 + number
        yield ds


def read(folder: Path) -> Shown:
    """What `make` left in a folder, and the CT it was made from."""
    files = [*data.ncct(), *sorted((folder / "study").glob("*.dcm"))]
    sources = sorted((dcmread(path, stop_before_pixels=True) for path in data.ncct()), key=_height)
    slices = {str(ds.SOPInstanceUID): index for index, ds in enumerate(sources)}
    series = {}
    for path in files:
        ds = dcmread(path, stop_before_pixels=True)
        series[path.stem.rsplit("-", 1)[0]] = str(ds.SeriesDescription)
        if path.stem.startswith(("sc-", "ct-")):
            slices[str(ds.SOPInstanceUID)] = slices[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
    return Shown(files, str(sources[0].StudyInstanceUID), _seconds(folder / "study/pm-Tmax-000.dcm"), slices, series)


def _height(ds: Dataset) -> float:
    return float(np.cross(ds.ImageOrientationPatient[:3], ds.ImageOrientationPatient[3:]) @ ds.ImagePositionPatient)


def _seconds(path: Path) -> np.ndarray:
    """(slices, rows, columns) foot to head, with the word SYNTHETIC at the upper edge."""
    ds = dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    frames = ds.PerFrameFunctionalGroupsSequence
    positions = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)
    order = np.argsort(positions @ np.cross(orientation[:3], orientation[3:]))
    stored = np.frombuffer(ds.FloatPixelData, np.float32).reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)
    return stored[order] * float(shared.RealWorldValueMappingSequence[0].RealWorldValueSlope)
