"""Left is left and up is up: an asymmetric head through the whole pipeline, found again by readers that are not ours.

The generator is replaced by one that copies the CT into every map, so a mark of the head becomes a mark of the map.
"""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from dicomnode import bookkeeping, config, pipeline
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.intake import Intake
from dicomnode.spool import Spool
from dicomnode.sweep import Sweep
from dicomnode.writer.palette import RAINBOW
from inference import weights
from inference.preprocess import WINDOW
from tests import phantom
from tests.dicomnode.arrivals import arrive
from tests.tools import program

CASES = [
    pytest.param(position, tilt, head_to_foot, id=f"{position}-{tilt:g}-{'down' if head_to_foot else 'up'}")
    for position in phantom.POSITIONS
    for tilt in (0.0, 16.0)
    for head_to_foot in (False, True)
]


class Copier:
    """In place of the engine: the map is the CT slice itself."""

    kinds = ("Tmax",)
    manifest = replace(
        weights.read(weights.shipped()), kinds=kinds, ranges=weights.ranges(kinds), smoothing={}, familiar=""
    )

    mix = np.array([[1, 0, 0, 0, 0]], np.float32)

    def perfusion(self, planes: np.ndarray) -> np.ndarray:
        return planes[:, 1:2]

    def blend(self, perfusion: np.ndarray, planes: np.ndarray) -> np.ndarray:
        return perfusion


def walk(slices: list[Dataset], settings: Settings, books: Books, spool: Spool, now) -> list[bookkeeping.Result]:
    """Everything but the network: the instances are received, judged, computed and written."""
    arrive(Intake(books, spool), slices, now)
    opened: list[str] = []
    limits = config.Completeness(quiet_seconds=0)
    object.__setattr__(settings, "completeness", limits)
    Sweep(settings, books, spool, Copier.manifest, lambda job, lane: opened.append(job), print).once(now)
    job = bookkeeping.claim(books, opened[0], bookkeeping.ACTOR, now)
    assert job is not None
    pipeline.run(job, settings, books, spool)
    return bookkeeping.results(books, job.id)


def seen_in_parametric_map(path: Path, point: tuple[float, float, float], tmp_path: Path) -> float:
    """The stored value at a point of the patient, read by dcmqi and ITK."""
    out = tmp_path / "map"
    out.mkdir(exist_ok=True)
    command = [program("paramap2itkimage"), "--inputDICOM", str(path), "--outputDirectory", str(out), "--prefix", "m"]
    subprocess.run([*command, "--outputType", "nrrd"], check=True, capture_output=True)
    (image,) = [p for p in out.iterdir() if p.suffix == ".nrrd"]
    read = sitk.ReadImage(str(image))
    image.unlink()
    return float(read.GetPixel(*read.TransformPhysicalPointToIndex(point)))


def seen_in_captures(captures: list[sitk.Image], point: tuple[float, float, float]) -> float:
    """The value that the colour at a point of the patient stands for, 0 to 1, in the capture nearest to it."""
    indices = [np.array(image.TransformPhysicalPointToContinuousIndex(point)) for image in captures]
    away = [abs(index[2]) * image.GetSpacing()[2] for image, index in zip(captures, indices, strict=True)]
    nearest = int(np.argmin(away))
    assert away[nearest] <= 4.0  # half a slice
    image, index = captures[nearest], indices[nearest]
    colour = image.GetPixel(*(round(v) for v in index[:2]), 0)
    return float(np.abs(RAINBOW.astype(int) - colour).sum(axis=1).argmin()) / (len(RAINBOW) - 1)


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("position", "tilt", "head_to_foot"), CASES)
def test_every_mark_is_found_where_it_is_in_the_patient(
    position, tilt, head_to_foot, settings, books, spool, now, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
    slices = phantom.head(
        phantom.even(17, 8.0, -62.0),
        matrix=128,
        thickness=8.0,
        patient_position=position,
        tilt_degrees=tilt,
        head_to_foot=head_to_foot,
    )
    results = walk(slices, settings, books, spool, now)
    low, high = WINDOW
    captures = [sitk.ReadImage(str(spool.path(r.path))) for r in results if r.kind == "sc"]
    (parametric,) = [spool.path(r.path) for r in results if r.kind == "pm"]
    assert len(captures) == len(slices)
    for mark in phantom.MARKS:
        expected = (np.clip(mark.hu, low, high) - low) / (high - low)
        mirrored = (-mark.centre[0], mark.centre[1], mark.centre[2])
        assert seen_in_captures(captures, mark.centre) == pytest.approx(expected, abs=0.06), mark.name
        assert abs(seen_in_captures(captures, mirrored) - expected) > 0.2, mark.name
        if tilt == 0:  # dcmqi knows no shear; the tilted map is read slice by slice in the tests of the writer
            assert seen_in_parametric_map(parametric, mark.centre, tmp_path) == pytest.approx(expected, abs=0.06)
