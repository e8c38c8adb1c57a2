"""161 thin slices into the node, 161 slices of every map out of it, each where its source slice lies."""

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode import pipeline
from tests import phantom
from tests.walks.test_sides import Copier, walk

SLICES = 161


def middle(ds: Dataset) -> np.ndarray:
    """(3,) the centre of an image in the patient, whatever its matrix; PS3.3 C.7.6.2.1.1."""
    cosines, spacing = np.array(ds.ImageOrientationPatient, float), np.array(ds.PixelSpacing, float)
    across, down = (spacing[1] * (ds.Columns - 1) / 2, spacing[0] * (ds.Rows - 1) / 2)
    return np.array(ds.ImagePositionPatient, float) + across * cosines[:3] + down * cosines[3:]


@pytest.mark.parametrize("books_url", ["sqlite"], indirect=True)
def test_161_slices_in_161_maps_out(settings, books, spool, now, monkeypatch):
    monkeypatch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
    slices = phantom.head(phantom.even(SLICES, 1.0, -70.0), matrix=128, thickness=1.0, head_to_foot=True)
    results = walk(slices, settings, books, spool, now)
    captures = [dcmread(spool.path(r.path)) for r in results if r.kind == "sc"]
    (parametric,) = [dcmread(spool.path(r.path)) for r in results if r.kind == "pm"]
    assert len(captures) == parametric.NumberOfFrames == SLICES
    sources = {ds.SOPInstanceUID: ds for ds in slices}
    for capture in captures:
        source = sources.pop(capture.SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert middle(capture) == pytest.approx(middle(source), abs=0.01)
    assert not sources
    frames = [item.PlanePositionSequence[0] for item in parametric.PerFrameFunctionalGroupsSequence]
    heights = [float(frame.ImagePositionPatient[2]) for frame in frames]
    assert sorted(heights) == pytest.approx(sorted(float(ds.ImagePositionPatient[2]) for ds in slices), abs=0.01)
