"""What the quality gate says of heads that are good, of heads spoiled on purpose, and of maps under wrong names.

`python -m training gate OUT --cohort FOLDER` prints and writes the tables of docs/gate.md. Virtual patients and real
heads have rows of their own. Heads are judged as the node judges them; nothing here chooses a limit.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import dcmread
from rich.progress import track

from inference import predict, preprocess, quality, weights
from inference.engine import Engine, load_engine
from inference.maps import KINDS, PerfusionMap
from inference.preprocess import Prepared
from inference.refusal import Refused
from inference.volume import Volume, from_slices
from training.prepare import as_volume, scanned_on
from training.simulate.cohort import NCCT, read_manifest
from training.spoiled import SPOILED

PASSED = "passed"
SHOWN = ("vessels", "bright", "jump", "noise", "grain", "broken", "cut", "dark", "metal", "median", "skull", "brain")
EXCHANGED = (("CBF", "CBV"), ("CBF", "MTT"), ("CBV", "MTT"), ("MTT", "Tmax"), ("TTP", "Tmax"))
STRETCHED = (("MTT in ms", "MTT", 1000.0), ("Tmax in ms", "Tmax", 1000.0), ("CBV x 100", "CBV", 100.0))


@dataclass(frozen=True, slots=True)
class Task:
    """A patient of a cohort, and what else than the good head is judged."""

    folder: Path
    line: dict[str, object]
    spoil: bool
    maps: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What one head was found to be. findings: of the good head; of: name of the case -> verdict."""

    findings: dict[str, float]
    of: dict[str, str]


def report(cohorts: Sequence[Path], real: Sequence[Path], spoiled: int, mapped: int, processes: int = 1) -> str:
    """The tables as Markdown. spoiled, mapped: patients of each cohort that are also spoiled, and given maps."""
    tasks = [
        Task(folder, line, number < spoiled, number < mapped)
        for folder in cohorts
        for number, line in enumerate(read_manifest(folder))
    ]
    with ProcessPoolExecutor(processes) as pool:
        virtual = list(track(pool.map(_of_patient, tasks, chunksize=4), "heads judged", total=len(tasks)))
    found = [(f"{len(virtual)} virtual patients", virtual)]
    found += [(f"REAL {folder.name}", [judged(_read(folder), spoil=True, maps=True)]) for folder in real]
    return "\n".join(_tables(found)) + "\n"


def _of_patient(task: Task) -> Said:
    with np.load(task.folder / str(task.line["file"]), allow_pickle=False) as stored:
        head = as_volume(stored[NCCT].astype(np.float32), scanned_on(task.line["grid"]))  # type: ignore[arg-type]
    return judged(head, task.spoil, task.maps)


def _read(folder: Path) -> Volume:
    return from_slices([dcmread(path) for path in sorted(folder.glob("*.dcm"))])


def judged(head: Volume, spoil: bool, maps: bool) -> Said:
    """A head as it is, spoiled in every way, and with its maps under right and wrong names and units."""
    prepared = preprocess.prepare(head)
    of = {"as it is": verdict(head, prepared)}
    if spoil:
        spoiled = ((name, change(head)) for name, change in SPOILED.items())
        of |= {name: verdict(other, preprocess.prepare(other)) for name, other in spoiled}
    if maps:
        of |= dict(_of_maps(head, prepared))
    return Said(asdict(quality.measure(head, prepared)), of)


def verdict(head: Volume, prepared: Prepared) -> str:
    """The code of the refusal, "warned" or "passed"."""
    try:
        return "warned" if quality.judge(head, prepared) else PASSED
    except Refused as refusal:
        return refusal.code


def _of_maps(head: Volume, prepared: Prepared) -> Iterator[tuple[str, str]]:
    values = {each.kind.name: each.values for each in predict.predict(head, prepared, _engine())}
    yield "maps: as they are", _verdict_of_maps(head, prepared, values)
    for one, other in EXCHANGED:
        to = {one: other, other: one}
        exchanged = {
            name: values[to.get(name, name)] / KINDS[to.get(name, name)].ceiling * KINDS[name].ceiling
            for name in values
        }
        yield f"maps: {one} and {other} exchanged", _verdict_of_maps(head, prepared, exchanged)
    for words, name, factor in STRETCHED:
        yield f"maps: {words}", _verdict_of_maps(head, prepared, {**values, name: values[name] * factor})
    mirrored = {name: np.ascontiguousarray(each[:, :, ::-1]) for name, each in values.items()}
    yield "maps: left and right exchanged", _verdict_of_maps(head, prepared, mirrored)


def _verdict_of_maps(head: Volume, prepared: Prepared, values: dict[str, np.ndarray]) -> str:
    try:
        made = [PerfusionMap(KINDS[name], each) for name, each in values.items()]
        return "warned" if quality.judge_maps(head, prepared, made) else PASSED
    except Refused as refusal:
        return refusal.code


@cache
def _engine() -> Engine:
    return load_engine(*weights.load(weights.shipped()), threads=1)


def _tables(found: Sequence[tuple[str, list[Said]]]) -> Iterator[str]:
    yield "| heads | case | judged | verdicts |"
    yield "| --- | --- | ---: | --- |"
    for heads, each in found:
        for case in dict.fromkeys(case for said in each for case in said.of):
            counts = Counter(said.of[case] for said in each if case in said.of)
            words = ", ".join(f"{count} {what}" for what, count in counts.most_common())
            yield f"| {heads} | {case} | {counts.total()} | {words} |"
    yield ""
    yield "| heads as they are | " + " | ".join(SHOWN) + " |"
    yield "| --- |" + " ---: |" * len(SHOWN)
    for heads, each in found:
        for words, of in (("lowest", np.min), ("median", np.median), ("highest", np.max)):
            numbers = (float(of([said.findings[name] for said in each])) for name in SHOWN)
            yield f"| {heads}, {words} | " + " | ".join(f"{value:.3g}" for value in numbers) + " |"
            if len(each) == 1:
                break
