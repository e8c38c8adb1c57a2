"""`dicomnode demo`: what a newcomer sees in the first minute."""

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread

from dicomnode import data
from inference.maps import KINDS
from tests import phantom
from tests.walks.node import dicomnode


def test_the_demo_ends_with_what_the_pacs_holds_and_a_picture(tmp_path: Path):
    said = dicomnode("demo", "--out", "out", cwd=tmp_path).stdout
    assert "The receiving PACS now holds:" in said
    for name in KINDS:
        assert f"29 x Secondary Capture Image Storage: SYNTHETIC {name} " in said
        assert f"1 x Parametric Map Storage: SYNTHETIC {name} " in said
    assert "From the last slice to the last confirmation" in said
    files = [dcmread(path, stop_before_pixels=True) for path in (tmp_path / "out" / "pacs").glob("*.dcm")]
    assert len(files) == 5 * len(data.ncct()) + 5
    assert {ds.SyntheticData for ds in files} == {"YES"}
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    colourful = (np.ptp(pixels, axis=2) > 60).mean(axis=0).reshape(6, -1).mean(axis=1)
    assert colourful[0] == 0  # the CT is grey
    assert (colourful[1:] > 0.05).all()  # and each map has colours


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
