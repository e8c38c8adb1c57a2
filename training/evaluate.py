"""How good weights are on patients never seen: `python -m training evaluate WEIGHTS COHORT OUT`.

Every slice of every patient of one split goes through the engine that the node uses, in the order of the manifest; a
cohort for this is prepared with all its slices. OUT receives metrics.json with everything, report.md with the tables,
and pictures.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.progress import track

from inference import weights
from inference.engine import Engine, load_engine
from inference.regions import HYPOPERFUSED
from inference.units import in_units
from inference.weights import Manifest
from training import bars, baselines, data, pictures, report, retest, scores, summary
from training.baselines import SIMILARITY_ONLY, Baseline
from training.data import Arrays, CohortError, Patient
from training.scores import NEEDED, Case, Score
from training.statistics import DRAWS, LEVEL
from training.strata import with_infarct
from training.summary import Draws, Row

METRICS, REPORT, PICTURES = "metrics.json", "report.md", "pictures"
CANDIDATES = (4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0)  # s, operating points shown for the validation patients

In = TypeVar("In")
Out = TypeVar("Out")


class EvaluationError(Exception):
    """The evaluation cannot be made as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is evaluated on what.

    train_cohort: its split "train" is what the baselines are fitted on. validation: its split "validation" fixes the
    threshold of infarct presence. counterfactual: the patients of `cohort` without a sign of the stroke in their CT.
    retest: the patients of `cohort` scanned again.
    tmax_threshold: s, above which a predicted Tmax is hypoperfused; the truth is always judged at 6 s.
    threads: of the engine, part of the result; workers: patients in memory at a time, no part of it.
    """

    weights: Path
    cohort: Path
    out: Path
    train_cohort: Path | None = None
    validation: Path | None = None
    counterfactual: Path | None = None
    retest: Path | None = None
    split: str = "test"
    tmax_threshold: float = HYPOPERFUSED
    threads: int = 1
    workers: int = 1
    seed: int = 0
    draws: int = DRAWS


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An engine and its operating point."""

    engine: Engine
    threshold: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """The maps that it makes."""
        return self.engine.manifest.kinds

    def predict(self, arrays: Arrays, batch: int = 8) -> np.ndarray:
        """(S, K, Y, X) float32 in the unit of each kind, 0 outside the brain."""
        parts = [slice(start, start + batch) for start in range(0, len(arrays.planes), batch)]
        made_SKYX = np.concatenate([self.engine.run(arrays.planes[part].astype(np.float32)) for part in parts])
        if not np.isfinite(made_SKYX).all():
            raise EvaluationError(f"the weights {self.engine.manifest.name} make values that are no numbers")
        heights = np.arange(len(arrays.planes)) * arrays.slice_mm
        return in_units(made_SKYX.swapaxes(0, 1), arrays.mask, heights, self.engine.manifest).swapaxes(0, 1)

    def regions_score(self, patient: Patient) -> Score:
        """The regions of a patient alone."""
        return self.at(patient, [self.threshold])[0]

    def at(self, patient: Patient, thresholds: Sequence[float]) -> list[Score]:
        """The regions of a patient at several operating points."""
        case = scores.open_case(patient, self.kinds)
        predicted = self.predict(case.arrays)
        return [Score(patient, scores.findings(case, predicted, threshold), {}) for threshold in thresholds]


def evaluate(request: Request) -> Path:
    """Measure, and write everything into the folder `out`; returns the report."""
    model = _model(request)
    patients = _patients(request.cohort, request.split)
    train = _patients(request.train_cohort, "train") if request.train_cohort else []
    validation = _patients(request.validation, "validation") if request.validation else []
    without = _counterparts(request.counterfactual, patients, with_infarct, "stroke") if request.counterfactual else []
    again = _scanned_twice(request.retest, patients) if request.retest else []
    virtual = _virtual({"the evaluated cohort": patients, "training": train, "validation": validation})
    trivial = baselines.fit(track(train, "baselines"), model.kinds) if train else {}
    by_threshold = _sweep(model, validation, request.workers)
    found = _each(
        patients, lambda patient: _score(model, patient, trivial), f"{request.split} patients", request.workers
    )
    bare = _each(without, model.regions_score, "counterfactual", request.workers)
    twice = _each(again, lambda pair: _compare_scans(model, *pair), "retest", request.workers)
    rows = _rows(request, model, found, bare, twice, by_threshold)
    about = _about(request, model, patients, virtual)
    _write(request.out, model, found, rows, about)
    return request.out / REPORT


def _model(request: Request) -> Model:
    manifest, state = weights.load(request.weights)
    if missing := [kind for kind in NEEDED if kind not in manifest.kinds]:
        raise EvaluationError(
            f"the weights {manifest.name} make no {', '.join(missing)}; lesions need both CBF and Tmax"
        )
    if request.tmax_threshold <= 0:
        raise EvaluationError(f"a Tmax threshold is more than 0 s, not {request.tmax_threshold:g}")
    return Model(load_engine(manifest, state, request.threads), request.tmax_threshold)


def _patients(folder: Path, split: str) -> list[Patient]:
    found = [patient for patient in data.read_cohort(folder) if patient.split == split]
    if not found:
        raise CohortError(f"{folder} has no patients of the split {split!r}; name another folder or another split")
    return found


