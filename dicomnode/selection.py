"""Of several series of a study that could be used, the one that is: the same choice in whatever order they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicomnode import completeness, kernels, places
from dicomnode.bookkeeping import OpenSeries
from dicomnode.kernels import Kernel

WHOLE = 110.0  # mm from foramen magnum to vertex of a small head; who shows less may have left something out
THICK = (2.5, 6.0)  # mm; the generator is trained on such slices: thinner ones are noisier, thicker ones blend more


@dataclass(frozen=True, slots=True)
class Candidate:
    """A series that is whole and may be used.

    instances: ids of those that are used, at most one for each position; headers: of the same.
    """

    series: OpenSeries
    headers: Sequence[Dataset]
    instances: tuple[int, ...]
    completed_by: str
    warnings: tuple[str, ...]

    @property
    def uid(self) -> str:
        """The Series Instance UID."""
        return self.series.series_instance_uid


@dataclass(frozen=True, slots=True)
class Merit:
    """of: the lower, the better; words: what is said of the series that is better."""

    words: str
    of: Callable[[Sequence[Dataset]], float]


def _kernel(headers: Sequence[Dataset]) -> float:
    return float(any(kernels.kind(ds) is Kernel.UNKNOWN for ds in headers))


def _gaps(headers: Sequence[Dataset]) -> float:
    return float(len(completeness.gaps(places.slices(headers))))


def _coverage(headers: Sequence[Dataset]) -> float:
    return float(completeness.coverage(places.slices(headers)) < WHOLE)


def _thickness(headers: Sequence[Dataset]) -> float:
    """How many millimetres the thickness, or the step where no thickness is stated, lies off what is best."""
    stated = [mm for mm in map(places.thickness, headers) if mm > 0] or [places.steps(headers)[1]]
    thickness = sorted(stated)[len(stated) // 2]
    return max(THICK[0] - thickness, thickness - THICK[1], 0.0)


def _earliness(headers: Sequence[Dataset]) -> float:
    return -max(map(acquired, headers), default=0.0)


# From the first on which two series differ; a scan that was repeated is taken for the better one.
MERITS = (
    Merit("its kernel is known to be a soft one", _kernel),
    Merit("its slices leave fewer gaps", _gaps),
    Merit("it shows more of the head", _coverage),
    Merit("the thickness of its slices suits better", _thickness),
    Merit("it was acquired later", _earliness),
)


def better(one: Sequence[Dataset], other: Sequence[Dataset]) -> str:
    """Why one series is better than another, in words; empty where it is not."""
    for merit in MERITS:
        if (mine := merit.of(one)) != (theirs := merit.of(other)):
            return merit.words if mine < theirs else ""
    return ""


def ranked(candidates: Sequence[Candidate], chosen: str | None = None) -> list[Candidate]:
    """Best first. Where merits are equal: the series that is chosen already, then by number, then by UID."""
    return sorted(
        candidates,
        key=lambda each: (
            *(merit.of(each.headers) for merit in MERITS),
            each.uid != chosen,
            int(each.headers[0].get("SeriesNumber") or 0),
            each.uid,
        ),
    )


def acquired(ds: Dataset) -> float:
    """When an image was acquired, else when its series was made, as a number YYYYMMDDHHMMSS; 0 where unknown."""
    for what in ("Acquisition", "Series"):
        date, time = (str(ds.get(f"{what}{part}") or "") for part in ("Date", "Time"))
        if len(date) == 8 and date.isdecimal() and time[:6].isdecimal():
            return float(date + time[:6].ljust(6, "0"))
    return 0.0
