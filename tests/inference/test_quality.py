"""Which heads are accepted: the image decides, no text does."""

import numpy as np
import pytest

from inference import preprocess, quality
from inference.quality import judge
from inference.refusal import Refused
from inference.volume import from_slices
from tests import phantom
from tests.inference.conftest import repaint

TEXT = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
NEEDED = {"Modality", "PhotometricInterpretation"}  # without these it is no CT image at all


def judged(slices):
    volume = from_slices(slices)
    return judge(volume, preprocess.prepare(volume))


def refusal(slices) -> Refused:
    with pytest.raises(Refused) as caught:
        judged(slices)
    return caught.value


def blanked(slices):
    for ds in slices:
        for element in list(ds.iterall()):
            if element.VR in TEXT and element.keyword not in NEEDED:
                element.value = None
    return slices


def test_a_head_with_vertex_and_base_in_view_is_accepted_without_a_warning(ge_head):
    assert judged(ge_head) == ()


def test_the_plastic_phantom_is_refused(plastic_head):
    found = refusal(plastic_head)
    assert found.code == "phantom"
    assert "air" in found.sentence


@pytest.mark.parametrize("offset", [-20.0, 5.0, 20.0])
def test_the_plastic_phantom_with_other_values_is_refused(plastic_head, offset):
    assert refusal(repaint(plastic_head, lambda hu: hu + offset)).code == "phantom"


def test_the_plastic_phantom_without_any_text_is_refused(plastic_head):
    assert refusal(repaint(blanked(plastic_head), lambda hu: hu + 5.0)).code == "phantom"


def test_the_real_head_renamed_plastic_is_accepted(ge_head):
    for ds in ge_head:
        ds.PatientName, ds.PatientID, ds.SeriesDescription = "PLASTIC^PHANTOM", "PHANTOM", "PLASTIC PHANTOM QA"
        ds.StudyDescription, ds.BodyPartExamined, ds.ProtocolName = "PHANTOM", "PHANTOM", "QA"
    assert judged(ge_head) == ()


def test_the_real_head_without_text_and_5_hu_brighter_is_accepted(ge_head):
    assert judged(repaint(blanked(ge_head), lambda hu: hu + 5.0)) == ()


def test_the_test_head_is_accepted():
    warnings = judged(phantom.head(z=phantom.even(33, 5.0, -75.0)))
    assert warnings == ("The brain with its fluid measures 1.92 litres, which is unusual.",)


def distance(hu: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(hu.shape)
    return np.hypot(rows - 63.5, columns - 63.5)


def test_a_skull_full_of_air_is_a_phantom():
    found = refusal(repaint(phantom.head(), lambda hu: np.where((hu > 0) & (hu < 100), -1000.0, hu)))
    assert (found.code, found.sentence) == ("phantom", "the skull holds 1.9 litres of air: this is a phantom")


def test_a_skull_full_of_one_grey_is_a_phantom():
    rng = np.random.default_rng(0)
    grey = lambda hu: np.where((hu > 0) & (hu < 100), 35 + 4 * rng.standard_normal(hu.shape), hu)  # noqa: E731
    found = refusal(repaint(phantom.head(), grey))
    assert (found.code, found.sentence) == ("phantom", "the inside of the skull is one uniform grey: this is a phantom")


def test_a_bottle_of_water_is_no_head():
    water = lambda hu: np.where(distance(hu) < 40, 0.0, np.where(distance(hu) < 43, 120.0, -1000.0))  # noqa: E731
    assert refusal(repaint(phantom.head(), water)).code in ("not-head", "phantom")


def test_a_belly_is_no_head():
    rng = np.random.default_rng(0)
    belly = lambda hu: np.where(  # noqa: E731
        distance(hu) < 35, 45 + 10 * rng.standard_normal(hu.shape), np.where(distance(hu) < 40, -100.0, -1000.0)
    )
    assert refusal(repaint(phantom.head(field_of_view=400.0), belly)).code == "not-head"


def test_soft_tissue_of_the_right_size_without_a_skull_is_no_head():
    found = refusal(repaint(phantom.head(), lambda hu: np.where(hu > 100, -100.0, hu)))
    assert (found.code, found.sentence) == ("not-head", "only 0% of what lies around the tissue is bone")


def test_air_alone_is_no_head():
    found = refusal(repaint(phantom.head(), lambda hu: np.full(hu.shape, -1000.0)))
    assert (found.code, found.sentence) == ("not-head", "no brain is found in the series")


@pytest.mark.parametrize(("offset", "accepted"), [(-22.0, False), (0.0, True), (12.0, True), (24.0, False)])
def test_tissue_far_from_the_density_of_brain_is_no_brain(offset, accepted):
    slices = repaint(phantom.head(noise=0.0), lambda hu: np.where((hu > 20) & (hu < 50), hu + offset, hu))
    if accepted:
        judged(slices)
    else:
        assert refusal(slices).code == "not-head"


def test_a_slab_of_brain_is_partial():
    found = refusal(phantom.head(z=phantom.even(11, 5.0, -20.0)))
    assert (found.code, found.sentence) == ("partial-brain", "the series shows 55 mm of brain; 60 mm are needed")


def test_a_brain_cut_at_both_ends_warns_of_both():
    warnings = judged(phantom.head(z=phantom.even(20, 5.0, -45.0)))
    assert "The top of the brain lies outside the series." in warnings
    assert "The bottom of the brain lies outside the series." in warnings


@pytest.mark.parametrize("position", ["HFS", "FFS"])
def test_top_is_the_patients_top_in_every_position(position):
    warnings = judged(phantom.head(z=phantom.even(25, 5.0, -75.0), patient_position=position))
    assert "The top of the brain lies outside the series." in warnings
    assert "The bottom of the brain lies outside the series." not in warnings


def test_few_slices_warn():
    warnings = judged(phantom.head(z=phantom.even(17, 10.0, -80.0)))
    assert "The series holds only 17 slices; there are no maps between them." in warnings


def test_every_sentence_of_the_table_can_be_said():
    for check in quality.CHECKS:
        assert check.code in ("", "phantom", "not-head", "partial-brain")
        assert "{" not in check.sentence.format(value=1.0)
        assert (check.sentence[0].isupper() and check.sentence.endswith(".")) == (check.code == "")


def test_volume_and_height_are_those_of_the_head():
    volume = from_slices(phantom.head(z=phantom.even(33, 5.0, -75.0)))
    findings = quality.measure(volume, preprocess.prepare(volume))
    assert findings.brain == pytest.approx(4 / 3 * np.pi * 0.72 * 0.88 * 0.74, rel=0.03)
    assert findings.height == pytest.approx(148, abs=6)
    assert findings.median == pytest.approx(30, abs=1)
    assert findings.skull > 0.95
