"""A virtual patient's study, exported as three kinds of scanner and console would send it, through a running node."""

from pathlib import Path

import pytest
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


@pytest.mark.parametrize(("vendor", "tilt"), [("ge-like", 12.0), ("siemens-like", 0.0), ("philips-like", -9.0)])
def test_an_exported_study_comes_back_as_maps_on_the_slices_of_its_ncct(vendor: str, tilt: float, tmp_path: Path):
    grid = Grid(even(SLICES, 5.0, -76.0), 128, 128, 1.8, 5.0, tilt)
    datasets = list(
        dicom_out.study(make(3, severity="severe"), grid, ("ncct", "ctp", "maps"), vendor, Protocol(frames=4))
    )
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
    assert len(story.series) == 7  # the perfusion series and the five truth maps are not for the node
    assert {ds.StudyInstanceUID for ds in pacs.received} == {study}
    assert {ds.SyntheticData for ds in pacs.received} == {"YES"}
    captures = [ds for ds in pacs.received if ds.SOPClassUID == SecondaryCaptureImageStorage]
    maps = [ds for ds in pacs.received if ds.SOPClassUID == ParametricMapStorage]
    assert (len(captures), len(maps)) == (len(KINDS) * SLICES, len(KINDS))
    assert {place(ds) for ds in captures} == {place(ds) for ds in head}


def place(ds) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in (*ds.ImagePositionPatient, *ds.ImageOrientationPatient))
