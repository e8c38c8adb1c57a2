"""A cohort on disk as training samples: read lazily, split by patient, augmented, always in the same order for a seed.

A cohort is a folder, whether simulated or prepared from a site's own studies:

manifest.jsonl holds one JSON object a line and patient, with at least
    patient_id   unique in everything that is used together;
    seed         of a virtual patient, in the range of its split (design.md contract 18); null for a real one;
    split        "train", "validation", "test" or "external";
    class        "none", "mild" or "severe" (models.md D13);
    file         the patient's arrays, beside the manifest;
    slice_mm     mm between neighbouring slices, for volumes;
    and whatever else is known (vessel, side, onset_h, ...), kept as `facts` for strata.
<file> is a compressed npz with
    planes  (slices, 3, 256, 256) float16 in [-1, 1], 4 mm below, the slice, 4 mm above (inference.preprocess);
    maps    (slices, K, 256, 256) float16 in the unit of each kind, 0 outside the mask;
    mask    (slices, 256, 256) bool, the brain;
    kinds   (K,) names of rows of inference.maps.KINDS.

Dimensions: S slices, B batch, C channels, K map kinds, Y X space.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from inference.maps import KINDS
from training import augment
from training.simulate.params import SPLITS, split_of

MANIFEST = "manifest.jsonl"
STREAM, PARTNERS = 1, 3  # keep the random numbers of the order and of `stranger` apart from those of augment
REQUIRED = ("patient_id", "seed", "split", "class", "file", "slice_mm")


class CohortError(Exception):
    """The cohort cannot be used; the message names the patient or file and what to do."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A line of the manifest. severity: its class; facts: the rest of the line."""

    patient_id: str
    seed: int | None
    split: str
    severity: str
    path: Path
    slice_mm: float
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """What the file of a patient holds, the maps in the order that was asked for.

    planes: (S, C, Y, X) float16 in [-1, 1]; maps: (S, K, Y, X) float16, physical; mask: (S, Y, X) bool.
    slice_mm: between neighbouring slices, where all of the patient's are there.
    """

    planes: np.ndarray
    maps: np.ndarray
    mask: np.ndarray
    slice_mm: float


class Sample(NamedTuple):
    """One slice, or with a first axis B a batch: planes and maps float32 in [-1, 1], mask (1, Y, X) bool."""

    planes: Tensor
    maps: Tensor
    mask: Tensor


def read_cohort(folder: Path) -> tuple[Patient, ...]:
    """The patients of a cohort, in the order of its manifest; every seed lies in the range of its split."""
    if not (folder / MANIFEST).is_file():
        raise CohortError(f"{folder} has no {MANIFEST}; name the folder of a cohort")
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    patients = tuple(_patient(folder, number, json.loads(line)) for number, line in enumerate(lines, start=1))
    refuse_overlap({f"line {number}": [patient] for number, patient in enumerate(patients, start=1)})
    return patients


def _patient(folder: Path, number: int, line: Mapping[str, Any]) -> Patient:
    if missing := [name for name in REQUIRED if name not in line]:
        raise CohortError(f"line {number} of {folder / MANIFEST} lacks {', '.join(missing)}; make the cohort again")
    patient_id, seed, split, severity, file, slice_mm = (line[name] for name in REQUIRED)
    if split not in SPLITS:
        raise CohortError(f"patient {patient_id} is in the split {split!r}; a split is one of {', '.join(SPLITS)}")
    if seed is not None and split_of(seed) != split:
        raise CohortError(f"patient {patient_id} is in {split}, but seed {seed} belongs to {split_of(seed)}")
    facts = {name: value for name, value in line.items() if name not in REQUIRED}
    return Patient(patient_id, seed, split, severity, folder / file, float(slice_mm), facts)


def refuse_overlap(groups: Mapping[str, Iterable[Patient]]) -> None:
    """Raise CohortError with the name of every patient who stands in more than one group, or twice in one."""
    places: dict[str, list[str]] = defaultdict(list)
    for group, patients in groups.items():
        for patient in patients:
            places[patient.patient_id].append(group)
    if twice := {patient_id: where for patient_id, where in places.items() if len(where) > 1}:
        named = "; ".join(f"{patient_id} in {' and '.join(where)}" for patient_id, where in sorted(twice.items()))
        raise CohortError(f"a patient may stand in one place only, found {named}")


def divide(patients: Sequence[Patient], share: float = 0.1, seed: int = 0) -> tuple[list[Patient], list[Patient]]:
    """Who is trained on and who validates: those of the split "validation", else a share of the split "train".

    Test and external patients are in neither.
    """
    training = [patient for patient in patients if patient.split == "train"]
    validation = [patient for patient in patients if patient.split == "validation"]
    if not validation:
        training, validation = hold_out(training, share, seed)
    refuse_overlap({"training": training, "validation": validation})
    if not training or not validation:
        raise CohortError(
            f"{len(training)} patients to train on and {len(validation)} to validate with; both need at least one"
        )
    return training, validation


def hold_out(patients: Sequence[Patient], share: float, seed: int) -> tuple[list[Patient], list[Patient]]:
    """Those kept and a share held out, every class in proportion (models.md D1, A21); 841 at 0.2 give 673 and 168."""
    drawn = np.random.default_rng(seed).permutation(len(patients))
    by_class = sorted(drawn.tolist(), key=lambda index: patients[index].severity)
    count = round(len(patients) * share)
    places = ((np.arange(count) + 0.5) * len(patients) / max(count, 1)).astype(int)
    held = {by_class[place] for place in places}
    return (
        [patient for index, patient in enumerate(patients) if index not in held],
        [patient for index, patient in enumerate(patients) if index in held],
    )


