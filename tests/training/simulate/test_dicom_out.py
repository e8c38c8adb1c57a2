"""Studies as DICOM: marked as simulated, right in space, read back by other software, in the habits of each vendor."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ParametricMapStorage, SecondaryCaptureImageStorage

from inference import volume
from inference.maps import KINDS
from tests.training.simulate.conftest import small_grid
from training.simulate import dicom_out
from training.simulate.dicom_out import MARK
from training.simulate.dynamic import Protocol
from training.simulate.render import ncct
from training.simulate.vendors import VENDORS

GRID = small_grid(tilt=12.0, slices=10, first=-20.0)


def hounsfield(ds: pydicom.Dataset) -> np.ndarray:
    return ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


@pytest.fixture(scope="module")
def series(severe):
    return {name: list(dicom_out.ncct(severe, GRID, vendor)) for name, vendor in VENDORS.items()}


def test_the_node_reads_back_the_volume_that_was_rendered(severe, series):
    """Rounded to whole HU, tilt and order kept, whatever the vendor; padding counts as air."""
    rendered = ncct(severe, GRID)
    middle = np.s_[:, 20:-20, 20:-20]
    for name, datasets in series.items():
        head = volume.from_slices(datasets)
        assert np.abs(head.hu[middle] - rendered[middle]).max() <= 0.5 + 24 * (name == "philips-like"), name
        assert abs(head.tilt_degrees) == pytest.approx(12.0, abs=1e-3)
        assert np.allclose(head.positions[0], GRID.first_voxel(GRID.heights[0]), atol=1e-5)


def test_simpleitk_reads_the_pixels_and_the_place_of_one_slice(series, tmp_path):
    ds = series["plain"][4]
    ds.save_as(tmp_path / "slice.dcm", enforce_file_format=True)
    image = sitk.ReadImage(str(tmp_path / "slice.dcm"))
    assert np.array_equal(sitk.GetArrayFromImage(image)[0], hounsfield(ds))
    assert np.allclose(image.GetOrigin(), ds.ImagePositionPatient, atol=1e-5)


def test_every_instance_says_that_it_is_simulated(severe):
    datasets = list(dicom_out.study(severe, GRID, ("ncct", "ctp", "maps"), "ge-like", Protocol(frames=2)))
    datasets += list(dicom_out.maps(severe, GRID, VENDORS["philips-like"]))
    for ds in datasets:
        assert (ds.SyntheticData, ds.ImageComments) == ("YES", MARK)
        assert (ds.PatientID, str(ds.PatientName)) == ("VSIM-3", "VIRTUAL^3")
    assert len({ds.SOPInstanceUID for ds in datasets}) == len(datasets)
    assert len({ds.StudyInstanceUID for ds in datasets}) == 1


def test_headers_carry_no_class(severe, mild, series):
    """Two patients of different class differ in nothing but who they are."""
    other = next(dicom_out.ncct(mild, GRID, VENDORS["plain"]))
    own = {"PatientName", "PatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyID", "AccessionNumber"}
    own |= {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PixelData"}
    first = series["plain"][0]
    assert {e.keyword for e in first if e != other.get(e.tag)} <= own
    assert {e.keyword for e in other} == {e.keyword for e in first}


def test_perfusion_instances_advance_in_time_and_carry_contrast(severe):
    grid = small_grid(slices=2)
    datasets = list(dicom_out.ctp(severe, grid, VENDORS["plain"], Protocol(frames=3, interval=1.5)))
    assert [ds.TemporalPositionIdentifier for ds in datasets] == [1, 1, 2, 2, 3, 3]
    times = [float(ds.AcquisitionTime[4:]) for ds in datasets[::2]]
    assert np.allclose(np.diff(times), 1.5)
    assert all(ds.ContrastBolusAgent and ds.KVP == 80 for ds in datasets)


def test_each_vendor_sends_maps_as_its_own_kind_of_object(severe):
    truth = severe.truth(GRID)
    classes = {
        "ge-like": SecondaryCaptureImageStorage,
        "siemens-like": CTImageStorage,
        "philips-like": ParametricMapStorage,
    }
    for name, sop_class in classes.items():
        datasets = list(dicom_out.maps(severe, GRID, VENDORS[name]))
        assert {ds.SOPClassUID for ds in datasets} == {sop_class}
        assert len(datasets) == (5 if sop_class == ParametricMapStorage else 50)
        if name == "siemens-like":
            tmax = sorted((ds for ds in datasets if "TMAX" in ds.ImageType[3]), key=lambda ds: ds.SliceLocation)
            stored = np.stack([hounsfield(ds) for ds in tmax])
            ceiling = KINDS["Tmax"].ceiling
            assert np.abs(stored.clip(0, ceiling) - truth["Tmax"].clip(0, ceiling)).max() < ceiling / 4000
        if name == "philips-like":
            values = np.frombuffer(datasets[0].FloatPixelData, np.float32).reshape(truth["CBF"].shape)
            assert np.sort(values.ravel())[-100:] == pytest.approx(np.sort(truth["CBF"].ravel())[-100:])


def test_unknown_parts_and_vendors_are_named(severe):
    with pytest.raises(ValueError, match="mri"):
        next(dicom_out.study(severe, GRID, ("mri",)))
    with pytest.raises(ValueError, match="'toshiba'"):
        next(dicom_out.study(severe, GRID, vendor="toshiba"))
