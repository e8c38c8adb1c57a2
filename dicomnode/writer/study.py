"""What the writer is given of one finished job, and the names that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from uuid import UUID, uuid5

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from dicomnode.writer.air import Word, synthetic_words
from inference import regions
from inference.maps import PerfusionMap
from inference.regions import Regions
from inference.volume import Volume
from inference.weights import Manifest

_RESULTS = UUID("558f3367-a782-495e-a472-b8c0d20757f2")  # the fixed namespace of design.md contract 3: never change it


@dataclass(frozen=True, slots=True)
class Replaced:
    """An instance sent before, in whose place this job's results come."""

    sop_class: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, eq=False)
class Study:
    """Everything the writer needs of one finished job.

    source: headers of the source slices in the order of the volume (ascending along the normal); pixels may be absent.
    volume, maps: on the same grid as the source.
    manifest: of the weights that made the maps.
    job_key, revision, supersedes: of the job; supersedes is the revision that this one replaces, None for the first.
    created_at: when the maps were inferred, with its time zone; fixed, so that a second rendering is identical.
    software_version, device_serial_number: of this node.
    simulated_input: the source itself is a virtual patient.
    warnings: short sentences burned into every capture ("INCOMPLETE SERIES").
    replaced: what destinations hold of earlier revisions, or of a page that said there were no maps.
    """

    source: Sequence[Dataset]
    volume: Volume
    maps: Sequence[PerfusionMap]
    manifest: Manifest
    job_key: str
    revision: int
    supersedes: int | None
    created_at: datetime
    software_version: str
    device_serial_number: str
    simulated_input: bool = False
    warnings: tuple[str, ...] = ()
    replaced: tuple[Replaced, ...] = ()

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError(f"created_at {self.created_at} has no time zone; pass an aware datetime")
        shape = self.volume.hu.shape
        for perfusion_map in self.maps:
            name, values = perfusion_map.kind.name, perfusion_map.values
            if values.shape != shape:
                raise ValueError(f"map {name} has shape {values.shape}, its volume {shape}; resample it to the source")
            if not np.isfinite(values).all():
                raise ValueError(f"map {name} holds values that are not finite; web viewers then draw nothing at all")
        positions = np.array([ds.ImagePositionPatient for ds in self.source], float)
        if positions.shape != self.volume.positions.shape or np.abs(positions - self.volume.positions).max() > 1e-3:
            raise ValueError("the source headers must be those of the volume's slices, in the volume's order")

    @property
    def frame_of_reference_uid(self) -> str | None:
        """The frame of reference of the source; a source without one cannot be matched in space."""
        stated = (ds.get("FrameOfReferenceUID") for ds in self.source)
        return next((uid for uid in stated if uid), None)

    @property
    def written_at(self) -> datetime:
        """created_at on the clock of the source."""
        return on_clock_of(self.source[0], self.created_at)

    @cached_property
    def brain(self) -> np.ndarray:
        """(slices, rows, columns) bool: where any of the maps has a value; a single map may well be 0 inside."""
        inside: np.ndarray = np.any([m.values != 0 for m in self.maps], axis=0)
        return inside

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The word SYNTHETIC in the air of the slices, the same for all maps."""
        return tuple(synthetic_words(self.volume))

    @cached_property
    def regions(self) -> Regions | None:
        """What the maps say of core and hypoperfusion; None without CBF and Tmax in physical units."""
        if self.manifest.units != "physical" or not {"CBF", "Tmax"} <= {m.kind.name for m in self.maps}:
            return None
        cbf, tmax = (self.map_named(name).values for name in ("CBF", "Tmax"))
        return regions.on_source(self.volume, cbf, tmax, self.brain)

    def map_named(self, name: str) -> PerfusionMap:
        """The map of a kind."""
        return next(m for m in self.maps if m.kind.name == name)

    def uid(self, kind: str, name: str, index: int | str) -> UID:
        """The UID of one object of this job."""
        return result_uid(self.job_key, kind, name, index)


def result_uid(job_key: str, kind: str, name: str, index: int | str) -> UID:
    """The UID of one result: equal inputs have equal UIDs, anything changed has new ones (design.md contract 3).

    kind: of writer.OBJECTS; name: of the map, or what stands in its place; index: of the slice or instance from 0, or
    a word for what is not an instance ("series").
    """
    return UID(f"2.25.{uuid5(_RESULTS, f'{job_key}|{kind}|{name}|{index}').int}")


def on_clock_of(source: Dataset, moment: datetime) -> datetime:
    """A moment in the source's TimezoneOffsetFromUTC, else in the zone of this machine.

    Dates and times without an offset are read as local ones (PS3.3 C.12.1.1.8).
    """
    offset = source.get("TimezoneOffsetFromUTC")
    return moment.astimezone(_time_zone(offset) if offset else None)


def _time_zone(offset: str) -> timezone:
    """A TimezoneOffsetFromUTC such as "+0900" (PS3.3 C.12.1.1.8)."""
    sign = -1 if offset.startswith("-") else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
