"""`dicomnode demo`: what a newcomer sees in the first minute."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ParametricMapStorage

from dicomnode import data
from inference.maps import KINDS
from tests import phantom
from tests.walks.node import dicomnode

pytestmark = pytest.mark.slow  # a minute and a half; test_orthanc.py walks the same way


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> tuple[Path, str]:
    """The folder that the demo leaves behind, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    return folder / "out", dicomnode("demo", "--out", "out", cwd=folder).stdout


def test_the_demo_ends_with_what_the_pacs_holds_and_a_picture(shown):
    out, said = shown
    assert "The receiving PACS now holds:" in said
    for name in KINDS:
        assert f"29 x Secondary Capture Image Storage: SYNTHETIC {name} " in said
        assert f"1 x Parametric Map Storage: SYNTHETIC {name} " in said
    assert "From the last slice to the last confirmation" in said
    files = [dcmread(path, stop_before_pixels=True) for path in (out / "pacs").glob("*.dcm")]
    assert len(files) == 5 * len(data.ncct()) + 5
    assert {ds.SyntheticData for ds in files} == {"YES"}
    with Image.open(out / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    colourful = (np.ptp(pixels, axis=2) > 60).mean(axis=0).reshape(6, -1).mean(axis=1)
    assert colourful[0] == 0  # the CT is grey
    assert (colourful[1:] > 0.05).all()  # and each map has colours


def test_the_lesion_of_the_demo_lies_on_the_patients_left(shown):
    """Read from the Parametric Map that the PACS holds, in patient coordinates: +x is the left."""
    truth = json.loads(resources.files(data).joinpath("truth.json").read_text())
    assert truth["side"] == "left"
    (tmax,) = (
        path
        for path in (shown[0] / "pacs").glob("*.dcm")
        if "Tmax" in dcmread(path, stop_before_pixels=True).SeriesDescription
        and dcmread(path, stop_before_pixels=True).SOPClassUID == ParametricMapStorage
    )
    ds = dcmread(tmax)
    shared = ds.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    seconds = ds.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    spacing = shared.PixelMeasuresSequence[0]
    across = float(shared.PlaneOrientationSequence[0].ImageOrientationPatient[0]) * float(spacing.PixelSpacing[1])
    starts = [frame.PlanePositionSequence[0].ImagePositionPatient[0] for frame in ds.PerFrameFunctionalGroupsSequence]
    x = np.array(starts, float)[:, None, None] + across * np.arange(ds.Columns)  # a head that lies straight in its scan
    x = np.broadcast_to(x, seconds.shape)
    brain, late = seconds > 0, seconds > 6
    middle = (x[brain].min() + x[brain].max()) / 2
    millilitres = float(spacing.PixelSpacing[0]) * float(spacing.PixelSpacing[1]) * float(spacing.SliceThickness) / 1000
    left, right = ((late & side).sum() * millilitres for side in (x > middle, x < middle))
    assert left > 2 * right
    assert left > truth["tmax_over_6_s_ml"] / 3


@pytest.mark.slow
def test_a_series_that_is_not_for_us_ends_the_demo_with_the_reason(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for n, ds in enumerate(phantom.head(phantom.even(20), matrix=32)):
        ds.ContrastBolusAgent = "Iomeprol"
        ds.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("not DICOM")
    failed = dicomnode("demo", "--input", str(folder), "--out", "out", cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "contrast was given" in failed.stderr


def test_a_folder_without_dicom_says_so(tmp_path: Path):
    failed = dicomnode("demo", "--input", str(tmp_path), cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "no DICOM file" in failed.stderr
