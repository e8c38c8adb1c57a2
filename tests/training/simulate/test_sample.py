"""The demo's patient can be remade: same header rules, a lesion that a person sees on the left."""

import json

import numpy as np
import pydicom
import pytest

from inference import volume
from training.simulate import sample

pytestmark = pytest.mark.slow


def test_the_demo_patient_is_small_marked_and_ill_on_the_left(tmp_path):
    sample.write(tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))
    paths = sorted((tmp_path / "ncct").glob("*.dcm"))
    assert len(paths) == sample.SLICES
    assert sum(path.stat().st_size for path in paths) < 2_000_000
    assert truth["side"] == "left"
    assert truth["lesion_centroid_lps_mm"][0] > 10
    slices = [pydicom.dcmread(path) for path in paths]
    head = volume.from_slices(slices)
    centroid = np.array(truth["lesion_centroid_lps_mm"])
    assert mean_hu(head, centroid) < mean_hu(head, centroid * [-1, 1, 1]) - 5  # measured 26 and 33 HU
    assert all(ds.SyntheticData == "YES" for ds in slices)
    assert np.ptp([float(ds.ImagePositionPatient[2]) for ds in slices]) == pytest.approx(5.0 * (sample.SLICES - 1))


def mean_hu(head: volume.Volume, centre: np.ndarray, radius: float = 15.0) -> float:
    """Of brain and fluid in a ball in LPS mm."""
    rows, columns = np.indices(head.hu.shape[1:])
    between_rows, between_columns = head.pixel_spacing
    in_plane = (
        columns[..., None] * between_columns * head.row_direction
        + rows[..., None] * between_rows * head.column_direction
    )
    near = np.linalg.norm(head.positions[:, None, None] + in_plane - centre, axis=-1) < radius
    return float(head.hu[near & (head.hu > 0) & (head.hu < 80)].mean())


def test_a_training_patient_is_never_the_demo(tmp_path):
    with pytest.raises(ValueError, match="train"):
        sample.write(tmp_path, seed=5)