def _counterparts(
    folder: Path, patients: Sequence[Patient], wanted: Callable[[Patient], bool], name: str
) -> list[Patient]:
    """Other scans of the evaluated patients, of those who are wanted."""
    known = {patient.patient_id for patient in patients}
    found = [one for one in _patients(folder, patients[0].split) if one.patient_id in known and wanted(one)]
    if not found:
        raise CohortError(f"{folder} holds no {name} of the evaluated cohort; prepare the same patients again")
    return found


def _scanned_twice(folder: Path, patients: Sequence[Patient]) -> list[tuple[Patient, Patient]]:
    """Evaluated patients beside their other scan; raises CohortError where it is the same scan again."""
    first = {patient.patient_id: patient for patient in patients}
    pairs = [(first[one.patient_id], one) for one in _counterparts(folder, patients, lambda _: True, "patient")]
    for once, again in pairs:
        if data.digest([once]) == data.digest([again]):
            raise CohortError(
                f"{folder} holds the first scan of {once.patient_id} once more; a second one comes from "
                "`simulate cohort --repeat 1`"
            )
    return pairs


def _virtual(groups: Mapping[str, Sequence[Patient]]) -> bool:
    """Whether all patients are simulated; nobody stands in two groups, and simulated and real ones never together."""
    data.refuse_overlap(groups)
    kinds = {patient.seed is not None for patients in groups.values() for patient in patients}
    if len(kinds) > 1:
        raise CohortError("virtual and real patients are mixed; evaluate each kind alone")
    return kinds.pop()


def _each(patients: Sequence[In], work: Callable[[In], Out], words: str, workers: int) -> list[Out]:
    """What `work` makes of every patient, in their order, with a progress bar; `workers` patients at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(track(pool.map(work, patients), words, total=len(patients))) if patients else []


def _sweep(model: Model, validation: Sequence[Patient], workers: int) -> dict[float, list[Score]]:
    """The validation patients at every candidate threshold and at the one that is used; empty without patients."""
    thresholds = sorted({*CANDIDATES, model.threshold})
    found = _each(validation, lambda patient: model.at(patient, thresholds), "validation patients", workers)
    return dict(zip(thresholds, map(list, zip(*found, strict=True)), strict=True)) if found else {}


def _score(model: Model, patient: Patient, trivial: Mapping[str, Baseline]) -> Score:
    case = scores.open_case(patient, model.kinds)
    mine = scores.everything(case, model.predict(case.arrays), model.threshold)
    theirs = {name: _of_baseline(case, name, baseline) for name, baseline in trivial.items()}
    return Score(patient, mine, theirs)


def _compare_scans(model: Model, first: Patient, second: Patient) -> Score:
    """How the predictions from two scans of a patient differ."""
    once, again = (scores.open_case(patient, model.kinds) for patient in (first, second))
    before, after = (case.find(model.predict(case.arrays), model.threshold) for case in (once, again))
    return Score(second, retest.apart(before, once.mask, after, again.mask), {})


def _of_baseline(case: Case, name: str, baseline: Baseline) -> scores.Figures:
    return scores.of_baseline(case, baseline.predict(case.arrays), HYPOPERFUSED, unitless=name in SIMILARITY_ONLY)


def _rows(
    request: Request,
    model: Model,
    found: Sequence[Score],
    without: Sequence[Score],
    twice: Sequence[Score],
    by_threshold: Mapping[float, Sequence[Score]],
) -> list[Row]:
    draws = Draws(request.seed, request.draws)
    return [
        *summary.presence(found, by_threshold.get(model.threshold, []), draws),
        *summary.summarise(found, model.kinds, draws),
        *summary.counterfactual(found, without, draws),
        *summary.retest(twice, draws),
        *summary.operating_points(by_threshold, draws),
    ]


def _about(request: Request, model: Model, patients: Sequence[Patient], virtual: bool) -> dict[str, Any]:
    return {
        "weights": _identity(model.engine.manifest),
        "patients": len(patients),
        "split": request.split,
        "virtual": virtual,
        "cohort_digest": data.digest(patients),
        "tmax_threshold_s": request.tmax_threshold,
        "threads": request.threads,
        "bootstrap": {"seed": request.seed, "draws": request.draws, "level": LEVEL},
    }


def _identity(manifest: Manifest) -> dict[str, Any]:
    names = ("name", "version", "route", "width", "kinds", "training_domain", "data_digest", "commit", "sha256")
    return {name: value for name, value in asdict(manifest).items() if name in names}


def _write(out: Path, model: Model, found: Sequence[Score], rows: Sequence[Row], about: dict[str, Any]) -> None:
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(out / PICTURES, found, model.kinds, model.predict, virtual=about["virtual"])
    everything = {
        "about": about,
        "bars": [asdict(judged) for judged in bars.judge(rows)],
        "rows": [asdict(row) for row in rows],
        "patients": [scores.as_line(score) for score in found],
    }
    text = json.dumps(_numbers(everything), indent=1, allow_nan=False) + "\n"
    (out / METRICS).write_text(text, encoding="utf-8")
    (out / REPORT).write_text(report.write(about, rows, drawn), encoding="utf-8")


def _numbers(value: Any) -> Any:
    """For JSON, which has no nan and no infinity: null in their place."""
    if isinstance(value, Mapping):
        return {name: _numbers(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
