"""Who a virtual patient is: everything drawn from the seed that has a name, a unit and a place in the manifest.

Shares, means and spreads marked [D] are design choices, [L] come from the seed papers; simulation.md section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from pydantic import TypeAdapter

from training.simulate.anatomy import (
    CALCIFIED,
    HAEMORRHAGES,
    LEFT,
    OCCLUSIONS,
    OLIGAEMIC,
    PALLIDUM,
    RIGHT,
    SIGN,
    TERRITORIES,
    Point,
)
from training.simulate.fields import Owner, Streams

Severity = Literal["none", "mild", "severe"]
Side = Literal["right", "left"]
Kind = Literal["stroke", "normal", "oligaemia", "old infarct", "haemorrhage", "lacunes", "stenosis"]
Residue = Literal["exponential", "box", "fermi", "gamma"]
Scanner = Literal["usual", "other"]  # rows of scanner.KERNELS

Mix = Literal["natural", "test", "balanced"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
MIXES: dict[Mix, tuple[float, float, float]] = {  # shares of none, mild, severe
    "natural": (0.81, 0.07, 0.12),  # [L] all patients of the paper
    "test": (0.62, 0.17, 0.21),  # [L] 104, 29 and 35 of its 168 test patients
    "balanced": (1 / 3, 1 / 3, 1 / 3),
}
WITHOUT_STROKE: dict[Kind, float] = {  # [D] class none is not all healthy
    "normal": 0.52,
    "oligaemia": 0.12,
    "old infarct": 0.14,
    "haemorrhage": 0.08,
    "lacunes": 0.08,
    "stenosis": 0.06,
}
SPLITS = {  # design.md contract 18
    "train": range(1_000_000),
    "validation": range(1_000_000, 2_000_000),
    "test": range(2_000_000, 3_000_000),
    "external": range(3_000_000, 4_000_000),
}


def split_of(seed: int) -> str:
    """The split that a seed belongs to; "demo" outside all of them."""
    return next((name for name, seeds in SPLITS.items() if seed in seeds), "demo")


@dataclass(frozen=True, slots=True)
class Population:
    """[D] How patients and scanners of one kind of hospital are spread. age in years, noise in HU at 5 mm."""

    age: tuple[float, float] = (69.0, 14.0)
    tilted: float = 0.30
    noise: tuple[float, float] = (2.6, 4.4)
    residue: Residue = "exponential"
    scanner: Scanner = "usual"


HERE = Population()
ELSEWHERE = Population(age=(61.0, 16.0), tilted=0.6, noise=(3.6, 5.4), residue="gamma", scanner="other")


def population_of(seed: int) -> Population:
    """Where a patient comes from: the external-like seeds from elsewhere (design.md contract 18)."""
    return ELSEWHERE if split_of(seed) == "external" else HERE


@dataclass(frozen=True, slots=True)
class Pose:
    """How the template lies in the scanner: scale per axis, degrees about x, y and z, mm along them (MNI)."""

    scale: Point
    rotation: Point
    shift: Point
    tilt: float  # degrees of the gantry


@dataclass(frozen=True, slots=True)
class Build:
    """Shapes that differ between people.

    ventricle: mm that ventricle walls move outwards; asymmetry: right against left, -0.25..0.25. atrophy and white
    (matter lesions): loads without unit, about 0..1. skull and scalp: mean thickness in mm.
    """

    ventricle: float
    asymmetry: float
    atrophy: float
    white: float
    skull: float
    scalp: float


@dataclass(frozen=True, slots=True)
class Blood:
    """haematocrit as a fraction; CBF in ml/100 g/min and CBV in ml/100 g of healthy tissue; the residue family."""

    haematocrit: float
    grey_cbf: float
    white_cbf: float
    grey_cbv: float
    white_cbv: float
    residue: Residue


@dataclass(frozen=True, slots=True)
class Bolus:
    """The gamma variate of the arterial input: arrival in s, shape, time scale in s, peak in HU."""

    arrival: float
    shape: float
    scale: float
    peak: float


@dataclass(frozen=True, slots=True)
class Stroke:
    """An acute occlusion. ratio: of core to Tmax > 6 s that the collaterals are solved for, 0 for oligaemia.

    onset: hours before the scan. clot: HU of a clot that NCCT shows, or None.
    """

    vessel: str
    side: Side
    onset: float
    ratio: float
    clot: float | None


@dataclass(frozen=True, slots=True)
class Ball:
    """A roundish focal lesion in the template: mm. hu is read where the table of tissues has none for it."""

    centre: Point
    radius: float
    hu: float = 0.0


@dataclass(frozen=True, slots=True)
class Focal:
    """Everything that is not the acute stroke."""

    old_infarcts: tuple[Ball, ...] = ()
    haemorrhages: tuple[Ball, ...] = ()
    lacunes: tuple[Ball, ...] = ()
    calcifications: tuple[Ball, ...] = ()
    stenosis: Side | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the CT was made: noise in HU at 5 mm slices, strengths of artefacts, whether the head moved (mm, else 0)."""

    noise: float
    streaks: float
    cupping: float
    motion: float
    head_rest: bool