def digest(patients: Iterable[Patient]) -> str:
    """sha256 over the ids and the files of the patients, whatever their order."""
    whole = hashlib.sha256()
    for patient in sorted(patients, key=lambda patient: patient.patient_id):
        with patient.path.open("rb") as file:
            whole.update(f"{patient.patient_id} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def slices_of(patient: Patient) -> int:
    """How many slices a patient has, read from the head of the mask without unpacking it."""
    with ZipFile(patient.path) as archive, archive.open("mask.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, _ = np.lib.format.read_array_header_1_0(member)
    return int(shape[0])


def read_arrays(patient: Patient, kinds: Sequence[str]) -> Arrays:
    """The arrays of a patient, with the maps that are asked for in that order."""
    with np.load(patient.path, allow_pickle=False) as stored:
        present = stored["kinds"].tolist()
        if missing := [kind for kind in kinds if kind not in present]:
            raise CohortError(f"{patient.path} has no {', '.join(missing)}; it has {', '.join(present)}")
        chosen = [present.index(kind) for kind in kinds]
        return Arrays(stored["planes"], stored["maps"][:, chosen], stored["mask"], patient.slice_mm)


class Slices(Dataset[Sample]):
    """The slices of some patients as samples; `cache` patients are kept unpacked.

    Indices go on beyond the last slice: index + len is the same slice, differently augmented.
    seed: of the augmentation, which depends on it, on `epoch` (set it before each) and on the index; None for none,
    as in validation.
    shuffled: every slice comes with the maps of another patient, drawn anew each time; a control: what is learnt from
    it knows nothing of the CT. Strangers come from anywhere, so the cache should hold everybody.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        kinds: Sequence[str],
        seed: int | None,
        cache: int = 16,
        *,
        shuffled: bool = False,
    ) -> None:
        self.patients, self.kinds, self.seed, self.epoch = tuple(patients), tuple(kinds), seed, 0
        self.shuffled = shuffled
        self.ends = list(accumulate(slices_of(patient) for patient in patients))
        self._arrays = lru_cache(maxsize=cache)(self._read)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Sample:
        place = index % len(self)
        which = bisect_right(self.ends, place)
        arrays, s = self._arrays(which), place - self.first(which)
        if self.shuffled:
            partner = stranger(which, len(self.patients), [self.seed or 0, self.epoch, index])
            arrays = with_maps_of(arrays, self._arrays(partner))
        sample = to_sample(arrays, s, self.kinds)
        return sample if self.seed is None else augmented(sample, augment.draw(self.seed, self.epoch, index))

    def first(self, which: int) -> int:
        """The index of the first slice of a patient."""
        return self.ends[which - 1] if which else 0

    def _read(self, which: int) -> Arrays:
        return read_arrays(self.patients[which], self.kinds)


def stranger(which: int, count: int, seed: Sequence[int]) -> int:
    """Another one of so many patients, all equally likely; the same for the same seed."""
    random = np.random.default_rng(np.random.SeedSequence([*seed, PARTNERS]))
    return (which + 1 + int(random.integers(count - 1))) % count


def with_maps_of(own: Arrays, other: Arrays) -> Arrays:
    """One patient's CT and brain with the maps of another, slice by slice from the lowest to the highest."""
    places = np.rint(np.linspace(0, len(other.maps) - 1, len(own.maps))).astype(int)
    return Arrays(own.planes, np.where(own.mask[:, None], other.maps[places], np.float16(0.0)), own.mask, own.slice_mm)


def to_sample(arrays: Arrays, s: int, kinds: Sequence[str]) -> Sample:
    """Slice s as the generator sees and learns it."""
    values = arrays.maps[s].astype(np.float32)
    maps = [KINDS[kind].normalise(values_YX) for kind, values_YX in zip(kinds, values, strict=True)]
    return Sample(
        torch.from_numpy(arrays.planes[s].astype(np.float32)),
        torch.from_numpy(np.stack(maps).astype(np.float32)),
        torch.from_numpy(arrays.mask[s][None].astype(bool)),
    )


def augmented(sample: Sample, motion: augment.Motion) -> Sample:
    """The sample with planes, maps and mask moved together; the maps keep their order."""
    channels = len(sample.planes)
    images, mask = augment.move(torch.cat([sample.planes, sample.maps]), sample.mask[0], motion)
    return Sample(images[:channels], images[channels:], mask[None])


def order(slices: Slices, seed: int, epoch: int, *, balanced: bool = False, block: int = 16) -> list[int]:
    """The indices of one epoch, shuffled; the same for the same seed and epoch.

    balanced: every class comes with as many patients as the commonest, the rarer ones repeated with other indices.
    block: slices are shuffled among so many patients at a time, so that a cache of as many reads each file once.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch, STREAM]))
    whose = _balanced(slices.patients, random) if balanced else random.permutation(len(slices.patients)).tolist()
    turns: Counter[int] = Counter()
    runs = []
    for which in whose:
        runs.append(np.arange(slices.first(which), slices.ends[which]) + turns[which] * len(slices))
        turns[which] += 1
    blocks = [np.concatenate(runs[start : start + block]) for start in range(0, len(runs), block)]
    return [int(index) for indices in blocks for index in random.permutation(indices)]


def _balanced(patients: Sequence[Patient], random: np.random.Generator) -> list[int]:
    classes: dict[str, list[int]] = defaultdict(list)
    for which, patient in enumerate(patients):
        classes[patient.severity].append(which)
    most = max(len(members) for members in classes.values())
    drawn = [np.resize(random.permutation(members), most) for _, members in sorted(classes.items())]
    return [int(which) for which in random.permutation(np.concatenate(drawn))]
