"""Finished jobs for the writer: the phantom head with maps whose marked values are known in patient space."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.writer import Replaced, Study, write
from inference import weights
from inference.maps import KINDS, MapKind, PerfusionMap
from inference.volume import Volume, from_slices
from tests import phantom

MARKS = dict(zip((mark.name for mark in phantom.MARKS), (0.9, 0.45, 0.6), strict=True))  # fractions of the ceiling
NORMAL = 0.125  # the rest of the brain

PER_SLICE = ("sc", "ct")  # kinds of object with one for each slice
IN_SPACE = ("sc", "pm", "ct", "seg")  # kinds that lie in the frame of reference of the source
DOCUMENTS = ("sr", "sr-comprehensive", "pdf", "note")  # kinds that are no images
MAPLESS = {"note": "replaced", "mosaic": "summary", "pdf": "summary", "sr": "report", "sr-comprehensive": "report"}

MANIFEST = replace(weights.read(weights.shipped()), name="ncct-virtual", version="1", training_domain="virtual")


def points(volume: Volume) -> np.ndarray:
    """(slices, rows, columns, 3) LPS mm of every voxel."""
    _, rows, columns = volume.hu.shape
    between_rows, between_columns = volume.pixel_spacing
    down = np.arange(rows)[:, None, None] * between_rows * volume.column_direction
    along = np.arange(columns)[None, :, None] * between_columns * volume.row_direction
    return volume.positions[:, None, None, :] + down + along


def perfusion_map(volume: Volume, kind: MapKind) -> PerfusionMap:
    """A map of the phantom: NORMAL in the brain, another value in each of the phantom's marks, 0 outside."""
    at = points(volume)
    values = np.where(inside(at), NORMAL, 0.0)
    for mark in phantom.MARKS:
        values[np.linalg.norm(at - mark.centre, axis=-1) < mark.radius] = MARKS[mark.name]
    return PerfusionMap(kind, (values * kind.ceiling).astype(np.float32))


def stroke(source: list[Dataset] | None = None, **changes) -> Study:
    """A job over the phantom whose left upper mark is core, and whose other marks are late at normal flow.

    CBF is 30 ml/100 g/min and 6 in the core; Tmax is 1.5 s, and 10.8, 5.4 and 7.2 s in the marks.
    """
    slices = source or phantom.head(matrix=128)
    volume = from_slices(slices)
    at = points(volume)
    flow = np.where(inside(at), 0.5, 0.0)
    flow[np.linalg.norm(at - phantom.MARKS[0].centre, axis=-1) < phantom.MARKS[0].radius] = 0.1
    cbf = PerfusionMap(KINDS["CBF"], (flow * KINDS["CBF"].ceiling).astype(np.float32))
    return study(slices, **{"maps": [cbf, perfusion_map(volume, KINDS["Tmax"])]} | changes)


def inside(at: np.ndarray) -> np.ndarray:
    """Where points lie in the brain of the phantom."""
    x, y, z = at[..., 0], at[..., 1], at[..., 2] - 5.0
    return np.sqrt((x / 72) ** 2 + (y / 88) ** 2 + (z / 74) ** 2) < 0.96


def study(source: list[Dataset] | None = None, kinds: Iterable[str] = ("Tmax",), **changes) -> Study:
    """A finished job over phantom slices, in the state they would have once read from files."""
    slices = source or phantom.head()
    volume = from_slices(slices)
    given = {
        "source": [slices[i] for i in volume.order],
        "volume": volume,
        "maps": [perfusion_map(volume, KINDS[name]) for name in kinds],
        "manifest": MANIFEST,
        "job_key": "job",
        "revision": 1,
        "supersedes": None,
        "created_at": datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
        "software_version": "0.1.0",
        "device_serial_number": "NODE-1",
        "replaced": (Replaced(SecondaryCaptureImageStorage, "2.25.7", "2.25.8"),),
    }
    return Study(**given | changes)


def small(**changes) -> Study:
    """A job that renders fast: ten slices of 64 x 64."""
    return study(phantom.head(phantom.even(10, 14.0), matrix=64, thickness=14.0), **changes)


def marked(ceiling: float = KINDS["Tmax"].ceiling) -> list[tuple[np.ndarray, float]]:
    """(centre, value) of every mark, of the mirror image of the first, and of the air, for a map of that ceiling."""
    expected = [(np.array(mark.centre), MARKS[mark.name] * ceiling) for mark in phantom.MARKS]
    mirrored = expected[0][0] * (-1, 1, 1)
    return [*expected, (mirrored, NORMAL * ceiling), (np.array([0.0, 104.0, 20.0]), 0.0)]


def saved(ds: Dataset) -> bytes:
    """The Part 10 file of a data set."""
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read_back(ds: Dataset) -> Dataset:
    """A data set after the way through a file."""
    return dcmread(BytesIO(saved(ds)))


def one(of: Study, kind: str = "sc", index: int | None = None, name: str = "Tmax") -> Dataset:
    """One object of a study, read back: the middle slice unless another is named."""
    name = MAPLESS.get(kind, name)
    at = index if index is not None else len(of.source) // 2 if kind in PER_SLICE else 0
    (rendered,) = write(of, lambda *item: item == (kind, name, at), (kind,))
    return read_back(rendered.dataset)


def rgb(ds: Dataset) -> np.ndarray:
    """The pixels of a capture, without pydicom's decoder."""
    return np.frombuffer(ds.PixelData, np.uint8).reshape(ds.Rows, ds.Columns, 3)
