"""Groups of patients that figures are reported for (models.md E2, simulation.md section 6)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from training.data import Patient
from training.scores import Score

ALL = "all"
FOCAL = ("lacunes", "old_infarcts", "haemorrhages")  # facts that count what a patient has beside the acute stroke
SAID = ("everyone", "infarct", *FOCAL)  # strata whose groups need no further word
STROKE = frozenset({"mild", "severe"})
ORDER = (ALL, "none", "mild", "severe", "without infarct", "with infarct", "< 3 h", "3 to 6 h", "> 6 h")


def with_infarct(patient: Patient) -> bool:
    """Whether the core to penumbra ratio is more than 0: class mild or severe."""
    return patient.severity in STROKE


def onset(hours: float) -> str:
    """The bin of the time from onset to scan."""
    return "< 3 h" if hours < 3.0 else "3 to 6 h" if hours <= 6.0 else "> 6 h"


def _onset(patient: Patient) -> str | None:
    hours = patient.facts.get("onset_h")
    return onset(hours) if hours is not None and with_infarct(patient) else None


def _vessel(patient: Patient) -> str | None:
    return patient.facts.get("vessel") if with_infarct(patient) else None


def _having(fact: str, patient: Patient) -> str | None:
    """With or without what a fact counts; in neither group where the fact is not known."""
    count = patient.facts.get(fact)
    return None if count is None else f"{'with' if count else 'without'} {fact.replace('_', ' ')}"


STRATA: Mapping[str, Callable[[Patient], str | None]] = {  # the group of a patient, None where it is in none of them
    "everyone": lambda _: ALL,
    "class": lambda patient: patient.severity,
    "infarct": lambda patient: "with infarct" if with_infarct(patient) else "without infarct",
    "onset": _onset,
    "vessel": _vessel,
    "kind": lambda patient: patient.facts.get("kind"),
    **{fact: partial(_having, fact) for fact in FOCAL},
}


def groups(scores: Iterable[Score], stratum: str) -> dict[str, list[Score]]:
    """The patients of every group of a stratum, such as "class mild"; known orders are kept, others alphabetical."""
    found: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        group = STRATA[stratum](score.patient)
        if group is not None:
            found[group].append(score)
    return {_label(stratum, group): found[group] for group in sorted(found, key=_place)}


def _label(stratum: str, group: str) -> str:
    return group if stratum in SAID else f"{stratum} {group}"


def _place(group: str) -> tuple[int, str]:
    return (ORDER.index(group) if group in ORDER else len(ORDER), group)
