"""QIDO-RS (PS3.18 10.6): which studies, series and instances are here."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.errors import InvalidDicomError

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Held, HeldStudy, Visitor, Wanted
from dicomnode.roles import MAY, Right
from dicomnode.web.accept import choose
from dicomnode.web.dicom_json import MEDIA, elements, some_elements
from dicomnode.web.gate import address_of, may
from dicomnode.web.seen import note_read, note_search
from dicomnode.web.site import DICOMWEB, Site, site_of

router = APIRouter(prefix=DICOMWEB)

# kind of result -> Modality that its file says
MODALITY = {
    "sc": "OT",
    "pilo": "OT",
    "pm": "OT",
    "ct": "CT",
    "seg": "SEG",
    "mosaic": "OT",
    "sr": "SR",
    "sr-comprehensive": "SR",
    "pdf": "DOC",
    "note": "KO",
    "page": "OT",
}
# What every answer holds, where the file has it (PS3.18 Tables 10.6.3-3 to 10.6.3-5).
STUDY = frozenset(
    {
        *(
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "ReferringPhysicianName",
            "TimezoneOffsetFromUTC",
            "PatientName",
        ),
        *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDescription"),
    }
)
SERIES = frozenset(
    {
        *("Modality", "TimezoneOffsetFromUTC", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber"),
        *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence"),
    }
)
INSTANCE = frozenset(
    {
        *("SOPClassUID", "SOPInstanceUID", "TimezoneOffsetFromUTC", "InstanceNumber", "Rows", "Columns"),
        *("BitsAllocated", "NumberOfFrames"),
    }
)
MATCHED = frozenset(
    {"StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate", "ModalitiesInStudy"}
)
CONTROLS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept", "emptyvaluematching"})
MOST = 500  # results of one answer
LARGEST_OFFSET = 2**31

Keys = dict[str, list[str]]
T = TypeVar("T")
Count = Annotated[int, Query(ge=1, le=10**6)]
Offset = Annotated[int, Query(ge=0, le=LARGEST_OFFSET)]
Here = Annotated[Site, Depends(site_of)]


def reader(request: Request, site: Here, who: Annotated[Visitor, Depends(may(Right.READ))]) -> Visitor:
    """Who may read; and the audit trail says that they do."""
    if study := request.path_params.get("study", ""):
        note_read(site, who, address_of(request), study)
    else:
        note_search(site, who, address_of(request), MATCHED.intersection(request.query_params.keys()))
    return who


Reader = Annotated[Visitor, Depends(reader)]


@router.get("/studies", summary="Search for studies")
def studies(request: Request, who: Reader, site: Here, limit: Count = 100, offset: Offset = 0) -> Response:
    """Studies that we have results of; for operators all that were received too."""
    choose(request, (MEDIA, "application/json"))
    keys, included = matching(request), included_fields(request)
    received, most = sees_sources(who), min(limit, MOST)
    found = bookkeeping.find_studies_held(site.books, _wanted(keys), most + 1, offset, received=received)
    rows = [_study(each, site, request, included) for each in found[:most]]
    return _answer(rows, keys.keys() - MATCHED, more=len(found) > most)


@router.get("/studies/{study}/series", summary="Search for series of a study")
def series(request: Request, who: Reader, site: Here, study: str, limit: Count = 100, offset: Offset = 0) -> Response:
    """The series of one study."""
    choose(request, (MEDIA, "application/json"))
    held = bookkeeping.find_held(site.books, study, received=sees_sources(who))
    by_series: dict[str, list[Held]] = {}
    for each in held:
        by_series.setdefault(each.series_instance_uid, []).append(each)
    keys = matching(request)
    tests: Mapping[str, Callable[[list[Held]], str]] = {
        "SeriesInstanceUID": lambda each: each[0].series_instance_uid,
        "Modality": lambda each: modality_of(each[0]),
    }
    chosen = _chosen(by_series.values(), tests, keys)
    included, most = included_fields(request), min(limit, MOST)
    rows = [_series(each, site, request, included) for each in chosen[offset : offset + most]]
    return _answer(rows, keys.keys() - tests.keys(), more=len(chosen) > offset + most)


@router.get("/studies/{study}/instances", summary="Search for instances of a study")
@router.get("/studies/{study}/series/{series}/instances", summary="Search for instances of a series")
def instances(
    request: Request, who: Reader, site: Here, study: str, series: str = "", limit: Count = 100, offset: Offset = 0
) -> Response:
    """The instances of one study or series."""
    choose(request, (MEDIA, "application/json"))
    held = bookkeeping.find_held(site.books, study, series=series, received=sees_sources(who))
    keys = matching(request)
    tests: Mapping[str, Callable[[Held], str]] = {
        "SOPInstanceUID": lambda each: each.sop_instance_uid,
        "SOPClassUID": lambda each: each.sop_class_uid,
        "SeriesInstanceUID": lambda each: each.series_instance_uid,
        "Modality": modality_of,
    }
    chosen = _chosen(held, tests, keys)
    included, most = included_fields(request), min(limit, MOST)
    rows = [_instance(each, site, request, included) for each in chosen[offset : offset + most]]
    return _answer(rows, keys.keys() - tests.keys(), more=len(chosen) > offset + most)


def sees_sources(who: Visitor) -> bool:
    """True where received instances are given out too."""
    return Right.SOURCES in MAY[who.role]


def modality_of(held: Held) -> str:
    """Modality of one instance."""
    return held.modality or MODALITY.get(held.kind, "OT")


def matching(request: Request) -> Keys:
    """Keyword -> the values of which one must match. Raises 400 for what is no attribute."""
    keys: Keys = {}
    for name, value in request.query_params.multi_items():
        if name.lower() in CONTROLS or not value:
            continue
        keyword = _keyword(name)
        values = value.replace("\\", ",").split(",") if keyword.endswith("UID") else [value]
        keys.setdefault(keyword, []).extend(each for each in values if each)
    return keys


def _keyword(name: str) -> str:
    if tag_for_keyword(name):
        return name
    keyword = keyword_for_tag(int(name, 16)) if len(name) == 8 and set(name) <= set("0123456789abcdefABCDEF") else ""
    if not keyword:
        raise HTTPException(400, f"there is no attribute of this name: {name[:64]!r}")
    return keyword


def included_fields(request: Request) -> frozenset[str]:
    """Keywords of includefield; "all" for everything."""
    given = [field for value in request.query_params.getlist("includefield") for field in value.split(",") if field]
    return frozenset("all" if field == "all" else _keyword(field) for field in given)


def _wanted(keys: Keys) -> Wanted:
    """The search in the words of the books."""
    one = {keyword: values[0] for keyword, values in keys.items()}
    earliest, dash, latest = one.get("StudyDate", "").partition("-")
    modality = one.get("ModalitiesInStudy", "")
    return Wanted(
        study_instance_uids=tuple(keys.get("StudyInstanceUID", ())),
        patient_id=one.get("PatientID", ""),
        patient_name=one.get("PatientName", ""),
        accession_number=one.get("AccessionNumber", ""),
        earliest_date=earliest,
        latest_date=latest if dash else earliest,
        kinds=frozenset(kind for kind, of in MODALITY.items() if of == modality) if modality else None,
        modality=modality,
    )


def _chosen(found: Iterable[T], tests: Mapping[str, Callable[[T], str]], keys: Keys) -> list[T]:
    wanted = [(tests[keyword], frozenset(values)) for keyword, values in keys.items() if keyword in tests]
    return [each for each in found if all(test(each) in values for test, values in wanted)]


def _study(held: HeldStudy, site: Site, request: Request, included: frozenset[str]) -> dict[str, Any]:
    uid = held.study.study_instance_uid
    known = {
        "StudyInstanceUID": uid,
        "PatientID": held.study.patient_id,
        "AccessionNumber": held.study.accession_number,
        "ModalitiesInStudy": sorted(held.modalities | {MODALITY.get(kind, "OT") for kind in held.kinds}),
        "NumberOfStudyRelatedSeries": held.series,
        "NumberOfStudyRelatedInstances": held.instances,
        "RetrieveURL": f"{site.address(request)}{DICOMWEB}/studies/{uid}",
    }
    return _row(site, held.path, STUDY | included, known)


def _series(held: list[Held], site: Site, request: Request, included: frozenset[str]) -> dict[str, Any]:
    first = held[0]
    known = {
        "StudyInstanceUID": first.study_instance_uid,
        "SeriesInstanceUID": first.series_instance_uid,
        "Modality": modality_of(first),
        "NumberOfSeriesRelatedInstances": len(held),
        "RetrieveURL": url_of(site, request, first, "series"),
    }
    return _row(site, first.path, SERIES | included, known)


def _instance(held: Held, site: Site, request: Request, included: frozenset[str]) -> dict[str, Any]:
    known = {
        "StudyInstanceUID": held.study_instance_uid,
        "SeriesInstanceUID": held.series_instance_uid,
        "SOPInstanceUID": held.sop_instance_uid,
        "SOPClassUID": held.sop_class_uid,
        "RetrieveURL": url_of(site, request, held, "instance"),
    }
    return _row(site, held.path, INSTANCE | included, known)


def url_of(site: Site, request: Request, held: Held, level: str) -> str:
    """Where a series or an instance is retrieved."""
    url = f"{site.address(request)}{DICOMWEB}/studies/{held.study_instance_uid}/series/{held.series_instance_uid}"
    return url if level == "series" else f"{url}/instances/{held.sop_instance_uid}"


def _row(site: Site, path: str, keywords: frozenset[str], known: Mapping[str, object]) -> dict[str, Any]:
    """What the file says, and over that what the books know; they know it even where the file has gone."""
    try:
        said = some_elements(site.spool.path(path), keywords) if path else {}
    except (OSError, InvalidDicomError):
        said = {}
    row = {**said, **elements({"InstanceAvailability": "ONLINE" if said else "OFFLINE", **known})}
    return dict(sorted(row.items()))


def _answer(rows: list[dict[str, Any]], unmatched: Collection[str], *, more: bool) -> Response:
    """204 where nothing was found; warnings as PS3.18 8.3.4 has them."""
    warnings = ["The search has more results than this answer; ask for the next with offset"] if more else []
    if unmatched:
        warnings.append(f"These attributes were not matched: {', '.join(sorted(unmatched))}")
    headers = {"Warning": ", ".join(f'299 dicomnode "{words}"' for words in warnings)} if warnings else {}
    if not rows:
        return Response(status_code=204, headers=headers)
    return JSONResponse(rows, headers=headers, media_type=MEDIA)
