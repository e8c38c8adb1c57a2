"""dicomnode.selftest.checks: maps that are turned, moved, unmarked or impossible do not pass."""

from copy import deepcopy

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from dicomnode.selftest.checks import Check, Truth, of_objects
from tests import phantom

TRUTH = Truth("left", (45.0, 0.0, 0.0))
SLICES = 12


@pytest.fixture(scope="module")
def sent() -> list[Dataset]:
    return phantom.head(phantom.even(SLICES), matrix=32)


def parametric_map(sent: list[Dataset], mark: tuple[float, float, float]) -> Dataset:
    """Tmax of 10 s within 20 mm of a point, else 1 s, as the node writes it."""
    first = sent[0]
    across, down = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    step = float(first.PixelSpacing[0])
    corners = np.array([ds.ImagePositionPatient for ds in sent], float)
    grid = np.arange(32) * step
    places = corners[:, None, None] + grid[None, :, None, None] * down + grid[None, None, :, None] * across
    near = np.linalg.norm(places - np.array(mark), axis=-1) < 20
    ds, shared = Dataset(), Dataset()
    ds.SOPClassUID, ds.StudyInstanceUID = ParametricMapStorage, first.StudyInstanceUID
    ds.SeriesDescription, ds.SyntheticData = "SYNTHETIC Tmax 0-12 s sim-trained (NCCT-AI)", "YES"
    ds.Rows = ds.Columns = 32
    ds.NumberOfFrames = len(sent)
    ds.FloatPixelData = (np.where(near, 10.0, 1.0) / 12.0).astype("<f4").tobytes()
    orientation, measures, mapping = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 12.0, 0.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.RealWorldValueMappingSequence = [mapping]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for each in sent:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = each.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    equipment, purpose = Dataset(), Dataset()
    purpose.CodeValue = "109100"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    ds.ContributingEquipmentSequence = [equipment]
    return ds


def failed(sent: list[Dataset], *received: Dataset) -> set[str]:
    """What does not pass besides the captures, which are not there."""
    found: list[Check] = list(of_objects(sent, received, ("Tmax",), TRUTH))
    return {check.what for check in found if not check.passed and "aptures" not in check.what}


def test_a_true_map_passes(sent):
    assert failed(sent, parametric_map(sent, (45.0, 0.0, 0.0))) == set()


def test_left_for_right_does_not_pass(sent):
    assert failed(sent, parametric_map(sent, (-45.0, 0.0, 0.0))) == {"Left and right: centre of Tmax above 6 s"}


def test_a_map_without_a_late_region_does_not_pass(sent):
    assert failed(sent, parametric_map(sent, (900.0, 0.0, 0.0))) == {
        "Left and right: centre of Tmax above 6 s",
        "Tmax: values",
    }


def test_a_moved_map_does_not_pass(sent):
    moved = parametric_map(sent, (45.0, 0.0, 0.0))
    for frame in moved.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        x, y, z = map(float, place.ImagePositionPatient)
        place.ImagePositionPatient = [x, y, z + 1.0]
    assert failed(sent, moved) == {f"Tmax: {SLICES} frames lie on the source slices"}


def spoil(ds: Dataset, what: str) -> None:
    if what == "mark":
        ds.SyntheticData = "NO"
    if what == "description":
        ds.SeriesDescription = "Tmax"
    if what == "equipment":
        del ds.ContributingEquipmentSequence
    if what == "study":
        ds.StudyInstanceUID = "1.2.3"
    if what == "values":
        numbers = np.frombuffer(ds.FloatPixelData, "<f4").copy()
        numbers[0] = np.nan
        ds.FloatPixelData = numbers.tobytes()


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("mark", "Synthetic Data (0008,001C) YES"),
        ("description", "Series Description begins with SYNTHETIC"),
        ("equipment", "Contributing Equipment names the synthesizing equipment"),
        ("study", "Study Instance UID is that of the source"),
        ("values", "Tmax: values"),
    ],
)
def test_an_object_that_lacks_what_it_must_have_does_not_pass(sent, what, named):
    spoilt = deepcopy(parametric_map(sent, (45.0, 0.0, 0.0)))
    spoil(spoilt, what)
    assert failed(sent, spoilt) == {named}


def test_nothing_received_does_not_pass(sent):
    assert "Parametric maps" in failed(sent)
