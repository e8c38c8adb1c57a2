"""Can these maps be true? Judged by the maps alone and by the head they came from, after they are made.

The three of the central volume agree, each kind lies where tissue lies, no more tissue is late than a stroke can make
late, and a lesion does not lie where the head is denser than on its other side. docs/gate.md says what was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from inference import preprocess, regions
from inference.maps import KINDS, PerfusionMap, central_volume
from inference.preprocess import Prepared
from inference.refusal import Refused
from inference.volume import Volume

# The lowest and highest median over a brain that a kind may have, in its unit; wide, for they hold for any weights.
MEDIANS: Mapping[str, tuple[float, float]] = {
    "CBF": (4.0, 57.0),
    "CBV": (0.5, 3.9),
    "MTT": (1.5, 11.5),
    "TTP": (1.0, 24.0),
    "Tmax": (0.0, 9.0),
}
# By how much a kind of another unit is too large: what the factor speaks of.
FACTORS = ((1000.0, "thousand times too large, as milliseconds are"), (100.0, "hundred times too large"))
CENTRAL = ("CBF", "CBV", "MTT")
RESIDUAL = 0.25  # of the median CBV; the shipped weights reach 0.1
BETTER = 0.5  # of the residual that other names for the maps must leave, to be named
NEAR_CEILING = 0.98  # of the range: so near to it a value is one that was cut off
MOST_LATE, MUCH_LATE = 0.75, 0.4  # of the brain; two hemispheres are not late at once
ARRIVAL = 3.0  # s from the first image to the bolus, at least: by so much TTP exceeds Tmax
LEAST_LESION = 10.0  # ml on one side alone; fewer say nothing about a side
TISSUE = (15.0, 60.0)  # HU: neither fluid nor blood nor calcium
DENSER = 1.5  # HU by which a lesion may be denser than its mirror image


@dataclass(frozen=True, slots=True)
class MapFindings:
    """medians: by kind, in its unit. residual: of CBV = CBF * MTT / 60, its median over that of CBV.

    swapped: CBF falls less with Tmax than MTT does, so that one stands for the other.
    hypoperfused: share of the brain with Tmax over 6 s. contrary: HU by which the lesion is denser than its mirror
    image; 0 without a lesion on one side.
    """

    medians: Mapping[str, float]
    residual: float
    swapped: bool
    hypoperfused: float
    contrary: float


@dataclass(frozen=True, slots=True)
class MapCheck:
    """A finding and its highest value; code: of the refusal, empty for a warning; sentence: may name {value}."""

    code: str
    of: Callable[[MapFindings], float]
    high: float
    sentence: str


CHECKS = (
    MapCheck("implausible-maps", lambda f: f.residual, RESIDUAL, "CBV differs by {value:.0%} from CBF x MTT / 60"),
    MapCheck("implausible-maps", lambda f: f.hypoperfused, MOST_LATE, "Tmax exceeds 6 s in {value:.0%} of the brain"),
    MapCheck("", lambda f: f.hypoperfused, MUCH_LATE, "Tmax exceeds 6 s in {value:.0%} of the brain: unusual."),
    MapCheck(
        "", lambda f: f.contrary, DENSER, "Where the maps show a lesion the CT is {value:.1f} HU denser: its side?"
    ),
)


def judge(volume: Volume, prepared: Prepared, maps: Sequence[PerfusionMap]) -> tuple[str, ...]:
    """Warnings as sentences; raises Refused("units" | "implausible-maps") naming the map that cannot be."""
    values = {each.kind.name: each.values for each in maps}
    brain = np.any([each != 0 for each in values.values()], axis=0)
    if not brain.any():
        raise Refused("implausible-maps", "the maps are empty")
    findings = measure(volume, prepared, values, brain)
    _judge_units(findings.medians)
    _judge_names(findings, {name: each[brain] for name, each in values.items()})
    warnings = []
    for check in CHECKS:
        if (value := check.of(findings)) > check.high:
            sentence = check.sentence.format(value=value)
            if check.code:
                raise Refused(check.code, sentence)
            warnings.append(sentence)
    return tuple(warnings)


def measure(volume: Volume, prepared: Prepared, values: Mapping[str, np.ndarray], brain: np.ndarray) -> MapFindings:
    """What is measured on maps, (slices, rows, columns) in the units of their kinds by name."""
    inside = {name: each[brain] for name, each in values.items()}
    hypoperfused, contrary = 0.0, 0.0
    if {"CBF", "Tmax"} <= values.keys():
        found = regions.on_source(volume, values["CBF"], values["Tmax"], brain)
        hypoperfused = found.hypoperfused_ml / regions.volume(brain, regions.slice_voxel_ml(volume))
        contrary = _contrary(volume, prepared, found.hypoperfused)
    return MapFindings(
        medians={name: float(np.median(each)) for name, each in inside.items()},
        residual=_residual(inside),
        swapped=_is_swapped(inside),
        hypoperfused=hypoperfused,
        contrary=contrary,
    )


def _residual(inside: Mapping[str, np.ndarray]) -> float:
    """0 where one of the three is not there; values at the end of their range are cut off and are left out."""
    if not set(CENTRAL) <= inside.keys():
        return 0.0
    whole = np.all([inside[name] < NEAR_CEILING * KINDS[name].ceiling for name in CENTRAL], axis=0)
    if not whole.any():
        return 1.0
    cbf, cbv, mtt = (inside[name][whole] for name in CENTRAL)
    return float(np.median(np.abs(cbv - central_volume(cbf, mtt))) / max(float(np.median(cbv)), 1e-6))


def _is_swapped(inside: Mapping[str, np.ndarray]) -> bool:
    """CBF * MTT is MTT * CBF: which is which is told by Tmax, with which MTT grows and CBF falls."""
    if not {"CBF", "MTT", "Tmax"} <= inside.keys():
        return False
    late = inside["Tmax"]
    spread = [float(each.std()) for each in (late, inside["CBF"], inside["MTT"])]
    if min(spread) == 0.0:
        return False
    flow, transit = (float(np.corrcoef(inside[name], late)[0, 1]) for name in ("CBF", "MTT"))
    return flow > transit


def _judge_units(medians: Mapping[str, float]) -> None:
    for name, median in medians.items():
        ceiling, unit = KINDS[name].ceiling, KINDS[name].unit
        for factor, words in FACTORS:
            low, high = MEDIANS[name]
            if max(low, ceiling / 10) <= median / factor <= high:
                raise Refused("units", f"{name} measures {median:.0f} {unit}: {words}")
        if median >= NEAR_CEILING * ceiling:
            raise Refused(
                "units", f"{name} lies at its ceiling of {ceiling:.0f} {unit} in most of the brain: wrong unit"
            )


def _judge_names(findings: MapFindings, inside: Mapping[str, np.ndarray]) -> None:
    """Raise Refused("units") where the maps would make sense under other names."""
    odd = [name for name, median in findings.medians.items() if not MEDIANS[name][0] <= median <= MEDIANS[name][1]]
    if odd or findings.residual > RESIDUAL:
        pairs = {pair: _residual_under(inside, *pair) for pair in combinations(inside, 2)}
        best = min(pairs, key=lambda pair: pairs[pair])
        if pairs[best] <= min(RESIDUAL, BETTER * findings.residual if findings.residual > RESIDUAL else RESIDUAL):
            raise Refused("units", f"{' and '.join(best)} are exchanged: they make sense only the other way round")
    if findings.swapped:
        raise Refused("units", "CBF and MTT are exchanged: what is called CBF grows with Tmax")
    if {"TTP", "Tmax"} <= inside.keys() and findings.medians["TTP"] - findings.medians["Tmax"] < ARRIVAL:
        raise Refused("units", "TTP and Tmax are exchanged: the bolus would arrive before the scan begins")
    for name in odd:
        median, unit = findings.medians[name], KINDS[name].unit
        raise Refused("implausible-maps", f"{name} measures {median:.1f} {unit} in the middle of the brain's values")


def _residual_under(inside: Mapping[str, np.ndarray], one: str, other: str) -> float:
    """The residual where two maps change their names and ranges; infinite where that makes no sense."""
    named = {**{name: name for name in inside}, one: other, other: one}
    renamed = {name: inside[of] / KINDS[of].ceiling * KINDS[name].ceiling for name, of in named.items()}
    if any(not MEDIANS[name][0] <= np.median(each) <= MEDIANS[name][1] for name, each in renamed.items()):
        return float("inf")
    return float("inf") if _is_swapped(renamed) else _residual(renamed)


def _contrary(volume: Volume, prepared: Prepared, hypoperfused: np.ndarray) -> float:
    """HU by which the lesion of the maps is denser than its mirror image, where it lies on one side alone."""
    lesion = preprocess.on_grid(replace(volume, hu=hypoperfused.astype(np.float32)), prepared.grid) > 0.5
    mask = prepared.mask
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    mirror = np.clip(columns[0] + columns[-1] - np.arange(mask.shape[2]), 0, mask.shape[2] - 1)
    low, high = preprocess.WINDOW
    hu = (prepared.planes[:, 1] + 1) * ((high - low) / 2) + low
    tissue = mask & (hu > TISSUE[0]) & (hu < TISSUE[1])
    alone = lesion & ~lesion[:, :, mirror] & tissue & tissue[:, :, mirror]
    each = np.abs(np.gradient(prepared.grid.heights)) * preprocess.SPACING**2 / 1000
    if float(alone.sum(axis=(1, 2)) @ each) < LEAST_LESION:
        return 0.0
    return float((hu - hu[:, :, mirror])[alone].mean())
