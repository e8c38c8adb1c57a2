"""Structured report of the regions by TID 1500: volumes for machines to read (PS3.16 TID 1500, PS3.3 A.35.13, A.35.3).

Comprehensive 3D SR, or the same tree as Comprehensive SR for peers that know only that. Each group of numbers says in
a code beside them what they are not for. A region that has voxels refers to its segment; one without is told as 0 ml.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForMeasurementGroup,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr import CodedConcept as Code
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, SegmentationStorage

from dicomnode import MANUFACTURER, MODEL_NAME
from dicomnode.writer import codes, common, document, multiframe, segmentation
from dicomnode.writer.segmentation import ESTIMATE
from dicomnode.writer.study import Study, result_uid
from inference.regions import Regions

NAME = "report"
CLASSES = {  # kind -> how it is built, its SOP class, its series number
    "sr": (Comprehensive3DSR, Comprehensive3DSRStorage, 9501),
    "sr-comprehensive": (ComprehensiveSR, ComprehensiveSRStorage, 9502),
}
DEVICE = Code("121007", "DCM", "Device")
CT_HEAD = Code("24725-4", "LN", "CT Head")
VOLUME, MILLILITRE = Code("118565006", "SCT", "Volume"), Code("ml", "UCUM", "milliliter")
RATIO = Code("{ratio}", "UCUM", "ratio")


def _own(value: str, meaning: str) -> Code:
    return Code(value, codes.OWN_SCHEME, meaning)


HYPOPERFUSED = _own("TMAXOVER6", "Tissue with synthetic Tmax > 6 s")
CORE = _own("LOWCBF", "Of it, tissue with synthetic CBF < 30 % of healthy")
MISMATCH = _own("MISMATCH", "Tissue with synthetic Tmax > 6 s without low CBF")
MISMATCH_RATIO = _own("MISMATCHRATIO", "Volume of late tissue over volume of low CBF")
UNDEFINED = _own("UNDEFINED", "undefined, because no tissue has low CBF")
INTENDED_USE, NOT_FOR_TREATMENT = _own("INTENDEDUSE", "Intended use"), _own("ESTIMATE", ESTIMATE)
CAVEAT = _own("CAVEAT", "Caveat")
CAVEATS = {
    "untrained": _own("UNTRAINED", "Untrained: random weights, no meaning"),
    "virtual": _own("SIMTRAINED", "Trained on simulated data"),
    "clinical": _own("CLINTRAINED", "Trained on clinical data"),
}
SYNTHETIC = _own("SYNTHETIC", common.DISCLAIMER)
SIMULATED = _own("SIMPATIENT", "Simulated patient")
WARNED = _own("WARNED", "Computed with warnings; the pictures tell them")
NOT_AN_EXCLUSION = _own("NOTEXCLUDED", common.NOT_AN_EXCLUSION)

Group = Any  # of TID 1411 or TID 1501; highdicom has no types


def plan(study: Study) -> list[tuple[str, int]]:
    """One report, where the maps carry regions."""
    return [(NAME, 0)] if study.regions is not None else []


def write(study: Study, kind: str) -> Dataset:
    """The report as one of CLASSES; the study must have regions."""
    build, sop_class, series_number = CLASSES[kind]
    ds = Dataset()
    ds.update(
        build(
            evidence=_evidence(study),
            content=_content(study)[0],
            series_instance_uid=study.uid(kind, NAME, "series"),
            series_number=series_number,
            sop_instance_uid=study.uid(kind, NAME, 0),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
    )
    ds.update(document.base(study))
    ds.SeriesDescription = common.series_description(study, NAME)
    return common.finish(ds, sop_class, study.uid(kind, NAME, 0), study.software_version)


def _content(study: Study) -> MeasurementReport:
    if study.regions is None:
        raise ValueError("the study has no regions; report.plan says so")
    device = DeviceObserverIdentifyingAttributes(
        uid=result_uid(study.device_serial_number, "device", MODEL_NAME, 0),
        name=study.device_serial_number,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=study.device_serial_number,
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(DEVICE, device)),
        procedure_reported=CT_HEAD,
        imaging_measurements=list(_groups(study, study.regions)),
    )


def _groups(study: Study, found: Regions) -> Iterator[Group]:
    segments = segmentation.core_and_late(study, found)
    numbers = {region.label: n for n, region in enumerate((s for s in segments if s.where.any()), start=1)}
    for region, finding, ml in zip(segments, (HYPOPERFUSED, CORE), (found.hypoperfused_ml, found.core_ml), strict=True):
        tracking = segmentation.tracking_uid(study, "regions", region), f"SYNTHETIC {region.label}"
        number = numbers.get(region.label)
        yield _group(study, tracking, finding, [_millilitres(ml)], [], number)
    ratio = found.mismatch_ratio
    measured = [_millilitres(found.mismatch_ml)]
    if ratio is not None:
        measured.append(Measurement(name=MISMATCH_RATIO, value=round(ratio, 2), unit=RATIO))
    undefined = [] if ratio is not None else [QualitativeEvaluation(MISMATCH_RATIO, UNDEFINED)]
    tracking = study.uid("sr", NAME, "tracking mismatch"), "SYNTHETIC mismatch"
    yield _group(study, tracking, MISMATCH, measured, undefined, None)


def _millilitres(value: float) -> Measurement:
    return Measurement(name=VOLUME, value=round(value, 1), unit=MILLILITRE)


def _group(
    study: Study,
    tracking: tuple[str, str],
    finding: Code,
    measurements: list[Measurement],
    evaluations: list[QualitativeEvaluation],
    segment: int | None,
) -> Group:
    """One group of numbers, of a segment or of the slices alone, with what a reader must know beside them."""
    common_to_both = {
        "tracking_identifier": TrackingIdentifier(*tracking),
        "finding_category": codes.FUNCTION,
        "finding_type": finding,
        "finding_sites": [FindingSite(codes.BRAIN)],
        "algorithm_id": _algorithm(study),
        "measurements": measurements,
        "qualitative_evaluations": [*evaluations, *_cautions(study)],
    }
    if segment is None:
        sources = {ds.SOPInstanceUID: ds.SOPClassUID for ds in study.source}  # all frames of one are the image itself
        images = [SourceImageForMeasurementGroup(sop_class, uid) for uid, sop_class in sources.items()]
        return MeasurementsAndQualitativeEvaluations(**common_to_both, source_images=images)
    source = SourceSeriesForSegmentation(study.source[0].SeriesInstanceUID)
    uid = study.uid("seg", "regions", 0)
    referenced = ReferencedSegment(SegmentationStorage, uid, segment, source_series=source)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(**common_to_both, referenced_segment=referenced)


def _cautions(study: Study) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(INTENDED_USE, NOT_FOR_TREATMENT)
    simulated, warned = [SIMULATED] * study.simulated_input, [WARNED] * bool(study.warnings)
    for caveat in (SYNTHETIC, CAVEATS[study.manifest.training_domain], *simulated, *warned, NOT_AN_EXCLUSION):
        yield QualitativeEvaluation(CAVEAT, deepcopy(caveat))


def _algorithm(study: Study) -> AlgorithmIdentification:
    manifest = study.manifest
    return AlgorithmIdentification(
        name=manifest.name,
        version=manifest.version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
        parameters=[f"weights sha256 {manifest.sha256[:16]}", f"training {manifest.training_domain}"],
    )


def _evidence(study: Study) -> list[Dataset]:
    """The instances that the report refers to: the source slices, and the segmentation where there is one."""
    stand_ins = list(multiframe.stand_ins(study))
    for ds, source in zip(stand_ins, study.source, strict=True):
        ds.SOPClassUID, ds.SOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    evidence = list({ds.SOPInstanceUID: ds for ds in stand_ins}.values())
    if segmentation.plan(study):
        seg = deepcopy(evidence[0])
        seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, study.uid("seg", "regions", 0)
        seg.SeriesInstanceUID = study.uid("seg", "regions", "series")
        evidence.append(seg)
    return evidence
