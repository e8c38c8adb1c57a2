"""A virtual patient's study, exported in the habits of three vendors, through a running node."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from inference.maps import KINDS
from tests.pacs import Pacs
from tests.walks.node import Node
from training.simulate import dicom_out
from training.simulate.dynamic import Protocol
from training.simulate.geometry import Grid, even
from training.simulate.patient import make

pytestmark = pytest.mark.slow
SLICES = 32


# DCMTK's storescu offers no context for parametric maps, so the last study goes without its truth maps.
CASES = [
    ("ge-like", 12.0, ("ncct", "ctp", "maps")),
    ("siemens-like", 0.0, ("ncct", "ctp", "maps")),
    ("philips-like", -9.0, ("ncct", "ctp")),
]


@pytest.mark.parametrize(("vendor", "tilt", "what"), CASES)
def test_an_exported_study_comes_back_as_maps_on_the_slices_of_its_ncct(vendor, tilt, what, tmp_path: Path):
    grid = Grid(even(SLICES, 5.0, -76.0), 128, 128, 1.8, 5.0, tilt)
    datasets = list(dicom_out.study(make(3, severity="severe"), grid, what, vendor, Protocol(frames=4)))
    dicom_out.write(iter(datasets), tmp_path / "study")
    study, head = datasets[0].StudyInstanceUID, datasets[:SLICES]
    with Pacs(ae_title="PACS").running() as pacs:
        destination = f"PACS@127.0.0.1:{pacs.port}"
        node = Node.init(tmp_path / "node", "--source", "STORESCU@127.0.0.1", "--destination", destination, "--demo")
        with node.up():
            assert node.send(tmp_path / "study").returncode == 0
            node.ends(study, "DONE")
    story = node.story(study)
    assert story is not None and len(story.jobs) == 1
    used = [series.series_instance_uid for series in story.series if series.state == "SELECTED"]
    assert used == [head[0].SeriesInstanceUID]
    assert len(story.series) == (7 if "maps" in what else 2)  # perfusion and truth maps are not for the node
    assert {ds.StudyInstanceUID for ds in pacs.received} == {study}
    assert {ds.SyntheticData for ds in pacs.received} == {"YES"}
    captures = [ds for ds in pacs.received if ds.SOPClassUID == SecondaryCaptureImageStorage]
    maps = [ds for ds in pacs.received if ds.SOPClassUID == ParametricMapStorage]
    assert (len(captures), len(maps)) == (len(KINDS) * SLICES, len(KINDS))
    for kind in KINDS:
        middles = [middle(ds) for ds in captures if f" {kind} " in f"{ds.SeriesDescription} "]
        assert np.allclose(sorted(middles), sorted(map(middle, head)), atol=0.01)


def middle(ds: Dataset) -> tuple[float, ...]:
    """LPS mm of the middle of an image, wherever its first pixel lies: captures of a small matrix are enlarged."""
    across, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, ds.PixelSpacing)
    corner = np.array(ds.ImagePositionPatient, float)
    place = corner + across * between_columns * (ds.Columns - 1) / 2 + down * between_rows * (ds.Rows - 1) / 2
    return tuple(place[::-1].tolist())
