"""Parametric Map with float pixels, one per map, encoded so that web viewers draw it right (PS3.3 A.75).

highdicom sorts frames against the normal and viewers lay frame i on slice i along it: the map would be drawn upside
down. Stored values are physical / ceiling with the ceiling as the slope of the real world value mapping, because
viewers colour 0..1 and ignore the window; the file still means the physical unit.
"""

from copy import deepcopy

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from dicomnode import MANUFACTURER, MODEL_NAME
from dicomnode.writer import codes, common, multiframe
from dicomnode.writer.study import Study
from inference.maps import MapKind, PerfusionMap

FIRST_SERIES_NUMBER = 9101


def possible(study: Study) -> bool:
    """Whether the study can have parametric maps: in a frame of reference, and of a size web viewers can read.

    Web viewers stop at frames whose number of pixels is no multiple of 4.
    """
    _, rows, columns = study.volume.hu.shape
    return study.frame_of_reference_uid is not None and rows * columns % 4 == 0


def write(study: Study, perfusion_map: PerfusionMap) -> Dataset:
    """One map as a parametric map: all frames of the source, ascending along the normal."""
    kind = perfusion_map.kind
    stored = (perfusion_map.values / np.float32(kind.ceiling)).astype(np.float32, copy=False)
    for word in study.words:
        word.onto(stored, 1.0)
    ds = Dataset()
    ds.update(_highdicom(study, kind, stored))
    _order_frames(ds, study.volume.normal)
    _describe(ds, study, kind)
    return common.finish(ds, ParametricMapStorage, study.uid("pm", kind.name, 0), study.software_version)


def _highdicom(study: Study, kind: MapKind, stored: np.ndarray) -> ParametricMap:
    """The parametric map as highdicom builds it, over stand-ins for the source."""
    return ParametricMap(
        source_images=list(multiframe.stand_ins(study)),
        pixel_array=stored,
        series_instance_uid=study.uid("pm", kind.name, "series"),
        series_number=common.series_number(FIRST_SERIES_NUMBER, kind),
        sop_instance_uid=study.uid("pm", kind.name, 0),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=study.software_version,
        device_serial_number=study.device_serial_number,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(study, kind, stored)],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=[0.5],
                window_width=[1.0],
                window_explanation=[common.extent(study, kind) or "low to high"],
                voi_lut_function="LINEAR_EXACT",  # in LINEAR a width of 1 is a step of no width
            )
        ],
        content_label=f"SYNTHETIC_{kind.name}".upper()[:16],
        content_description=f"{common.DISCLAIMER}: {kind.name}",
        derivation=deepcopy(codes.SYNTHETIC_PERFUSION),
    )


def _mapping(study: Study, kind: MapKind, stored: np.ndarray) -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label=kind.name,
        lut_explanation=f"SYNTHETIC {kind.title}"[:64],
        unit=codes.unit(kind, study.manifest),
        value_range=(0.0, max(1.0, float(stored.max()))),
        slope=kind.ceiling,
        intercept=0.0,
        quantity_definition=codes.quantity(kind, study.manifest),
    )


def _order_frames(ds: Dataset, normal: np.ndarray) -> None:
    """Frames ascending along the normal, pixels and functional groups together."""
    frames = np.frombuffer(ds.FloatPixelData, np.float32).reshape(ds.NumberOfFrames, -1)
    ds.FloatPixelData = frames[multiframe.ascend(ds, normal)].tobytes()


def _describe(ds: Dataset, study: Study, kind: MapKind) -> None:
    """What highdicom leaves out, and what would differ from one rendering to the next."""
    ds.update(common.base(study))
    ds.SeriesDescription = common.series_description(study, kind.name, common.extent(study, kind))
    multiframe.complete(ds, study, study.uid("pm", kind.name, "dimension organization"))
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence, anatomy.FrameLaterality = [deepcopy(codes.BRAIN)], "U"
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]  # Slicer's reader crashes without it
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence[0].DerivationDescription = common.derivation(study, kind.title)
