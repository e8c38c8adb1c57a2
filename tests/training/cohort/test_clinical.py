"""training.cohort.clinical: studies on disk become a cohort that training reads, and every other study a reason."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from inference import preprocess, volume
from inference.maps import KINDS
from inference.preprocess import SPACING
from tests import phantom
from tests.training.simulate.conftest import small_grid
from training import data, prepare
from training.__main__ import app
from training.cohort import clinical
from training.cohort.clinical import Desk, Order
from training.simulate import dicom_out
from training.simulate.dynamic import Protocol

MOVED = np.array([6.0, -5.0, 4.0])  # mm by which the head CT of the first virtual patient lies elsewhere


def phantom_study(patient: str = "PHANTOM-1", *, position: str = "HFS", hours: float = 0.0) -> list[Dataset]:
    """A head CT of the asymmetric phantom and its maps as CT, on other slices; every map is the CT in its own unit."""
    study = generate_uid(entropy_srcs=[patient, str(hours)])
    head = phantom.head(thickness=5.0, noise=0.0)
    made = []
    for number, kind in enumerate(KINDS.values()):
        uid = generate_uid(entropy_srcs=[patient, kind.name, str(hours)])
        plane = phantom.head(phantom.even(16, 8.0, -60.0), patient_position=position, tilt_degrees=9.0, noise=0.0)
        for ds in plane:
            hu = ds.pixel_array + ds.RescaleIntercept
            phantom.set_pixels(ds, np.where((hu > 0) & (hu < 80), hu, 0), (1.0, 0.0))
            ds.RescaleSlope, ds.ImageType = kind.ceiling / 80.0, ["DERIVED", "PRIMARY", "AXIAL", kind.name.upper()]
            ds.SeriesInstanceUID, ds.SeriesNumber = uid, 500 + number
            ds.AcquisitionTime = f"{8 + int(hours):02d}4500"
        made += plane
    for ds in (*head, *made):
        ds.StudyInstanceUID, ds.PatientID = study, patient
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return head + made


def write(datasets: Sequence[Dataset], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(datasets):
        ds.save_as(folder / f"{number}", enforce_file_format=True)  # no suffix, as from most media
    return folder


@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_left_stays_left_and_maps_lie_on_their_anatomy(tmp_path: Path, position: str):
    """The phantom's dense mark lies high on its left, the dark one low on its right; maps are stored otherwise."""
    write(phantom_study(position=position), tmp_path / "studies")
    (verdict,) = clinical.collect(tmp_path / "studies", tmp_path / "out", Order(slices=0))
    assert verdict.why == ""
    (patient,) = data.read_cohort(tmp_path / "out")
    arrays = data.read_arrays(patient, ["CBF"])
    grid = patient.facts["grid"]
    for mark in (phantom.MARKS[0], phantom.MARKS[1]):
        x, y, z = np.array(grid["axes"]) @ np.array(mark.centre)
        s = int(np.abs(np.array(grid["heights"]) - z).argmin())
        column, row = np.rint((np.array([x, y]) - grid["origin"]) / SPACING).astype(int)
        assert arrays.maps[s, 0, row, column] == pytest.approx(mark.hu / 80 * KINDS["CBF"].ceiling, abs=2.0)
        assert (arrays.planes[s, 1, row, column] + 1) * 40 == pytest.approx(mark.hu, abs=2.0)
        assert (column > 127) == (mark.name.startswith("left"))
    from_ct = (arrays.planes[:, 1].astype(np.float32) + 1) / 2 * KINDS["CBF"].ceiling
    inside = arrays.mask & (arrays.maps[:, 0] > 0)
    assert np.median(np.abs(from_ct - arrays.maps[:, 0])[inside]) < 1.0
    assert "not registered" in verdict.notes[-1]


