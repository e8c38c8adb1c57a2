"""What the writer is given of one finished job, and the names that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid5

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from inference.maps import PerfusionMap
from inference.volume import Volume
from inference.weights import Manifest

_RESULTS = UUID("558f3367-a782-495e-a472-b8c0d20757f2")  # the fixed namespace of design.md contract 3: never change it


@dataclass(frozen=True, slots=True, eq=False)
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
        """created_at on the clock of the source: in its TimezoneOffsetFromUTC, else in the zone of this machine.

        Dates and times without an offset are read as local ones (PS3.3 C.12.1.1.8).
        """
        offset = self.source[0].get("TimezoneOffsetFromUTC")
        return self.created_at.astimezone(_time_zone(offset) if offset else None)

    @property
    def brain(self) -> np.ndarray:
        """(slices, rows, columns) bool: where any of the maps has a value; a single map may well be 0 inside."""
        inside: np.ndarray = np.any([m.values != 0 for m in self.maps], axis=0)
        return inside

    def uid(self, kind: str, name: str, index: int | str) -> UID:
        """The UID of one object of this job."""
        return result_uid(self.job_key, kind, name, index)


def result_uid(job_key: str, kind: str, name: str, index: int | str) -> UID:
    """The UID of one result: equal inputs have equal UIDs, anything changed has new ones (design.md contract 3).

    kind: "sc", "pm"; name: of the map; index: of the slice or instance from 0, or a word for what is not an
    instance ("series").
    """
    return UID(f"2.25.{uuid5(_RESULTS, f'{job_key}|{kind}|{name}|{index}').int}")


def _time_zone(offset: str) -> timezone:
    """A TimezoneOffsetFromUTC such as "+0900" (PS3.3 C.12.1.1.8)."""
    sign = -1 if offset.startswith("-") else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
