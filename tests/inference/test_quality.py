"""Which heads are accepted: the image decides, no text does."""

from dataclasses import replace

import numpy as np
import pytest

from inference import preprocess, quality
from inference.quality import judge
from inference.refusal import Refused
from inference.volume import from_slices
from tests import phantom
from tests.inference.conftest import repaint
from training import spoiled

TEXT = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
NEEDED = {"Modality", "PhotometricInterpretation"}  # without these it is no CT image at all


CODES = {"", "no-rescale", "phantom", "not-head", "partial-brain", "contrast", "metal", "motion", "bone-kernel"}


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
        assert check.code in CODES
        assert "{" not in check.sentence.format(value=1.0)
        assert (check.sentence[0].isupper() and check.sentence.endswith(".")) == (check.code == "")


def test_volume_and_height_are_those_of_the_head():
    volume = from_slices(phantom.head(z=phantom.even(33, 5.0, -75.0)))
    findings = quality.measure(volume, preprocess.prepare(volume))
    assert findings.brain == pytest.approx(4 / 3 * np.pi * 0.72 * 0.88 * 0.74, rel=0.03)
    assert findings.height == pytest.approx(148, abs=6)
    assert findings.median == pytest.approx(30, abs=1)
    assert findings.skull > 0.95


def verdict(head) -> str:
    """The code of the refusal, else the warnings."""
    try:
        return " ".join(judge(head, preprocess.prepare(head)))
    except Refused as refusal:
        return f"{refusal.code}: {refusal.sentence}"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("contrast in the vessels, no tag", "contrast: "),
        pytest.param("bone kernel", "bone-kernel: ", marks=pytest.mark.slow),
        ("noise of 20 HU more", "The noise is high"),
        pytest.param("half a head", "The bottom of the brain lies outside", marks=pytest.mark.slow),
        ("field of view cuts a quarter off", "partial-brain: the field of view"),
        ("metal, streaks of 100 HU", "Metal lies in or near the brain."),
        pytest.param("4 mm of motion", "The head moved 4 mm", marks=pytest.mark.slow),
        ("12 mm of motion", "motion: the head moves 12 mm"),
        ("40 HU too high", "no-rescale: the values are 39 HU too high"),
        pytest.param("100 HU too high", "no-rescale: the values are 99 HU too high", marks=pytest.mark.slow),
        ("intercept forgotten", "no-rescale: air measures"),
        pytest.param("slope halved", "no-rescale: air measures", marks=pytest.mark.slow),
    ],
)
def test_what_spoils_the_real_head_is_named(ge_head, how, said):
    assert said in verdict(spoiled.SPOILED[how](from_slices(ge_head)))


@pytest.mark.slow
def test_contrast_is_seen_through_another_geometry(ge_head):
    head = spoiled.with_contrast(spoiled.thicker(from_slices(ge_head), 2))
    assert verdict(head).startswith("contrast: ")


def test_calcium_in_one_place_is_no_contrast(ge_head):
    """Basal ganglia, both sides, over 20 mm: more than nearly all heads have."""
    head = from_slices(ge_head)
    hu = head.hu.copy()
    for side in (190, 300):
        hu[12:16, 235:255, side : side + 14] = 160.0
    assert verdict(replace(head, hu=hu)).startswith("Dense over ")


def test_a_brain_that_breaks_off_within_the_series_is_partial():
    slices = phantom.head(z=phantom.even(33, 5.0, -75.0))
    for ds in slices[:12]:
        repaint([ds], lambda hu: np.full(hu.shape, -1000.0))
    found = refusal(slices)
    assert (found.code, "breaks off" in found.sentence) == ("partial-brain", True)


def test_air_in_the_brain_warns_and_much_of_it_refuses():
    for share, said in ((0.04, "Air, fat or streaks lie in the brain."), (0.35, "metal: streaks or air hide")):
        rng = np.random.default_rng(0)
        holes = lambda hu, share=share, rng=rng: np.where(  # noqa: E731
            (distance(hu) < 16) & (rng.random(hu.shape) < share), -300.0, hu
        )
        assert said in verdict(from_slices(repaint(phantom.head(z=phantom.even(33, 5.0, -75.0)), holes)))


def test_slices_far_apart_warn():
    warnings = judged(phantom.head(z=phantom.even(14, 11.0, -75.0), thickness=11.0))
    assert "Slices lie 11 mm apart; there are no maps between them." in warnings