@dataclass(frozen=True, slots=True)
class PatientParams:
    """One virtual patient before anything is computed."""

    seed: int
    attempt: int
    severity: Severity
    kind: Kind
    sex: Literal["F", "M"]
    age: float
    pose: Pose
    build: Build
    blood: Blood
    bolus: Bolus
    stroke: Stroke | None
    focal: Focal
    acquisition: Acquisition

    def to_json(self) -> str:
        """One line; `from_json` gives back the same values bit for bit."""
        return _ADAPTER.dump_json(self).decode()


_ADAPTER = TypeAdapter(PatientParams)


def from_json(text: str) -> PatientParams:
    """The inverse of PatientParams.to_json."""
    return _ADAPTER.validate_json(text)


def draw(seed: int, mix: Mix = "test", severity: Severity | None = None, attempt: int = 0) -> PatientParams:
    """A patient from a seed; severity fixes the class that the mix would draw. Same arguments, same patient."""
    if mix not in MIXES:
        raise ValueError(f"no mix is called {mix!r}; choose one of: {', '.join(MIXES)}")
    first = Streams(seed).generator("parameters", Owner.ANATOMY)
    drawn = cast(Severity, str(first.choice(SEVERITIES, p=MIXES[mix])))  # attempts redraw the patient, never the class
    severity = severity or drawn
    random = Streams(seed, attempt).generator("parameters", Owner.ANATOMY, repeat=1)
    population = population_of(seed)
    sex: Literal["F", "M"] = "F" if random.random() < 0.5 else "M"
    age = float(np.clip(random.normal(*population.age), 22, 97))
    kind = "stroke" if severity != "none" else _pick(random, WITHOUT_STROKE)
    return PatientParams(
        seed=seed,
        attempt=attempt,
        severity=severity,
        kind=cast(Kind, kind),
        sex=sex,
        age=age,
        pose=_pose(random, sex, population),
        build=_build(random, age),
        blood=_blood(random, age, population),
        bolus=Bolus(random.uniform(4, 7), random.uniform(2.6, 3.4), random.uniform(1.3, 1.8), random.normal(320, 50)),
        stroke=_stroke(random, severity, kind),
        focal=_focal(random, kind, age),
        acquisition=_acquisition(random, population),
    )


def _pick(random: np.random.Generator, shares: dict[Kind, float] | dict[str, float]) -> str:
    return str(random.choice(list(shares), p=list(shares.values())))


def _side(random: np.random.Generator) -> Side:
    return "right" if random.random() < 0.5 else "left"


def _point(values: Sequence[float] | np.ndarray) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _pose(random: np.random.Generator, sex: str, population: Population) -> Pose:
    """The template's brain is larger than life (1,886 ml measured), so heads are smaller than it."""
    scale = random.normal(1.0, 0.02, 3) * (0.945 if sex == "M" else 0.91)
    rotation, shift = random.normal(0, (4.0, 2.5, 3.5)), random.normal(0, (4.0, 5.0, 4.0))
    tilt, tilted = random.uniform(8, 18), random.random() < population.tilted
    return Pose(_point(scale), _point(rotation), _point(shift), float(tilt) if tilted else 0.0)


def _build(random: np.random.Generator, age: float) -> Build:
    older = (age - 50) / 40
    return Build(
        ventricle=float(np.clip(random.normal(1.2 + 3.0 * older, 1.3), -1.0, 7.0)),
        asymmetry=random.uniform(-0.25, 0.25),
        atrophy=float(np.clip(random.normal(0.25 + 0.35 * older, 0.15), 0.0, 0.9)),
        white=float(np.clip(random.gamma(1.2, 0.28) * max(0.0, older + 0.6), 0.0, 1.2)),
        skull=float(np.clip(random.normal(4.7, 0.8), 3.0, 7.0)),
        scalp=float(np.clip(random.normal(7.5, 1.5), 4.0, 12.0)),
    )


