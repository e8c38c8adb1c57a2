"""dicomnode.eligibility: refused with a code and a sentence, or not at all."""

import dataclasses
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode import MODEL_NAME, config, eligibility, places
from dicomnode.config import Settings
from inference import weights
from inference.refusal import Refused
from tests import phantom

SETTINGS = config.parse({})


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(20), matrix=16)


def changed(head, **elements) -> list[Dataset]:
    """The series with these elements in every header; None removes one."""
    series = deepcopy(head)
    for ds in series:
        for keyword, value in elements.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
    return series


def maker(model: str) -> list[Dataset]:
    item = Dataset()
    item.ManufacturerModelName = model
    return [item]


def code_of(headers, settings: Settings = SETTINGS) -> str:
    with pytest.raises(Refused) as refused:
        eligibility.judge_at_once(headers, settings)
    assert refused.value.sentence[0].islower() or refused.value.sentence[0].isupper()
    assert len(refused.value.sentence) > 15
    return refused.value.code


def test_a_plain_head_ct_is_eligible(head):
    eligibility.judge_at_once(head, SETTINGS)
    assert eligibility.judge_whole(head, ()) == ()


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "unsupported-class"),
        ({"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT"}, "unsupported-class"),
        ({"SOPClassUID": EnhancedMRImageStorage, "Modality": "MR"}, "no-route"),
        ({"SOPClassUID": MRImageStorage, "Modality": "MR"}, "no-route"),
        ({"Modality": "PT"}, "wrong-modality"),
        ({"Modality": None}, "wrong-modality"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived"),
        ({"ContrastBolusAgent": "Iomeprol"}, "contrast"),
        ({"BodyPartExamined": "CHEST"}, "not-head"),
        ({"PatientAge": "017Y"}, "paediatric"),
        ({"PatientAge": "009M"}, "paediatric"),
        ({"PatientAge": None, "PatientBirthDate": "20080303"}, "paediatric"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "DOSE_INFO"]}, "derived"),
        ({"ContrastBolusAgentSequence": maker("an agent")}, "contrast"),
        ({"SeriesDescription": "Head CTA 0.75"}, "contrast"),
        ({"SeriesDescription": "Kopf mit KM"}, "contrast"),
        ({"SeriesDescription": "CT Perfusion 4D"}, "no-route"),
        ({"NumberOfTemporalPositions": 20}, "no-route"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "oblique"),
        ({"ConvolutionKernel": "H60s"}, "bone-kernel"),
        ({"ConvolutionKernel": ["Hr69h", "3"]}, "bone-kernel"),
        ({"PatientID": None}, "patient-conflict"),
        ({"PatientID": " "}, "patient-conflict"),
        ({"SyntheticData": "YES"}, "simulated-input"),
        ({"ContributingEquipmentSequence": maker(MODEL_NAME), "SyntheticData": "YES"}, "own-object"),
    ],
)
def test_what_a_header_says_is_refused_by_its_code(head, elements, code):
    assert code_of(changed(head, **elements)) == code


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientAge": "018Y"},
        {"PatientAge": None, "PatientBirthDate": "20080302"},
        {"SeriesDescription": "Head without contrast"},
        {"SeriesDescription": "Head non-contrast enhanced 5 mm"},
        {"SeriesDescription": "Octant"},
        {"ConvolutionKernel": "in-house"},
        {"PatientAge": ""},
        {"PatientAge": "old"},
        {"BodyPartExamined": "BRAIN"},
        {"BodyPartExamined": ""},
        {"ContrastBolusAgent": ""},
        {"ImageType": None},
        {"SyntheticData": "NO"},
        {"ContributingEquipmentSequence": maker("Other model")},
    ],
)
def test_what_a_header_leaves_open_is_not_a_refusal(head, elements):
    assert eligibility.judge_at_once(changed(head, **elements), SETTINGS) is None  # it would raise


