"""A folder of real studies to a cohort that training reads: START HERE.

OUT gets manifest.jsonl and a file for each patient, as training.prepare writes them, with nothing that names anybody.
What does name patients (the salt, the report, the pictures) goes into OUT-private, which stays on the site.
"""

import csv
import hashlib
import hmac
import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from inference.maps import KINDS
from inference.refusal import Refused
from inference.volume import DECODING_ERRORS
from training import data
from training.cohort import Rejected, report, sample
from training.cohort.captures import Styles
from training.cohort.pairing import Pair, Verdict, Wanted, pair_all
from training.cohort.series import Rules, scan

CLASSES = ("none", "mild", "severe")
HELD_OUT = 0.2  # of the patients, for the split "test" (models.md D1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What to make of the studies.

    slices: of each patient, 0 for all. hours: at most, between head CT and maps. kinds: that each study must have.
    classes: Patient ID -> class, before what the maps say. simulated: whether virtual patients count.
    """

    slices: int = 10
    hours: float = 3.0
    kinds: tuple[str, ...] = tuple(KINDS)
    styles: Styles = field(default_factory=Styles)
    classes: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False


def read_classes(path: Path | None) -> dict[str, str]:
    """A CSV with the columns patient_id (as in the headers) and class; ValueError where it is wrong."""
    if path is None:
        return {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"patient_id", "class"} <= set(rows[0]):
        raise ValueError(
            f"{path} needs a first line with the columns patient_id and class, and a line for each patient"
        )
    if wrong := sorted({row["class"] for row in rows} - set(CLASSES)):
        raise ValueError(f"{path} has the class {', '.join(map(repr, wrong))}; a class is one of {', '.join(CLASSES)}")
    return {row["patient_id"]: row["class"] for row in rows}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where one run writes, and with what."""

    out: Path
    private: Path
    salt: bytes
    order: Order

    def pseudonym(self, patient_id: str) -> str:
        """The name of a patient in the cohort: keyed, so that nobody without the salt can try Patient IDs."""
        return "P" + hmac.new(self.salt, patient_id.encode(), hashlib.sha256).hexdigest()[:20]


def collect(source: Path, out: Path, order: Order, processes: int = 1) -> list[Verdict]:
    """Make the cohort anew. Returns what became of every study; none may be of use, and then the manifest is empty."""
    private = out.with_name(f"{out.name}-private")
    out.mkdir(parents=True, exist_ok=True)
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    desk = Desk(out, private, salt(private / "salt"), order)
    series, others = scan(source, Rules(order.simulated))
    pairs, rejected = pair_all(series, Wanted(order.kinds, order.hours))
    verdicts = [Verdict(study, desk.pseudonym(who), why) for who, study, why in rejected]
    patients: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        patients[pair.patient_id].append(pair)
    lines = []
    for line, told in track(_made(list(patients.values()), desk, processes), "patients", total=len(patients)):
        lines += [json.dumps(line) + "\n"] if line else []
        verdicts += told
    partial = out / f"{data.MANIFEST}.partial"
    partial.write_text("".join(sorted(lines)), encoding="utf-8")
    partial.rename(out / data.MANIFEST)
    report.write(private / "report.md", verdicts, series, others)
    return verdicts


def salt(path: Path) -> bytes:
    """The secret of this site's pseudonyms, drawn at the first run."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    return bytes.fromhex(path.read_text(encoding="ascii"))


def split_of(pseudonym: str) -> str:
    """train or test, by the pseudonym alone: who was held out stays held out when the cohort grows."""
    place = int.from_bytes(hashlib.sha256(pseudonym.encode()).digest()[:8]) / 2.0**64
    return "test" if place < HELD_OUT else "train"


Made = tuple[dict[str, Any] | None, list[Verdict]]


def _made(patients: list[list[Pair]], desk: Desk, processes: int) -> Iterator[Made]:
    if processes < 2:
        yield from (one(pairs, desk) for pairs in patients)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(one, patients, repeat(desk))


def one(pairs: list[Pair], desk: Desk) -> Made:
    """The first study of a patient that can be used: its line of the manifest, and the verdict on every study."""
    line, verdicts = None, []
    for pair in sorted(pairs, key=lambda pair: (str(pair.ncct.when), pair.study_instance_uid)):
        name, why = desk.pseudonym(pair.patient_id), ""
        notes: tuple[str, ...] = ()
        if line is not None:
            why = "another study of this patient is used already"
        else:
            try:
                made = sample.make(pair, desk.order.slices, desk.order.styles)
                line = _write(made, pair, name, desk)
                notes = made.warnings
            except (Rejected, Refused) as problem:
                why = str(problem)
            except DECODING_ERRORS as problem:  # a header or pixels that no rule foresaw; the others go on
                log.exception("study %s", pair.study_instance_uid)
                why = f"cannot be read ({type(problem).__name__}: {problem})"
        verdicts.append(Verdict(pair.study_instance_uid, name, why, notes))
    return line, verdicts


def _write(made: sample.Samples, pair: Pair, name: str, desk: Desk) -> dict[str, Any]:
    """Save arrays and picture, and return the line of the manifest."""
    severity = desk.order.classes.get(pair.patient_id) or made.facts["class"]
    if severity is None:
        raise Rejected("the class is unknown: it takes maps of CBF and Tmax, or a line in --classes")
    np.savez_compressed(
        desk.out / f"{name}.npz", planes=made.planes, maps=made.maps, mask=made.mask, kinds=np.array(list(pair.maps))
    )
    Image.fromarray(made.board).save(desk.private / f"{name}.png")
    line = {"patient_id": name, "seed": None, "split": split_of(name), "file": f"{name}.npz"}
    return {**line, **made.facts, "class": severity}
