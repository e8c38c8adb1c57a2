"""One row of the table of input cases: what arrives, and what must become of it."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from pydicom import Dataset

from tests import phantom

Instance = Dataset | bytes


class Outcome(StrEnum):
    """PROCESS: maps without a word; PROCESS_WARN: maps that bear a warning; REFUSE: none,
    with a code and a sentence."""

    PROCESS = "PROCESS"
    PROCESS_WARN = "PROCESS+WARN"
    REFUSE = "REFUSE"


class Wait(StrEnum):
    """For what the node waits before it decides."""

    NOTHING = ""
    PIECES = "pieces"  # the last part of the series
    TIMER = "timer"  # nothing more comes, and the series is judged as it stands


@dataclass(frozen=True)
class Arrival:
    """What one association brings, so many seconds after the first; it is released at once."""

    at: float
    instances: Sequence[Instance]


@dataclass(frozen=True)
class Case:
    """A row.

    make: the instances of one association, or several arrivals. code: of the refusal. says: stands in the sentence of
    the refusal, or in a warning. door: the code by which instances are refused before they are filed. states: of each
    series, in the order of its first instance. revisions: of the maps. node: keys of [node]. check: looks at one
    capture, written and read again. slow: left to the slow suite.
    """

    name: str
    make: Callable[[], Sequence[Instance] | Sequence[Arrival]]
    outcome: Outcome = Outcome.PROCESS
    code: str = ""
    says: str = ""
    waits: Wait = Wait.NOTHING
    door: str = ""
    states: tuple[str, ...] = ()
    revisions: int = 1
    node: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Dataset], object] = lambda capture: None
    slow: bool = False

    def arrivals(self) -> list[Arrival]:
        """What comes, association by association."""
        made = self.make()
        several = [each for each in made if isinstance(each, Arrival)]
        return several or [Arrival(0.0, [each for each in made if not isinstance(each, Arrival)])]


def process(name: str, make: Callable[[], Any], **other: Any) -> Case:
    """A row that gives maps without a word."""
    return Case(name, make, **other)


def warn(name: str, make: Callable[[], Any], says: str, **other: Any) -> Case:
    """A row that gives maps which bear a warning."""
    return Case(name, make, Outcome.PROCESS_WARN, says=says, **other)


def refuse(name: str, make: Callable[[], Any], code: str, says: str = "", **other: Any) -> Case:
    """A row that gives no maps."""
    return Case(name, make, Outcome.REFUSE, code, says, **other)


SLICES, STEP, LOWEST = 22, 7.0, -72.0


@cache
def _plain(**how: Any) -> list[Dataset]:
    given = {"matrix": 64, "thickness": STEP, "size": 0.93} | how
    return phantom.head(given.pop("z", tuple(phantom.even(SLICES, STEP, LOWEST))), **given)


def head(**how: Any) -> list[Dataset]:
    """An ordinary head of 22 slices that no check has a word to say about; how: arguments of phantom.head."""
    return deepcopy(_plain(**how))


def changed(slices: list[Dataset], **elements: Any) -> list[Dataset]:
    """The slices with these elements in each; None removes one."""
    for ds in slices:
        for keyword, value in elements.items():
            if value is not None:
                setattr(ds, keyword, value)
            elif keyword in ds:
                del ds[keyword]
    return slices


def other_series(slices: list[Dataset], number: int, **elements: Any) -> list[Dataset]:
    """The slices as another series of the same study."""
    for ds in slices:
        ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID[:50]}.{number}"
        renamed(ds, number)
        ds.SeriesNumber = number
    return changed(slices, **elements)


def other_study(slices: list[Dataset], number: int) -> list[Dataset]:
    """The slices as a study of another patient."""
    for ds in other_series(slices, number):
        ds.StudyInstanceUID = f"{ds.StudyInstanceUID[:50]}.{number}"
        ds.PatientID, ds.AccessionNumber = f"PHANTOM-{number}", f"PHANTOM{number}"
    return slices


def renamed(ds: Dataset, number: int) -> Dataset:
    """The instance under another UID."""
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID[:50]}.{number}"
    return ds


def with_header(**elements: Any) -> Callable[[], list[Dataset]]:
    """What makes an ordinary head with these elements."""
    return lambda: changed(head(), **elements)