def test_one_slice_with_contrast_is_enough(head):
    series = deepcopy(head)
    series[-1].ContrastBolusAgent = "Iomeprol"
    assert code_of(series) == "contrast"


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_two_patients_or_studies_in_one_series_are_a_conflict(head, keyword):
    series = deepcopy(head)
    setattr(series[-1], keyword, "1.2.3")
    assert code_of(series) == "patient-conflict"


def test_a_virtual_patient_is_used_where_the_settings_say_so(head):
    series = changed(head, SyntheticData="YES")
    assert code_of(series) == "simulated-input"
    assert eligibility.judge_at_once(series, config.parse({"node": {"accept_simulated": True}})) is None


def test_a_route_that_is_switched_off_takes_nothing(head):
    assert code_of(head, config.parse({"processing": {"routes": []}})) == "no-route"


def test_too_few_slices_are_counted_by_position(head):
    with pytest.raises(Refused) as refused:
        eligibility.judge_whole([*head[:6], head[0]], ())
    assert refused.value.code == "too-few-slices"
    assert refused.value.sentence == "the series holds 6 slices; at least 10 are needed"


def test_a_node_that_is_told_so_takes_images_of_nobody(head):
    nobody = config.parse({"node": {"accept_anonymous": True}})
    assert eligibility.judge_at_once(changed(head, PatientID=""), nobody) is None


def test_contrast_followed_through_time_is_a_perfusion_for_which_there_is_no_route(head):
    assert code_of(changed(head * 3, ContrastBolusAgent="Iomeprol")) == "no-route"


def test_slices_too_far_apart_leave_too_much_to_guess():
    for step, refused in ((10.0, False), (10.2, True)):
        head = phantom.head(phantom.even(12, step), matrix=8, thickness=10.0)
        if not refused:
            assert eligibility.judge_whole(head, ()) == ()
            continue
        with pytest.raises(Refused) as found:
            eligibility.judge_whole(head, ())
        assert (found.value.code, found.value.sentence) == (
            "gap",
            "the slices lie 10.2 mm apart; at most 10 mm are possible",
        )


def test_many_images_at_one_position_are_a_time_series(head):
    with pytest.raises(Refused) as refused:
        eligibility.judge_whole(head * 3, ())
    assert refused.value.code == "perfusion-series"


def test_slices_without_a_position_are_none(head):
    with pytest.raises(Refused) as refused:
        eligibility.judge_whole(changed(head, ImagePositionPatient=None), ())
    assert refused.value.code == "too-few-slices"
    assert places.slices(changed(head, ImageOrientationPatient=None)) == []


def test_one_gap_warns_and_two_refuse(head):
    (warning,) = eligibility.judge_whole(head, [(10.0, 20.0)])
    assert warning.startswith("INCOMPLETE SERIES")
    assert "10.0 and 20.0 mm" in warning
    with pytest.raises(Refused) as refused:
        eligibility.judge_whole(head, [(10.0, 20.0), (40.0, 50.0)])
    assert refused.value.code == "gap"
    assert "2 places" in refused.value.sentence


def test_offsets_follow_the_normal_whatever_the_tilt():
    tilted = phantom.head(phantom.even(12), matrix=8, tilt_degrees=20.0)
    placed = places.slices(tilted)
    steps = [above.offset - below.offset for below, above in pairwise(placed)]
    assert steps == pytest.approx([5.0 * np.cos(np.radians(20.0))] * 11)
    assert all(s.thickness == 5.0 for s in placed)


def test_clinical_use_refuses_weights_without_an_acceptance_record():
    manifest = weights.read(weights.shipped())
    eligibility.judge_weights(manifest, SETTINGS)
    clinical = config.parse({"node": {"intended_use": "clinical"}})
    with pytest.raises(Refused) as refused:
        eligibility.judge_weights(dataclasses.replace(manifest, training_domain="clinical"), clinical)
    assert refused.value.code == "weights-locked"
