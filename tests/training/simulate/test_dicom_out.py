"""Studies as DICOM: marked as simulated, right in space, read back by other software, in the habits of each vendor."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ParametricMapStorage, SecondaryCaptureImageStorage

from inference import volume
from inference.maps import KINDS
from tests.dciodvfy import unexpected, unused
from tests.training.simulate.conftest import small_grid
from training.simulate import dicom_out
from training.simulate.dicom_out import MARK
from training.simulate.dynamic import Protocol
from training.simulate.render import ncct
from training.simulate.vendors import VENDORS

GRID = small_grid(tilt=12.0, slices=10, first=-20.0)
LISTED = {  # kinds of object in tests/dciodvfy-allow-list.txt
    CTImageStorage: "simulated ct",
    SecondaryCaptureImageStorage: "simulated sc",
    ParametricMapStorage: "simulated pm",
}


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


def test_dciodvfy_says_of_every_vendors_objects_what_is_listed_and_no_more(severe, tmp_path):
    written: dict[str, list[Path]] = {kind: [] for kind in LISTED.values()}
    for vendor in VENDORS:
        grid = small_grid(tilt=12.0, slices=1)
        for ds in dicom_out.study(severe, grid, dicom_out.WHAT, vendor, Protocol(frames=2)):
            path = tmp_path / f"{ds.SOPInstanceUID}.dcm"
            ds.save_as(path, enforce_file_format=True)
            written[LISTED[ds.SOPClassUID]].append(path)
    for kind, paths in written.items():
        assert {message for path in paths for message in unexpected(kind, path)} == set(), kind
        assert unused(kind, paths) == set(), kind


def test_a_stroke_on_the_right_is_on_the_right_for_another_reader(severe, series, tmp_path):
    """By SimpleITK, from the header of each slice: infarcted tissue is darker, and the Tmax of the lesion lies there.

    Swapped sides are the most dangerous mistake here (simulation.md 7.2); the patient's right is negative in LPS.
    """
    assert severe.params.stroke.side == "right"
    for vendor, datasets in series.items():
        hu, x = (np.stack(parts) for parts in zip(*(read(ds, tmp_path) for ds in datasets), strict=True))
        tissue = (hu > 15) & (hu < 50)
        middle = np.median(x[tissue])
        assert hu[tissue & (x < middle - 10)].mean() < hu[tissue & (x > middle + 10)].mean() - 0.5, vendor
    tmax = (ds for ds in dicom_out.maps(severe, GRID, VENDORS["siemens-like"]) if "TMAX" in ds.ImageType[3])
    seconds, x = (np.stack(parts) for parts in zip(*(read(ds, tmp_path) for ds in tmax), strict=True))
    assert x[seconds > 6.0].mean() < -10.0


def read(ds: pydicom.Dataset, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rescaled values of a slice and the LPS x of its pixels, in mm."""
    ds.save_as(folder / "slice.dcm", enforce_file_format=True)
    image = sitk.ReadImage(str(folder / "slice.dcm"))
    rows, columns = np.indices((ds.Rows, ds.Columns))
    across, down = image.GetDirection()[:2]
    spacing = image.GetSpacing()
    x = image.GetOrigin()[0] + across * spacing[0] * columns + down * spacing[1] * rows
    return sitk.GetArrayFromImage(image)[0].astype(float), x


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