def test_what_is_written_names_nobody_and_the_report_names_every_study(tmp_path: Path):
    far, twice = phantom_study("FAR-2", hours=9.0), phantom_study("PHANTOM-1", hours=1.0)
    only_head = [ds for ds in phantom_study("HEAD-3") if ds.SeriesNumber == 2]
    folder = write([*phantom_study(), *far, *twice, *only_head], tmp_path / "studies")
    (folder / "notes.txt").write_text("no instance")
    verdicts = clinical.collect(folder, tmp_path / "out", Order())
    why = {one.study_instance_uid: one.why for one in verdicts}
    assert sorted(why.values()) == [
        "",
        "another study of this patient is used already",
        "head CT and maps lie more than 3 h apart, or do not say when they were made",
        "no map of CBF, CBV, MTT, TTP, Tmax was found",
    ]
    report = (tmp_path / "out-private" / "report.md").read_text()
    assert all(study in report and reason in report for study, reason in why.items())
    assert "4 studies: 1 used, 3 rejected; 1 files are no instances." in report
    assert stat.S_IMODE((tmp_path / "out-private").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "out-private" / "salt").stat().st_mode) == 0o600
    (patient,) = data.read_cohort(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([patient.path.name, "manifest.jsonl"])
    line = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert not re.search(r"PHANTOM|Asymmetric|1960|2026|\d+\.\d+\.\d+", line)
    assert (tmp_path / "out-private" / f"{patient.patient_id}.png").exists()


def test_a_site_finds_the_same_person_under_the_same_name_and_another_site_does_not(tmp_path: Path):
    here, again, there = (
        Desk(tmp_path, tmp_path, clinical.salt(tmp_path / name), Order()) for name in ("salt", "salt", "other")
    )
    assert here.pseudonym("A1") == again.pseudonym("A1") != there.pseudonym("A1")
    assert here.pseudonym("A1") != here.pseudonym("A2")


def test_a_class_that_the_site_states_goes_before_that_of_the_maps(tmp_path: Path):
    write(phantom_study(), tmp_path / "studies")
    (tmp_path / "classes.csv").write_text("patient_id,class\nPHANTOM-1,mild\n")
    order = Order(kinds=("CBF",), classes=clinical.read_classes(tmp_path / "classes.csv"))
    clinical.collect(tmp_path / "studies", tmp_path / "out", order)
    (patient,) = data.read_cohort(tmp_path / "out")
    assert patient.severity == "mild"
    (verdict,) = clinical.collect(tmp_path / "studies", tmp_path / "none", Order(kinds=("CBF",)))
    assert "--classes" in verdict.why
    (tmp_path / "classes.csv").write_text("patient_id,class\nPHANTOM-1,bad\n")
    with pytest.raises(ValueError, match="'bad'"):
        clinical.read_classes(tmp_path / "classes.csv")


def test_splits_follow_the_pseudonym_alone():
    splits = [clinical.split_of(f"P{number:020x}") for number in range(2000)]
    assert splits.count("test") == pytest.approx(400, abs=60)
    assert set(splits) == {"train", "test"}


def elsewhere(path: Path) -> None:
    ds = pydicom.dcmread(path)
    ds.ImagePositionPatient = [float(v) for v in np.array(ds.ImagePositionPatient) + MOVED]
    ds.save_as(path)


@pytest.mark.slow  # half a minute
def test_two_virtual_studies_become_a_cohort_that_training_reads(severe, normal, tmp_path: Path, monkeypatch):
    """Captures of one console with its perfusion scan, and parametric maps of another with the head CT alone.

    The first head CT says that it lies 9 mm from the perfusion; the maps must come to lie on it all the same.
    """
    grids = {"ge-like": small_grid(slices=22, first=-66.0), "philips-like": small_grid(12.0, slices=22, first=-66.0)}
    for patient, (vendor, grid) in zip((severe, normal), grids.items(), strict=True):
        what = ("ncct", "ctp", "maps") if vendor == "ge-like" else ("ncct", "maps")
        written = dicom_out.write(dicom_out.study(patient, grid, what, vendor, Protocol(frames=3)), tmp_path / vendor)
        if vendor == "ge-like":
            for path in written[: len(grid.heights)]:
                elsewhere(path)
    monkeypatch.setenv("COLUMNS", "200")
    command = ["clinical", str(tmp_path), str(tmp_path / "out"), "--simulated", "--slices", "0", "--processes", "1"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "2 of 2 studies" in said.output
    patients = {patient.severity: patient for patient in data.read_cohort(tmp_path / "out")}
    assert set(patients) == {"severe", "none"}
    stroke = patients["severe"].facts
    assert stroke["registration"]["shift_mm"] == pytest.approx(np.linalg.norm(MOVED), abs=1.0)
    assert patients["none"].facts["registration"] is None
    truth = severe.volumes.hypoperfused
    assert stroke["hypoperfused_ml"] == pytest.approx(truth, rel=0.15)
    check_maps(patients["severe"], severe.truth(grids["ge-like"]), tmp_path / "ge-like", step=1 / 255)
    check_maps(patients["none"], normal.truth(grids["philips-like"]), tmp_path / "philips-like", step=1e-3)
    samples = data.Slices(list(patients.values()), tuple(KINDS), seed=0)
    assert samples[0].maps.shape == (5, 256, 256)
    assert CliRunner().invoke(app, [*command[:2], str(tmp_path / "real"), "--processes", "1"]).exit_code == 1


def check_maps(patient: data.Patient, truth: dict[str, np.ndarray], folder: Path, step: float) -> None:
    """Against the way of training.prepare: the truth lies on the slices of the head CT, wherever its header puts it."""
    paths = sorted(folder.glob("002-*.dcm"))
    head = volume.from_slices([pydicom.dcmread(path) for path in paths])
    prepared = preprocess.prepare(head)
    kept = np.flatnonzero(np.isin(prepared.grid.heights.round(6), patient.facts["grid"]["heights"]))
    arrays = data.read_arrays(patient, tuple(KINDS))
    assert len(arrays.mask) == len(kept)
    assert not (arrays.mask & ~prepared.mask[kept]).any()
    assert np.array_equal(arrays.planes[:, 1][arrays.mask], prepared.planes[kept, 1].astype(np.float16)[arrays.mask])
    assert (arrays.planes[:, 0][~arrays.mask] == -1).all()
    for k, (name, values) in enumerate(truth.items()):
        kind = KINDS[name]
        direct = prepare.on_model_grid(values, head, prepared)[kept]
        both = arrays.mask & (direct > 0)
        assert both.sum() > 0.75 * (direct > 0).sum()
        off = np.abs(np.minimum(direct, kind.ceiling) - np.minimum(arrays.maps[:, k], kind.ceiling))[both]
        assert np.median(off) < (step + 0.04) * kind.ceiling, name
