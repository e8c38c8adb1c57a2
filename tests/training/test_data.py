"""Cohorts as samples: nobody in two splits, one motion for all images, the same order for the same seed."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.maps import KINDS
from tests.training import cohorts
from training import augment, data
from training.augment import Motion
from training.data import CohortError, Patient, Slices

NAMES = tuple(KINDS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return cohorts.write(tmp_path_factory.mktemp("cohort"), range(6), slices=3)


def people(count: int, split: str = "train", classes: str = "none") -> list[Patient]:
    return [Patient(f"P{i}", None, split, classes, Path("absent"), 8.0, {}) for i in range(count)]


def spoiled(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    line = {**cohorts.line(3), **changes}
    (folder / "manifest.jsonl").write_text(json.dumps({k: v for k, v in line.items() if v is not ...}))
    return folder


def test_a_manifest_becomes_patients_with_their_facts(cohort):
    patients = data.read_cohort(cohort)
    assert [patient.patient_id for patient in patients] == [f"VSIM-{seed}" for seed in range(6)]
    assert patients[1].severity == "mild"
    assert patients[1].facts == {"vessel": "M1"}
    assert data.slices_of(patients[0]) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class": ...}, "lacks class"),
        ({"split": "exam"}, "split 'exam'; a split is one of train, validation, test, external"),
        ({"split": "test"}, "VSIM-3 is in test, but seed 3 belongs to train"),
        ({"seed": 2_000_000}, "VSIM-3 is in train, but seed 2000000 belongs to test"),
    ],
)
def test_a_wrong_line_is_refused_in_words(tmp_path, changes, words):
    with pytest.raises(CohortError, match=words):
        data.read_cohort(spoiled(tmp_path, **changes))


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(CohortError, match=r"has no manifest\.jsonl"):
        data.read_cohort(tmp_path)


def test_a_real_patient_has_no_seed(tmp_path):
    assert data.read_cohort(spoiled(tmp_path, seed=None))[0].seed is None


def test_a_patient_who_stands_twice_in_a_manifest_is_refused_by_name(tmp_path):
    manifest = spoiled(tmp_path) / "manifest.jsonl"
    manifest.write_text("\n".join([manifest.read_text()] * 2))
    with pytest.raises(CohortError, match="VSIM-3 in line 1 and line 2"):
        data.read_cohort(tmp_path)


def test_a_patient_in_two_groups_is_refused_by_name():
    everyone = people(5)
    with pytest.raises(CohortError, match="P2 in training and validation; P3 in training and validation"):
        data.refuse_overlap({"training": everyone[:4], "validation": everyone[2:4]})


def test_841_patients_are_split_into_673_and_168():
    kept, held = data.hold_out(people(841), 0.2, seed=0)
    assert (len(kept), len(held)) == (673, 168)
    assert not {patient.patient_id for patient in kept} & {patient.patient_id for patient in held}


def test_every_class_is_held_out_in_proportion():
    patients = [Patient(f"P{i}", None, "train", "none" if i < 60 else "severe", Path(), 8.0, {}) for i in range(100)]
    _, held = data.hold_out(patients, 0.1, seed=3)
    assert Counter(patient.severity for patient in held) == {"none": 6, "severe": 4}


def test_a_tenth_of_the_training_patients_validates_and_nobody_of_the_test():
    patients = [*people(40), *[Patient("T", None, "test", "none", Path(), 8.0, {})]]
    training, validation = data.divide(patients)
    assert (len(training), len(validation)) == (36, 4)
    assert "T" not in {patient.patient_id for patient in [*training, *validation]}
    assert data.divide(patients) == (training, validation)
    assert data.divide(patients, seed=1) != (training, validation)


def test_validation_patients_of_the_cohort_are_used_where_it_has_them():
    own = Patient("V", None, "validation", "none", Path(), 8.0, {})
    training, validation = data.divide([*people(10), own])
    assert (len(training), validation) == (10, [own])


def test_a_division_without_anybody_to_validate_is_refused():
    with pytest.raises(CohortError, match="3 patients to train on and 0 to validate with"):
        data.divide(people(3), share=0.1)


def test_a_sample_is_in_the_range_of_the_generator_and_in_the_order_asked_for(cohort):
    slices = Slices(data.read_cohort(cohort), ("Tmax", "CBF"), seed=None)
    stored = cohorts.arrays(1, 3, "mild")
    sample = slices[4]  # patient 1, slice 1
    assert sample.planes.shape == (3, 256, 256) and sample.planes.dtype == torch.float32
    assert sample.mask.shape == (1, 256, 256) and sample.mask.dtype == torch.bool
    expected = KINDS["Tmax"].normalise(stored["maps"][1, NAMES.index("Tmax")].astype(np.float32))
    np.testing.assert_array_equal(sample.maps[0], expected)
    assert len(slices) == 18


def test_a_map_that_a_file_lacks_is_named(tmp_path):
    patients = data.read_cohort(cohorts.write(tmp_path, [0], kinds=("CBF", "Tmax")))
    with pytest.raises(CohortError, match=r"0\.npz has no MTT; it has CBF, Tmax"):
        data.read_arrays(patients[0], ("CBF", "MTT"))


def test_the_cache_reads_each_file_once_in_an_epoch(cohort, monkeypatch):
    slices, read = Slices(data.read_cohort(cohort), NAMES, seed=None, cache=2), []
    monkeypatch.setattr(data, "read_arrays", lambda patient, kinds: read.append(patient) or cached[patient.patient_id])
    cached = {
        f"VSIM-{s}": data.Arrays(*(cohorts.arrays(s, 3, "none")[n] for n in ("planes", "maps", "mask")), 4.0)
        for s in range(6)
    }
    for index in data.order(slices, seed=0, epoch=0, block=2):
        slices[index]
    assert len(read) == 6


def test_an_epoch_holds_every_slice_once_and_the_next_one_in_another_order(cohort):
    slices = Slices(data.read_cohort(cohort), NAMES, seed=None)
    first, second = (data.order(slices, seed=0, epoch=epoch, block=2) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(18))
    assert first != second
    assert first == data.order(slices, seed=0, epoch=0, block=2)


def test_balanced_order_shows_every_class_as_often(tmp_path):
    patients = data.read_cohort(
        cohorts.write(tmp_path, [0, 3, 6, 9, 1, 2], slices=1)
    )  # four none, one mild, one severe
    slices = Slices(patients, NAMES, seed=None)
    indices = data.order(slices, 0, 0, balanced=True)
    assert Counter(slices.patients[index % 6].severity for index in indices) == {"none": 4, "mild": 4, "severe": 4}
    assert len(set(indices)) == 12  # repeated slices are augmented anew


def test_validation_is_not_augmented_and_training_is(cohort):
    patients = data.read_cohort(cohort)
    plain, moved = Slices(patients, NAMES, seed=None), Slices(patients, NAMES, seed=0)
    assert torch.equal(plain[2 + len(plain)].planes, plain[2].planes)
    assert torch.equal(plain[2].planes, torch.from_numpy(data.read_arrays(patients[0], NAMES).planes[2]).float())
    assert not torch.equal(moved[2].planes, plain[2].planes)


def test_augmentation_depends_on_seed_epoch_and_index_alone(cohort):
    patients = data.read_cohort(cohort)
    slices, again = Slices(patients, NAMES, seed=5), Slices(patients, NAMES, seed=5)
    first = slices[7]
    slices[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again[7], strict=True))
    again.epoch = 1
    assert not torch.equal(first.planes, again[7].planes)


def test_motions_lie_in_the_ranges_of_the_paper():
    motions = [augment.draw(0, 0, index) for index in range(2000)]
    for values, most in (
        ([m.degrees for m in motions], 10),
        ([m.rows for m in motions], 30),
        ([m.columns for m in motions], 30),
    ):
        assert -most <= min(values) < -0.98 * most and 0.98 * most < max(values) <= most
    assert 0.45 < np.mean([m.mirrored for m in motions]) < 0.55


def blob(row: float, column: float, side: int = 64) -> torch.Tensor:
    """Smooth, so that its centre of mass can be found to a tenth of a pixel."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18.0)


