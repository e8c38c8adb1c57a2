"""May we use this series, and for which route? If not, why, in words (design contract 15)."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from dicomnode import MODEL_NAME, cautions, kernels, places
from dicomnode.ages import age
from dicomnode.config import Settings
from dicomnode.kernels import Kernel
from inference import frames
from inference.refusal import Refused
from inference.volume import FEWEST_SLICES, STEEPEST_NORMAL
from inference.weights import Manifest

ROUTE = "ncct"
CT = frozenset({CTImageStorage, *frames.ENHANCED})
MR = frozenset(
    {MRImageStorage, EnhancedMRImageStorage, EnhancedMRColorImageStorage, LegacyConvertedEnhancedMRImageStorage}
)
SCOUTS = {"LOCALIZER", "SCOUT"}  # values of Image Type
ADULT = 18  # years
FARTHEST = 10.0  # mm between two slices of a series without gaps; the head between them is interpolated
# Series descriptions that leave no doubt; what is left out (delayed, bolus) the image itself must tell.
CONTRAST_WORDS = re.compile(
    r"(?<![a-z])(ct[av]|(ct )?angio\w*|arterial|venous|post[ -]?(contrast|km)|(?<!non[ -])contrast enhanced|"
    r"with contrast|w/ ?contrast|mit km|c\+|\+c)(?![a-z])",
    re.IGNORECASE,
)
PERFUSION_WORDS = re.compile(r"(?<![a-z])(perfusion|perf|ctp|vpct|ct[ -]?perf\w*)(?![a-z])", re.IGNORECASE)
CT_PERFUSION = "the series is a CT perfusion; no route for CT perfusion is switched on"
NOT_HEAD = ("ABDOMEN", "ANKLE", "ARM", "BREAST", "CHEST", "ELBOW", "FOOT", "HAND", "HEART", "HIP", "KNEE", "LEG",
            "LSPINE", "LUNG", "PELVIS", "SHOULDER", "TSPINE", "WRIST")  # fmt: skip

Rule = Callable[[Dataset, Settings], str | None]


def _unsupported(ds: Dataset, settings: Settings) -> str | None:
    if ds.SOPClassUID in CT | MR:
        return None
    return f"{UID(ds.SOPClassUID).name} is not an input of any route; CT Image Storage is"


def _no_route(ds: Dataset, settings: Settings) -> str | None:
    if ds.SOPClassUID in MR:
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


def _kinds(ds: Dataset) -> set[str]:
    return {str(v).upper() for v in ds.get("ImageType") or ()}


def _localizer(ds: Dataset, settings: Settings) -> str | None:
    return "the series is a localizer" if _kinds(ds) & SCOUTS else None


def _derived(ds: Dataset, settings: Settings) -> str | None:
    kinds = [str(v).upper() for v in ds.get("ImageType") or ()]
    # Whoever compresses with loss has to write DERIVED (PS3.3 C.7.6.1.1.5); the slice is the one that was acquired.
    squeezed = kinds[1:2] == ["PRIMARY"] and cautions.is_lossy(ds)
    made = ("DERIVED" in kinds[:1] and not squeezed) or {"SCREEN SAVE", "DOSE_INFO"} & set(kinds)
    return f"the series is {chr(92).join(kinds)}; original slices are needed" if made else None


def _perfusion(ds: Dataset, settings: Settings) -> str | None:
    said = PERFUSION_WORDS.search(str(ds.get("SeriesDescription") or ""))
    phases = str(ds.get("NumberOfTemporalPositions") or "")
    return CT_PERFUSION if said or (phases.isdecimal() and int(phases) > 1) else None


def _contrast(ds: Dataset, settings: Settings) -> str | None:
    given = ds.get("ContrastBolusAgentSequence") and ds.get("ContrastBolusAgentAdministered") != "NO"
    said = CONTRAST_WORDS.search(str(ds.get("SeriesDescription") or ""))
    agent = ds.get("ContrastBolusAgent") or ("an agent is named" if given else said and said.group())
    return f"the series says contrast was given ({agent}); the route needs a non-contrast head CT" if agent else None


def _not_head(ds: Dataset, settings: Settings) -> str | None:
    part = str(ds.get("BodyPartExamined") or "").upper()
    return f"the series says it shows {part}; the route needs a head" if part in NOT_HEAD else None


def _paediatric(ds: Dataset, settings: Settings) -> str | None:
    years = age(ds)
    return (
        f"the patient is {years:.0f} years old; the maps are made for adults"
        if years is not None and years < ADULT
        else None
    )


def _nameless(ds: Dataset, settings: Settings) -> str | None:
    if str(ds.get("PatientID") or "").strip() or settings.node.accept_anonymous:
        return None
    return (
        "the images carry no Patient ID, so nobody could tell whose maps they were; send them with one, or set "
        "accept_anonymous = true in node.toml"
    )


def _oblique(ds: Dataset, settings: Settings) -> str | None:
    normal = places.normal(ds)
    if normal is None or not normal.any():
        return None
    angle = float(np.degrees(np.arccos(min(1.0, abs(normal[2]) / np.linalg.norm(normal)))))
    limit = f"at most {STEEPEST_NORMAL:.0f} are possible"
    return f"the slices lie {angle:.0f} degrees off the axial plane; {limit}" if angle > STEEPEST_NORMAL else None


def _sharp(ds: Dataset, settings: Settings) -> str | None:
    kernel = kernels.name(ds)
    sharp = kernels.kind(ds) is Kernel.SHARP
    return f"the kernel {kernel} shows bone and hides brain; send the series of a soft kernel" if sharp else None


# What one header is enough to refuse, in the order in which it is said.
RULES: tuple[tuple[str, Rule], ...] = (
    ("unsupported-class", _unsupported),
    ("own-object", _own_object),
    ("no-route", _no_route),
    ("wrong-modality", _wrong_modality),
    ("localizer", _localizer),
    ("simulated-input", _simulated),
    ("derived", _derived),
    ("no-route", _perfusion),
    ("contrast", _contrast),
    ("not-head", _not_head),
    ("paediatric", _paediatric),
    ("oblique", _oblique),
    ("bone-kernel", _sharp),
    ("patient-conflict", _nameless),
)


def judge_at_once(headers: Sequence[Dataset], settings: Settings) -> None:
    """Raise Refused where the headers already say that the series is not for us."""
    if len({(ds.StudyInstanceUID, str(ds.get("PatientID"))) for ds in headers}) > 1:
        raise Refused(
            "patient-conflict", "the images of the series name different patients or studies; nothing is made"
        )
    for code, rule in RULES:
        for ds in headers:
            sentence = rule(ds, settings)
            if sentence and code == "contrast" and places.most_at_one(headers) >= places.PHASES:
                raise Refused("no-route", CT_PERFUSION)  # contrast that is followed through time
            if sentence:
                raise Refused(code, sentence)


def scouts(headers: Sequence[Dataset]) -> set[int]:
    """Indices of the localizers that some scanners put into the series of slices; none where there is nothing else."""
    found = {i for i, ds in enumerate(headers) if _kinds(ds) & SCOUTS}
    return found if len(found) < len(headers) else set()


def judge_whole(headers: Sequence[Dataset], gaps: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """Raise Refused where the finished series cannot be used; else the warnings to burn into the results.

    gaps: holes that completeness found, in mm along the normal.
    """
    most, positions = places.most_at_one(headers), places.count(headers)
    if most >= places.PHASES:
        raise Refused("perfusion-series", f"the series holds {most} images at one position, which is a time series")
    if positions < FEWEST_SLICES:
        raise Refused("too-few-slices", f"the series holds {positions} slices; at least {FEWEST_SLICES} are needed")
    if len(gaps) > 1:
        where = ", ".join(f"{below:.1f} to {above:.1f} mm" for below, above in gaps[:4])
        raise Refused("gap", f"slices are missing at {len(gaps)} places ({where}); send the whole series")
    farthest = places.steps(headers)[1]
    if farthest > FARTHEST and not gaps:
        raise Refused("gap", f"the slices lie {farthest:.1f} mm apart; at most {FARTHEST:.0f} mm are possible")
    return cautions.of(headers, gaps)


def judge_weights(manifest: Manifest, settings: Settings) -> None:
    """Raise Refused where these weights may not be used for what the node is set to."""
    if settings.node.intended_use == "clinical":
        raise Refused(
            "weights-locked",
            f"the weights {manifest.name} {manifest.version} ({manifest.training_domain}) have no acceptance record of "
            'this site, so clinical use is refused; set intended_use = "research" in node.toml, or accept them first',
        )
