"""The demo's patient is small, marked as simulated, contiguous, and ill on the side that truth.json names."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, JPEGLSLossless

from dicomnode import data

FOLDER = Path(data.__file__).parent
TRUTH = json.loads((FOLDER / "truth.json").read_text(encoding="utf-8"))


@cache
def slices() -> tuple[pydicom.Dataset, ...]:
    return tuple(pydicom.dcmread(path) for path in data.ncct())


def test_the_files_come_sorted_and_weigh_less_than_2_megabytes():
    paths = data.ncct()
    assert [path.name for path in paths] == [f"{number:03d}.dcm" for number in range(1, 30)]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 2_000_000


def test_every_slice_says_that_it_is_simulated():
    for ds in slices():
        assert ds.SyntheticData == "YES"
        assert ds.ImageComments == "SIMULATED, NOT A PATIENT"
        assert (ds.PatientID, ds.IssuerOfPatientID) == (f"VSIM-{TRUTH['seed']}", "VSIM")
        assert str(ds.PatientName) == f"VIRTUAL^{TRUTH['seed']}"
        assert ds.BurnedInAnnotation == "NO"


def test_the_slices_are_one_lossless_ct_series_without_contrast():
    for ds in slices():
        assert ds.SOPClassUID == CTImageStorage
        assert ds.file_meta.TransferSyntaxUID == JPEGLSLossless
        assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
        assert "ContrastBolusAgent" not in ds
        assert ds.PatientPosition == "HFS"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "AccessionNumber"):
        assert len({ds[keyword].value for ds in slices()}) == 1
    assert len({ds.SOPInstanceUID for ds in slices()}) == len(slices())


def test_the_slices_are_contiguous_and_tilted():
    """Steps of 5 mm along the table, so 5 cos(tilt) along the normal: never a gap, more than 100 mm covered."""
    positions = np.array([ds.ImagePositionPatient for ds in slices()], float)
    assert np.allclose(np.diff(positions, axis=0), [0, 0, 5], atol=2e-6)  # positions are written to 1e-6 mm
    assert len({tuple(ds.ImageOrientationPatient) for ds in slices()}) == 1
    row, column = np.array(slices()[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    tilt = np.degrees(np.arccos(normal[2]))
    assert tilt == pytest.approx(slices()[0].GantryDetectorTilt, abs=1e-3)
    assert np.ptp(positions @ normal) > 100


def test_the_pixels_are_a_head_in_hounsfield_units():
    hu = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices()])
    assert hu.shape == (29, 256, 256)
    assert np.median(hu[:, 0]) == pytest.approx(-1000, abs=1)  # the first row is air
    assert hu.max() > 1000  # skull
    middle = hu[14]
    assert 25 < np.median(middle[(middle > 0) & (middle < 80)]) < 40  # grey and white matter


def test_the_side_of_the_stroke_is_the_side_of_low_density():
    """Read with SimpleITK, one file at a time: its series reader would drop the shear of the tilt."""
    centroid = np.array(TRUTH["lesion_centroid_lps_mm"])
    lesion, mirror = mean_hu(centroid), mean_hu(centroid * [-1, 1, 1])
    assert TRUTH["side"] == ("left" if centroid[0] > 0 else "right")  # LPS: x grows to the patient's left
    assert lesion < mirror - 5  # measured 26.5 and 33.2 HU


def mean_hu(centre: np.ndarray, radius: float = 15.0) -> float:
    """Mean HU of soft tissue (10 to 60 HU) in a ball around a point in LPS mm."""
    found = []
    for path in data.ncct():
        image = sitk.ReadImage(path)
        axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        rows, columns = np.indices((image.GetHeight(), image.GetWidth()))
        points = image.GetOrigin() + columns[..., None] * axes[:, 0] + rows[..., None] * axes[:, 1]
        near = np.linalg.norm(points - centre, axis=-1) < radius
        hu = sitk.GetArrayFromImage(image)[0][near]
        found.append(hu[(hu > 10) & (hu < 60)])
    return float(np.concatenate(found).mean())
