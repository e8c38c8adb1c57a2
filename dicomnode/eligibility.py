"""May we use this series, and for which route? If not, why, in words (design contract 15)."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage, EnhancedMRImageStorage, MRImageStorage

from dicomnode import MODEL_NAME
from dicomnode.completeness import SAME_PLACE, Slice
from dicomnode.config import Settings
from dicomnode.header import numbers
from inference.refusal import Refused
from inference.volume import FEWEST_SLICES
from inference.weights import Manifest

ROUTE = "ncct"
ADULT = 18  # years
PHASES = 3  # so many images at one position are a time series
NOT_HEAD = ("ABDOMEN", "ANKLE", "ARM", "BREAST", "CHEST", "ELBOW", "FOOT", "HAND", "HEART", "HIP", "KNEE", "LEG",
            "LSPINE", "LUNG", "PELVIS", "SHOULDER", "TSPINE", "WRIST")  # fmt: skip

Rule = Callable[[Dataset, Settings], str | None]


def _unsupported(ds: Dataset, settings: Settings) -> str | None:
    if ds.SOPClassUID in (CTImageStorage, MRImageStorage, EnhancedMRImageStorage):
        return None
    return f"{UID(ds.SOPClassUID).name} is not an input of any route; CT Image Storage is"


def _no_route(ds: Dataset, settings: Settings) -> str | None:
    if ds.SOPClassUID in (MRImageStorage, EnhancedMRImageStorage):
        return "no route for MR is switched on"
    return (
        None
        if ROUTE in settings.processing.routes
        else "the route for CT is switched off in node.toml, [processing] routes"
    )


def _wrong_modality(ds: Dataset, settings: Settings) -> str | None:
    modality = ds.get("Modality")
    return None if modality == "CT" else f"the series says Modality {modality or 'nothing'}; the route needs CT"


def _own_object(ds: Dataset, settings: Settings) -> str | None:
    makers = [item.get("ManufacturerModelName") for item in ds.get("ContributingEquipmentSequence") or ()]
    return "the series was made by a perfusion node; it is not computed from again" if MODEL_NAME in makers else None


def _simulated(ds: Dataset, settings: Settings) -> str | None:
    if ds.get("SyntheticData") != "YES" or settings.node.accept_simulated:
        return None
    return "the series says Synthetic Data YES; set accept_simulated = true in node.toml to use simulated patients"


def _localizer(ds: Dataset, settings: Settings) -> str | None:
    kinds = {str(v).upper() for v in ds.get("ImageType") or ()}
    return "the series is a localizer" if kinds & {"LOCALIZER", "SCOUT"} else None


def _derived(ds: Dataset, settings: Settings) -> str | None:
    kinds = [str(v).upper() for v in ds.get("ImageType") or ()]
    return f"the series is {chr(92).join(kinds)}; original slices are needed" if "DERIVED" in kinds[:1] else None


def _contrast(ds: Dataset, settings: Settings) -> str | None:
    agent = ds.get("ContrastBolusAgent")
    return f"the series says contrast was given ({agent}); the route needs a non-contrast head CT" if agent else None


def _not_head(ds: Dataset, settings: Settings) -> str | None:
    part = str(ds.get("BodyPartExamined") or "").upper()
    return f"the series says it shows {part}; the route needs a head" if part in NOT_HEAD else None


def _paediatric(ds: Dataset, settings: Settings) -> str | None:
    years = age_in_years(str(ds.get("PatientAge") or ""))
    return (
        f"the patient is {years:.0f} years old; the maps are made for adults"
        if years is not None and years < ADULT
        else None
    )


# What one header is enough to refuse, in the order in which it is said.
RULES: tuple[tuple[str, Rule], ...] = (
    ("unsupported-class", _unsupported),
    ("own-object", _own_object),
    ("no-route", _no_route),
    ("wrong-modality", _wrong_modality),
    ("localizer", _localizer),
    ("simulated-input", _simulated),
    ("derived", _derived),
    ("contrast", _contrast),
    ("not-head", _not_head),
    ("paediatric", _paediatric),
)


def judge_at_once(headers: Sequence[Dataset], settings: Settings) -> None:
    """Raise Refused where the headers already say that the series is not for us."""
    if len({(ds.StudyInstanceUID, ds.get("PatientID")) for ds in headers}) > 1:
        raise Refused(
            "patient-conflict", "the images of the series name different patients or studies; nothing is made"
        )
    for code, rule in RULES:
        for ds in headers:
            sentence = rule(ds, settings)
            if sentence:
                raise Refused(code, sentence)


def judge_whole(headers: Sequence[Dataset], gaps: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """Raise Refused where the finished series cannot be used; else the warnings to burn into the results.

    gaps: holes that completeness found, in mm along the normal.
    """
    positions = Counter(round(s.offset / SAME_PLACE) for s in slices(headers))
    if positions and positions.most_common(1)[0][1] >= PHASES:
        raise Refused("perfusion-series", f"the series holds {positions.most_common(1)[0][1]} images at one position")
    if len(positions) < FEWEST_SLICES:
        raise Refused(
            "too-few-slices", f"the series holds {len(positions)} slices; at least {FEWEST_SLICES} are needed"
        )
    if len(gaps) > 1:
        where = ", ".join(f"{below:.1f} to {above:.1f} mm" for below, above in gaps[:4])
        raise Refused("gap", f"slices are missing at {len(gaps)} places ({where}); send the whole series")
    return tuple(f"INCOMPLETE SERIES: no slice between {below:.1f} and {above:.1f} mm" for below, above in gaps)


def slices(headers: Sequence[Dataset]) -> list[Slice]:
    """Where each slice lies along the normal of the first; headers without a position are left out."""
    normal = next((n for n in map(_normal, headers) if n is not None), None)
    if normal is None:
        return []
    placed = ((numbers(ds, "ImagePositionPatient", 3), ds.get("SliceThickness")) for ds in headers)
    return [Slice(float(np.dot(normal, p)), float(thickness or 0)) for p, thickness in placed if p]


def _normal(ds: Dataset) -> np.ndarray | None:
    cosines = numbers(ds, "ImageOrientationPatient", 6)
    return None if cosines is None else np.cross(cosines[:3], cosines[3:])


def age_in_years(age: str) -> float | None:
    """PS3.5 6.2, VR AS: nnnD, nnnW, nnnM or nnnY; None where the age is unknown."""
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    number, unit = age[:-1], age[-1:].upper()
    return int(number) / per_year[unit] if number.isdecimal() and unit in per_year else None


def judge_weights(manifest: Manifest, settings: Settings) -> None:
    """Raise Refused where these weights may not be used for what the node is set to."""
    if settings.node.intended_use == "clinical":
        raise Refused(
            "weights-locked",
            f"the weights {manifest.name} {manifest.version} ({manifest.training_domain}) have no acceptance record of "
            'this site, so clinical use is refused; set intended_use = "research" in node.toml, or accept them first',
        )
