"""Segmentation, binary: low flow and late tissue, and bands of Tmax (PS3.3 A.51).

Two series: "regions" is the hypoperfused tissue and the core within it; "Tmax" the bands, none of which overlap. In
viewers that draw parametric maps wrongly the bands are the map that is right. Regions without a voxel are left out,
and a series without regions does not exist, because viewers would show a segmentation of nothing.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import UID, SegmentationStorage

from dicomnode import MANUFACTURER, MODEL_NAME
from dicomnode.writer import codes, common, multiframe
from dicomnode.writer.palette import RAINBOW
from dicomnode.writer.study import Study
from inference import regions
from inference.maps import KINDS

FIRST_SERIES_NUMBER = 9301
SERIES = {"regions": "regions", "Tmax": "Tmax bands"}  # name -> in the series description
ESTIMATE = "synthetic estimate, not for treatment selection"


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One segment: what it is, where it is (slices, rows, columns) bool, and its place in the palette, 0 to 1."""

    label: str
    where: np.ndarray
    level: float


def plan(study: Study) -> list[tuple[str, int]]:
    """The series that are not empty; none without a frame of reference, or where the maps carry no regions."""
    return [(name, 0) for name in SERIES if study.frame_of_reference_uid and _regions(study, name)]


def write(study: Study, name: str) -> Dataset:
    """One series: the frames of each region that are not empty, ascending along the normal."""
    found = _regions(study, name)
    ds = Dataset()
    ds.update(_highdicom(study, name, found))
    _order_frames(ds, study.volume.normal)
    _describe(ds, study, name)
    return common.finish(ds, SegmentationStorage, study.uid("seg", name, 0), study.software_version)


def _regions(study: Study, name: str) -> list[Region]:
    """The regions of a series that hold a voxel, the larger before what lies within it."""
    if study.regions is None:
        return []
    found = {"regions": core_and_late, "Tmax": _bands}[name](study, study.regions)
    return [region for region in found if region.where.any()]


def core_and_late(study: Study, found: regions.Regions) -> list[Region]:
    """Late tissue and the core within it, with or without voxels."""
    late = f"Tmax > {regions.HYPOPERFUSED:g} s"
    low = f"low CBF, < {regions.CORE * 100:g} % and {late}"
    return [Region(late, found.hypoperfused, 0.7), Region(low, found.core, 0.2)]


def tracking_uid(study: Study, name: str, region: Region) -> UID:
    """By which a segment and the numbers of a report are known to be of the same region."""
    return study.uid("seg", name, f"tracking {region.label}")


def _bands(study: Study, found: regions.Regions) -> Iterator[Region]:
    tmax, ceiling = study.map_named("Tmax").values, KINDS["Tmax"].ceiling
    each = regions.bands(tmax, study.brain, regions.slice_voxel_ml(study.volume))
    for (low, high), where in zip(regions.BANDS, each, strict=True):
        label = f"Tmax {low:g}-{high:g} s" if np.isfinite(high) else f"Tmax > {low:g} s"
        yield Region(label, where, (low + min(high, ceiling)) / 2 / ceiling)


def _highdicom(study: Study, name: str, found: list[Region]) -> Segmentation:
    """The segmentation as highdicom builds it, over stand-ins for the source."""
    return Segmentation(
        source_images=list(multiframe.stand_ins(study)),
        pixel_array=np.stack([region.where for region in found], axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(study, name, number, region) for number, region in enumerate(found, start=1)],
        series_instance_uid=study.uid("seg", name, "series"),
        series_number=FIRST_SERIES_NUMBER + list(SERIES).index(name),
        sop_instance_uid=study.uid("seg", name, 0),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=study.software_version,
        device_serial_number=study.device_serial_number,
        content_label=f"SYNTHETIC_{name}".upper()[:16],
        content_description=f"{common.DISCLAIMER}: {SERIES[name]}",
    )


def _segment(study: Study, name: str, number: int, region: Region) -> SegmentDescription:
    training = {"untrained": "UNTRAINED ", "virtual": "", "clinical": ""}[study.manifest.training_domain]
    segment = SegmentDescription(
        segment_number=number,
        segment_label=f"SYNTHETIC {training}estimate {region.label}",
        segmented_property_category=codes.FUNCTION,
        segmented_property_type=codes.PERFUSION,
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(study),
        tracking_uid=tracking_uid(study, name, region),
        tracking_id=f"SYNTHETIC {region.label}",
        anatomic_regions=[codes.BRAIN],
        display_color=CIELabColor.from_rgb(*(int(v) for v in RAINBOW[round(region.level * 255)])),
    )
    segment.SegmentDescription = f"{region.label}: {ESTIMATE}"
    return segment


def _algorithm(study: Study) -> AlgorithmIdentificationSequence:
    manifest = study.manifest
    return AlgorithmIdentificationSequence(
        name=manifest.name,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=manifest.version,
        source=MANUFACTURER,
        parameters={"weights sha256": manifest.sha256[:16], "training": manifest.training_domain},
    )


def _order_frames(ds: Dataset, normal: np.ndarray) -> None:
    """Frames ascending along the normal within each region, bits and functional groups together."""
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    frames = bits[: ds.NumberOfFrames * ds.Rows * ds.Columns].reshape(ds.NumberOfFrames, -1)
    ds.PixelData = pack_bits(frames[multiframe.ascend(ds, normal)].ravel())


def _describe(ds: Dataset, study: Study, name: str) -> None:
    """What highdicom leaves out, and what would differ from one rendering to the next."""
    ds.update(common.base(study))
    ds.SeriesDescription = common.series_description(study, SERIES[name])
    multiframe.complete(ds, study, study.uid("seg", name, "dimension organization"))
    for group in ds.PerFrameFunctionalGroupsSequence:
        for derived in group.DerivationImageSequence:
            derived.DerivationDescription = common.derivation(study, SERIES[name])
            derived.DerivationCodeSequence = [deepcopy(codes.SYNTHETIC_PERFUSION)]