def centre(image: torch.Tensor) -> tuple[float, float]:
    weight = image + 1
    rows, columns = torch.meshgrid(torch.arange(len(image)), torch.arange(len(image)), indexing="ij")
    return float((weight * rows).sum() / weight.sum()), float((weight * columns).sum() / weight.sum())


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        (Motion(True, 0, 0, 0), (25.5, 63 - 40.5)),
        (Motion(False, 0, 5, -7), (30.5, 33.5)),
        (Motion(True, 0, 5, -7), (30.5, 63 - 40.5 - 7)),
        (Motion(False, 90, 0, 0), (31.5 + 9, 31.5 + 6)),  # clockwise: above and right of the middle to right and below
    ],
)
def test_a_head_goes_where_the_motion_says(motion, expected):
    image = blob(25.5, 40.5) * 2 - 1
    moved, _ = augment.move(image[None], torch.ones(64, 64, dtype=torch.bool), motion)
    assert centre(moved[0]) == pytest.approx(expected, abs=0.1)


def test_planes_maps_and_mask_move_together_and_keep_their_order():
    """Every channel is a known multiple of one image; after the motion it still is, pixel by pixel."""
    rows, columns = np.mgrid[:256, :256]
    mask = torch.from_numpy(((rows - 128) / 90.0) ** 2 + ((columns - 120) / 70.0) ** 2 < 1)
    image = blob(100, 140, 256) + 0.2
    shares = torch.linspace(0.1, 0.8, 8)
    channels = torch.where(mask, shares[:, None, None] * image, 0.0) - 1
    sample = data.Sample(channels[:3], channels[3:], mask[None])
    moved = data.augmented(sample, Motion(True, 7.0, 12.3, -20.1))
    out = torch.cat([moved.planes, moved.maps]) + 1
    inside = moved.mask[0]
    torch.testing.assert_close(
        out[:, inside] / out[-1, inside], (shares / shares[-1])[:, None].expand(-1, int(inside.sum()))
    )
    assert (out[:, ~inside] == 0).all()
    assert abs(int(inside.sum()) / int(mask.sum()) - 1) < 0.005