def _blood(random: np.random.Generator, age: float, population: Population) -> Blood:
    grey_cbf = random.normal(50 - 6 * (age - 50) / 40, 4.0)
    grey_cbv = random.normal(3.5, 0.25)
    return Blood(
        haematocrit=float(np.clip(random.normal(0.42, 0.04), 0.28, 0.56)),
        grey_cbf=grey_cbf,
        white_cbf=random.normal(0.43, 0.03) * grey_cbf,
        grey_cbv=grey_cbv,
        white_cbv=random.normal(0.50, 0.03) * grey_cbv,
        residue=population.residue,
    )


def _stroke(random: np.random.Generator, severity: Severity, kind: str) -> Stroke | None:
    """The onset is log-normal about 4.5 h [L]; ratios keep clear of the class limits 0 and 0.5."""
    ratio = {"none": 0.0, "mild": random.uniform(0.08, 0.45), "severe": random.uniform(0.55, 0.90)}[severity]
    shares = {vessel: occlusion.share for vessel, occlusion in OCCLUSIONS.items()}
    vessel = _pick(random, shares) if kind == "stroke" else str(random.choice(OLIGAEMIC))
    side, onset = _side(random), float(np.clip(random.lognormal(np.log(4.5), 0.75), 0.7, 24.0))
    clot, dense = random.normal(64, 6), random.random() < OCCLUSIONS[vessel].hyperdense
    if kind not in ("stroke", "oligaemia"):
        return None
    return Stroke(vessel, side, onset, ratio, float(clot) if dense and kind == "stroke" else None)


def _focal(random: np.random.Generator, kind: str, age: float) -> Focal:
    old = random.random() < 0.18 if kind == "stroke" else kind == "old infarct"
    few = int(random.integers(3)) if age > 60 else 0
    stenosis = _side(random)
    return Focal(
        old_infarcts=(_old_infarct(random),) if old else (),
        haemorrhages=(_haemorrhage(random),) if kind == "haemorrhage" else (),
        lacunes=tuple(_lacune(random) for _ in range(max(few, 3) if kind == "lacunes" else few)),
        calcifications=tuple(_calcifications(random, age)),
        stenosis=stenosis if kind == "stenosis" else None,
    )


def _old_infarct(random: np.random.Generator) -> Ball:
    territory = TERRITORIES[str(random.choice(("M2 superior", "M2 inferior", "PCA", "ACA")))]
    x, y, z = territory.seeds[int(random.integers(len(territory.seeds)))]
    return Ball((SIGN[_side(random)] * x, y, z), random.uniform(9, 22))


def _haemorrhage(random: np.random.Generator) -> Ball:
    x, y, z = HAEMORRHAGES[int(random.integers(len(HAEMORRHAGES)))]
    return Ball((SIGN[_side(random)] * x, y, z), random.uniform(8, 21))


def _lacune(random: np.random.Generator) -> Ball:
    x, y, z = random.uniform((12, -20, -2), (30, 15, 22))
    return Ball((SIGN[_side(random)] * float(x), float(y), float(z)), random.uniform(2.5, 6.0))


def _calcifications(random: np.random.Generator, age: float) -> list[Ball]:
    """Pineal gland and choroid plexus more often with age, pallidum in a quarter of those over 60 [D]."""
    likely = np.clip(0.5 + 0.4 * (age - 50) / 40, 0.1, 0.9)
    found = []
    for centre in CALCIFIED:
        place, radius, hu = (
            np.array(centre) + random.uniform(-2, 2, 3),
            random.uniform(1.5, 3.5),
            random.uniform(60, 260),
        )
        if random.random() < likely:
            found.append(Ball(_point(place), radius, hu))
    radius, hu = random.uniform(2.0, 4.0), random.uniform(15, 60)
    if age > 60 and random.random() < 0.25:
        found += [Ball((SIGN[side] * PALLIDUM[0], *PALLIDUM[1:]), radius, hu) for side in (RIGHT, LEFT)]
    return found


def _acquisition(random: np.random.Generator, population: Population) -> Acquisition:
    moved, motion = random.random() < 0.05, random.uniform(1.0, 3.0)
    return Acquisition(
        noise=random.uniform(*population.noise),
        streaks=random.uniform(0.4, 1.3),
        cupping=random.uniform(1.5, 3.5),
        motion=motion if moved else 0.0,
        head_rest=random.random() < 0.7,
    )
