"""The perfusion maps we know: one row each with its unit, DICOM codes and range.

A further map is one more row here and its name in the `kinds` of a weights manifest.
Codes: PS3.16 context groups 4108 and 7180 (quantities, scheme DCM) and 7181 (units, UCUM).
"""

from dataclasses import dataclass

import numpy as np

Code = tuple[str, str]  # code value and code meaning


@dataclass(frozen=True, slots=True)
class MapKind:
    """One kind of perfusion map.

    name, title: "CBF", "Cerebral blood flow".
    unit: as printed beside a colour bar; ucum: the same as a UCUM code.
    quantity: DCM code of the absolute quantity; relative_quantity: DCM code where values are only relative (the
        same code where DICOM has no relative one).
    ceiling: the range of display and of training is 0..ceiling in `unit`.
    """

    name: str
    title: str
    unit: str
    ucum: Code
    quantity: Code
    relative_quantity: Code
    ceiling: float

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Values in `unit` to what a generator learns, [-1, 1]; outside 0..ceiling they are clipped."""
        learnt: np.ndarray = np.clip(values, 0.0, self.ceiling) * (2.0 / self.ceiling) - 1.0
        return learnt

    def denormalise(self, learnt: np.ndarray) -> np.ndarray:
        """The generator's [-1, 1] to values in `unit`, 0..ceiling."""
        values: np.ndarray = (np.clip(learnt, -1.0, 1.0) + 1.0) * (self.ceiling / 2.0)
        return values


@dataclass(frozen=True, slots=True, eq=False)
class PerfusionMap:
    """One map of one patient.

    values: (slices, rows, columns) float32 in kind.unit on the source grid, 0 outside the brain.
    """

    kind: MapKind
    values: np.ndarray


_SECOND = ("s", "second")
_MTT, _TTP, _TMAX = ("113052", "Mean Transit Time"), ("113069", "Time To Peak"), ("113084", "Tmax")

KINDS: dict[str, MapKind] = {
    kind.name: kind
    for kind in (
        MapKind(
            "CBF",
            "Cerebral blood flow",
            "ml/100 g/min",
            ("ml/[100]g/min", "milliliter per 100 gram per minute"),
            ("126390", "Absolute Regional Blood Flow"),
            ("126397", "Relative Regional Blood Flow"),
            60.0,
        ),
        MapKind(
            "CBV",
            "Cerebral blood volume",
            "ml/100 g",
            ("ml/[100]g", "milliliter per 100 gram"),
            ("126391", "Absolute Regional Blood Volume"),
            ("126398", "Relative Regional Blood Volume"),
            4.0,
        ),
        MapKind("MTT", "Mean transit time", "s", _SECOND, _MTT, _MTT, 12.0),
        MapKind("TTP", "Time to peak", "s", _SECOND, _TTP, _TTP, 25.0),
        MapKind("Tmax", "Time to maximum of the residue function", "s", _SECOND, _TMAX, _TMAX, 12.0),
    )
}


def central_volume(cbf: np.ndarray, mtt: np.ndarray) -> np.ndarray:
    """CBV in ml/100 g from CBF in ml/100 g/min and MTT in s: CBV = CBF * MTT / 60 (central volume principle)."""
    cbv: np.ndarray = cbf * mtt / 60.0
    return cbv
