"""training.cohort.series, maps, captures and lattice: what a series is, and what its pixels mean and where."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from inference import volume
from inference.maps import KINDS
from tests import phantom
from tests.training.simulate.conftest import small_grid
from training.cohort import Rejected, captures, lattice, maps, series
from training.cohort.series import Rules, Series
from training.simulate import dicom_out
from training.simulate.dynamic import Protocol
from training.simulate.vendors import VENDORS

GRID = small_grid(tilt=12.0, slices=6)
VIRTUAL = Rules(simulated=True)
STEP = {"ge-like": 1 / 255, "siemens-like": 1 / 4000, "philips-like": 1e-5}  # of the ceiling


def on_disk(datasets: list[Dataset], folder: Path) -> list[Series]:
    dicom_out.write(iter(datasets), folder)
    return series.scan(folder, VIRTUAL)[0]


def one_of(found: list[Series], role: str, kind: str = "") -> Series:
    (only,) = (one for one in found if (one.role, one.kind) == (role, kind))
    return only


@pytest.mark.parametrize("vendor", list(STEP))
def test_each_vendors_maps_are_read_in_their_unit_and_place(severe, tmp_path: Path, vendor: str):
    """On tilted slices; captures have no geometry and take it from the perfusion series they were made from."""
    what = ("ctp", "maps") if vendor == "ge-like" else ("maps",)
    found = on_disk(list(dicom_out.study(severe, GRID, what, vendor, Protocol(frames=3))), tmp_path)
    lenders = [one for one in found if one.role == "ctp"]
    assert sorted(one.kind for one in found if one.role == "map") == sorted(KINDS)
    for name, true in severe.truth(GRID).items():
        ceiling = KINDS[name].ceiling
        placed = maps.read(one_of(found, "map", name), lenders, captures.Styles())
        assert np.allclose(placed.values.positions, [GRID.first_voxel(height) for height in GRID.heights], atol=1e-4)
        assert np.allclose(placed.values.column_direction, GRID.column_direction, atol=1e-6)
        assert placed.values.pixel_spacing == pytest.approx((1.8, 1.8))
        known = np.isfinite(placed.values.hu)
        assert (known[true > 0]).mean() > 0.99
        off = np.abs(np.minimum(placed.values.hu, ceiling) - np.minimum(true, ceiling))
        assert off[known].max() <= 1.01 * STEP[vendor] * ceiling, name
        assert bool(known.all()) == (vendor != "ge-like")  # what a capture leaves black is no data
        assert bool(placed.warnings) == (vendor == "ge-like")


def test_a_style_says_what_the_top_of_the_bar_means(severe, tmp_path: Path):
    found = on_disk(list(dicom_out.study(severe, GRID, ("ncct", "maps"), "ge-like")), tmp_path / "study")
    lenders = [Series("ncct", one.files) for one in found if one.header.SeriesNumber == dicom_out.SERIES["ncct"]]
    (tmp_path / "console.toml").write_text("[CBF]\nceiling = 120.0\n")
    styles = captures.read_styles(tmp_path / "console.toml")
    plain, doubled = (maps.read(one_of(found, "map", "CBF"), lenders, one) for one in (captures.Styles(), styles))
    assert np.nanmax(np.abs(doubled.values.hu - 2 * plain.values.hu)) < 1e-4
    (tmp_path / "console.toml").write_text("[CBF]\nceilling = 120.0\n")
    with pytest.raises(ValueError, match="ceilling"):
        captures.read_styles(tmp_path / "console.toml")


def test_captures_that_cannot_be_placed_are_refused_with_the_reason(severe, tmp_path: Path):
    grid = small_grid(slices=3)
    found = on_disk(list(dicom_out.maps(severe, grid, VENDORS["ge-like"])), tmp_path)
    with pytest.raises(Rejected, match="no geometry"):
        maps.read(one_of(found, "map", "CBF"), [], captures.Styles())
    lender = Series("ncct", tuple((Path(), ds) for ds in dicom_out.ncct(severe, grid, VENDORS["ge-like"])))
    path, _ = one_of(found, "map", "CBF").files[0]
    turned = pydicom.dcmread(path)
    turned.PatientOrientation = ["R", "P"]  # drawn as seen from above
    turned.save_as(path)
    with pytest.raises(Rejected, match="Patient Orientation R/P"):
        maps.read(one_of(found, "map", "CBF"), [lender], captures.Styles())


def test_a_map_in_another_unit_is_refused(severe, tmp_path: Path):
    (ds, *_) = dicom_out.maps(severe, small_grid(slices=2), VENDORS["philips-like"])
    for mapping in series.mappings(ds):
        mapping.MeasurementUnitsCodeSequence[0].CodeValue = "ml/min"
    (found,) = on_disk([ds], tmp_path)
    with pytest.raises(Rejected, match="'ml/min'"):
        maps.read(found, [], captures.Styles())


def named(**elements: object) -> Series:
    """What a head CT is, with other elements."""
    head = phantom.head()
    for ds in head:
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
    return series.classify(tuple((Path(), ds) for ds in head), Rules())


def test_what_a_series_is():
    assert named().role == "ncct"
    assert "contrast" in named(ContrastBolusAgent="IODINE").why
    assert "localizer" in named(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]).why
    assert "derived" in named(ImageType=["DERIVED", "SECONDARY", "AXIAL"]).why
    assert "Synthetic" in named(SyntheticData="YES").why
    assert "head" in named(BodyPartExamined="CHEST").why
    assert (named(SeriesDescription="rCBF map").role, named(SeriesDescription="rCBF map").kind) == ("map", "CBF")
    assert named(SeriesDescription="T-max (s)").kind == "Tmax"
    assert "at once" in named(SeriesDescription="Summary CBF CBV MTT").why
    assert named(ImagePositionPatient=[0, 0, 0]).role == "ctp"
    assert series.is_bone(named(ConvolutionKernel=["Hr69h", "3"])) and series.is_bone(
        named(SeriesDescription="Head bone")
    )
    assert not series.is_bone(named(ConvolutionKernel=["Hr40s", "3"])) and not series.is_bone(named())


def test_what_a_node_synthesised_teaches_nothing_even_where_virtual_patients_do():
    purpose, maker, ds = Dataset(), Dataset(), phantom.head()[0]
    purpose.CodeValue = series.SYNTHESIZING
    maker.PurposeOfReferenceCodeSequence = [purpose]
    ds.ContributingEquipmentSequence = [maker]
    assert "synthesised" in series.classify(((Path(), ds),), VIRTUAL).why


def test_a_volume_is_looked_up_at_points_of_the_patient():
    """A linear field comes back exactly, through a tilt; outside, and among pixels without data, there is none."""
    head = volume.from_slices(phantom.head(tilt_degrees=15.0, matrix=64, noise=0.0))
    rows, columns = np.indices(head.hu.shape[1:])
    steps = rows[..., None] * head.column_direction + columns[..., None] * head.row_direction
    places = head.positions[:, None, None] + steps * head.pixel_spacing[0]
    gradient = np.array([0.3, -0.2, 0.5])
    head.hu[:] = places @ gradient
    points = np.random.default_rng(4).uniform(-40, 40, (500, 3))
    assert np.allclose(lattice.sample(head, points), points @ gradient, atol=1e-3)
    assert np.isnan(lattice.sample(head, np.array([[0.0, 0.0, 500.0], [500.0, 0.0, 0.0]]))).all()
    head.hu[places[..., 0] > 0] = np.nan
    sampled = np.isfinite(lattice.sample(head, points))
    assert sampled[points[:, 0] < -4].all() and not sampled[points[:, 0] > 4].any()