def test_the_rim_of_the_brain_is_not_mixed_with_background():
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 15:50] = True
    image = torch.where(mask, 0.4, -1.0)
    moved, inside = augment.move(image[None], mask, Motion(False, 6.0, 0.5, 0.3))
    assert (moved[0][inside] - 0.4).abs().max() < 1e-5


def test_the_digest_knows_the_files_and_not_their_order(tmp_path):
    patients = data.read_cohort(cohorts.write(tmp_path, [0, 1], slices=1))
    before = data.digest(patients)
    assert before == data.digest(reversed(patients))
    np.savez_compressed(patients[0].path, **cohorts.arrays(9, 1, "none"))
    assert data.digest(patients) != before


def test_a_stranger_is_anybody_else_and_the_same_for_the_same_seed():
    drawn = [data.stranger(2, 5, [7, index]) for index in range(400)]
    assert set(drawn) == {0, 1, 3, 4}
    assert min(Counter(drawn).values()) > 60
    assert drawn == [data.stranger(2, 5, [7, index]) for index in range(400)]
    assert data.stranger(0, 2, [1]) == 1


def test_a_shuffled_slice_keeps_its_ct_and_brain_and_has_the_maps_of_another(cohort):
    patients = data.read_cohort(cohort)
    plain, shuffled = (Slices(patients, NAMES, None, shuffled=choice) for choice in (False, True))
    for index in range(len(plain)):
        which = index // 3  # three slices a patient
        partner = data.stranger(which, len(patients), [0, 0, index])
        own, other, mixed = plain[index], plain[plain.first(partner) + index % 3], shuffled[index]
        assert torch.equal(mixed.planes, own.planes) and torch.equal(mixed.mask, own.mask)
        both = (own.mask & other.mask)[0]
        assert torch.equal(mixed.maps[:, both], other.maps[:, both])
        assert (mixed.maps[:, ~own.mask[0]] == -1.0).all()


def test_strangers_change_with_the_epoch(cohort):
    shuffled = Slices(data.read_cohort(cohort), NAMES, None, shuffled=True)
    before = [shuffled[index].maps for index in range(len(shuffled))]
    shuffled.epoch = 1
    assert not all(torch.equal(shuffled[index].maps, maps) for index, maps in enumerate(before))
