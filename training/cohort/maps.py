"""Perfusion maps that state their values: parametric maps, and CT images with a rescale."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import CTImageStorage, ParametricMapStorage

from inference import volume
from inference.maps import KINDS, MapKind
from inference.volume import AIR
from training.cohort import Rejected
from training.cohort.captures import Styles, read_captures
from training.cohort.lattice import FEWEST_SLICES, Frame, Placed, stack, whole
from training.cohort.series import Series


def read(series: Series, lenders: Sequence[Series], styles: Styles) -> Placed:
    """The values of a map series. lenders: whose slices a capture without geometry may have been made from.

    Raises Rejected or inference.refusal.Refused.
    """
    sop_class = series.header.SOPClassUID
    if sop_class == ParametricMapStorage:
        return _parametric(series)
    if sop_class == CTImageStorage and series.header.get("SamplesPerPixel") == 1:
        return _derived(series)
    return read_captures(series, lenders, styles)


def _derived(series: Series) -> Placed:
    """CT images whose rescale gives the unit; padding is no data."""
    values = volume.from_slices(whole(series), FEWEST_SLICES)
    values = replace(values, hu=np.where(values.hu <= AIR, np.float32(np.nan), values.hu))
    return Placed(KINDS[series.kind], values, series.frame_of_reference)


def _parametric(series: Series) -> Placed:
    """All frames of all instances by their real-world values; PS3.3 C.7.6.16.2.11."""
    kind, planes = KINDS[series.kind], []
    for ds in whole(series):
        values = np.atleast_3d(pixel_array(ds)).astype(np.float64)
        values = values.reshape(-1, int(ds.Rows), int(ds.Columns))
        shared = ds.SharedFunctionalGroupsSequence[0]
        for frame, own in zip(values, ds.PerFrameFunctionalGroupsSequence, strict=True):
            planes.append(_frame(frame, own, shared, series, kind))
    return Placed(kind, stack(planes, series), series.frame_of_reference)


def _frame(values: np.ndarray, own: Dataset, shared: Dataset, series: Series, kind: MapKind) -> Frame:
    def group(name: str) -> Dataset:
        found = own.get(name) or shared.get(name)
        if not found:
            raise Rejected(f"{series} has no {name}; its place or its unit is unknown")
        item: Dataset = found[0]
        return item

    mapping, measures = group("RealWorldValueMappingSequence"), group("PixelMeasuresSequence")
    rows, columns = (float(v) for v in measures.PixelSpacing)
    return Frame(
        _real_world(values, mapping, series, kind),
        np.array([float(v) for v in group("PlanePositionSequence").ImagePositionPatient]),
        np.array([float(v) for v in group("PlaneOrientationSequence").ImageOrientationPatient]),
        (rows, columns),
        float(measures.get("SliceThickness") or 0.0),
    )


def _real_world(stored: np.ndarray, mapping: Dataset, series: Series, kind: MapKind) -> np.ndarray:
    """Stored values to the unit of the kind; nan stays, and a look-up table is not read."""
    unit = mapping.MeasurementUnitsCodeSequence[0].CodeValue if mapping.get("MeasurementUnitsCodeSequence") else "none"
    if unit != kind.ucum[0]:
        raise Rejected(f"{series} is in the unit {unit!r}; {kind.name} is wanted in {kind.ucum[0]!r}")
    if mapping.get("RealWorldValueSlope") is None:
        raise Rejected(f"{series} has no Real World Value Slope; tables of real-world values are not read")
    return stored * float(mapping.RealWorldValueSlope) + float(mapping.get("RealWorldValueIntercept") or 0.0)
