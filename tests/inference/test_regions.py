"""Core, hypoperfused tissue and mismatch of boxes whose volumes are known."""

import numpy as np
import pytest

from inference import regions
from inference.volume import from_slices
from tests import phantom

SHAPE = (6, 40, 40)
VOXEL = 0.05  # ml: a cluster of 20 voxels is 1 ml
LEFT = (np.arange(40) >= 20)[None, None]  # columns increase towards the patient's left


class Head:
    """All brain, CBF 50 left and 40 right, Tmax 2 s; boxes are put in by hand."""

    def __init__(self) -> None:
        self.brain = np.ones(SHAPE, bool)
        self.cbf = np.where(LEFT, 50.0, 40.0) * np.ones(SHAPE)
        self.tmax = np.full(SHAPE, 2.0)

    def find(self, voxel_ml=VOXEL) -> regions.Regions:
        return regions.find(self.cbf, self.tmax, self.brain, LEFT, voxel_ml)


@pytest.fixture
def stroke() -> Head:
    """On the patient's left 10 x 10 x 4 voxels late, within them 10 x 5 x 2 almost without flow."""
    head = Head()
    head.tmax[1:5, 10:20, 25:35] = 8.0
    head.cbf[1:3, 10:20, 25:30] = 5.0
    return head


def test_volumes_of_boxes(stroke):
    found = stroke.find()
    assert found.hypoperfused_ml == pytest.approx(400 * VOXEL)
    assert found.core_ml == pytest.approx(100 * VOXEL)
    assert found.mismatch_ml == pytest.approx(300 * VOXEL)
    assert found.mismatch_ratio == pytest.approx(4.0)
    assert found.core_to_penumbra_ratio == pytest.approx(0.25)
    assert found.hypoperfused.sum() == 400 and found.core.sum() == 100


def test_the_reference_is_the_median_of_the_half_with_less_late_tissue(stroke):
    assert stroke.find().reference_cbf == 40.0  # the right
    stroke.tmax[0:6, 0:20, 0:18] = 7.0
    assert stroke.find().reference_cbf == 50.0  # now the left


def test_tissue_between_4_and_6_seconds_lends_no_reference(stroke):
    stroke.tmax[:, :30, :20] = 5.0
    stroke.cbf[:, :30, :20] = 10.0
    stroke.tmax[:, 30:, :20] = 4.0
    assert np.isnan(stroke.find().reference_cbf)
    assert stroke.find().core_ml == 0.0
    stroke.tmax[:, 30:, :20] = 3.9
    assert stroke.find().reference_cbf == 40.0


def test_low_flow_without_delay_is_no_core(stroke):
    stroke.cbf[:, 25:35, 2:12] = 5.0
    assert stroke.find().core_ml == pytest.approx(100 * VOXEL)


@pytest.mark.parametrize(
    ("tmax", "cbf", "late", "core"), [(6.0, 5.0, 0, 0), (6.01, 12.0, 400, 0), (6.01, 11.9, 400, 400)]
)
def test_the_thresholds_themselves_lie_outside(tmax, cbf, late, core):
    """Tmax must be more than 6 s, CBF less than 30 % of 40."""
    head = Head()
    head.tmax[1:5, 10:20, 25:35], head.cbf[1:5, 10:20, 25:35] = tmax, cbf
    found = head.find()
    assert (found.hypoperfused.sum(), found.core.sum()) == (late, core)


@pytest.mark.parametrize(("voxels", "kept"), [(19, 0), (20, 20)])
def test_a_cluster_under_1_ml_is_dropped(voxels, kept):
    head = Head()
    head.tmax[2, 5, 5:15], head.tmax[2, 6, 5 : 5 + voxels - 10] = 9.0, 9.0
    assert head.find().hypoperfused.sum() == kept


def test_clusters_that_touch_by_an_edge_alone_are_two():
    head = Head()
    head.tmax[2, 5, 5:15], head.tmax[3, 6, 5:15] = 9.0, 9.0
    assert head.find().hypoperfused.sum() == 0
    head.tmax[3, 5, 5] = 9.0
    assert head.find().hypoperfused.sum() == 21


def test_a_small_core_in_a_large_lesion_is_dropped(stroke):
    stroke.cbf[1:3, 10:20, 25:30] = 50.0
    stroke.cbf[2, 10, 25:35] = 5.0
    found = stroke.find()
    assert found.core_ml == 0.0 and found.mismatch_ratio is None
    assert found.mismatch_ml == pytest.approx(400 * VOXEL)


def test_what_lies_outside_the_brain_is_nothing(stroke):
    stroke.brain[1:3] = False
    found = stroke.find()
    assert found.hypoperfused.sum() == 200 and found.core.sum() == 0


def test_slices_that_lie_unevenly_have_volumes_of_their_own(stroke):
    found = stroke.find(np.array([0.05, 0.05, 0.05, 0.10, 0.10, 0.05]))
    assert found.hypoperfused_ml == pytest.approx(100 * (0.05 + 0.05 + 0.10 + 0.10))


@pytest.mark.parametrize(
    ("core", "late", "ratio", "severity"),
    [
        (0.0, 0.0, 0.0, "none"),
        (0.0, 30.0, 0.0, "none"),
        (0.1, 30.0, 0.1 / 30, "mild"),
        (15.0, 30.0, 0.5, "mild"),
        (15.1, 30.0, 15.1 / 30, "severe"),
        (30.0, 30.0, 1.0, "severe"),
    ],
)
def test_the_class_of_paper_001_at_its_boundaries(core, late, ratio, severity):
    empty = np.zeros(SHAPE, bool)
    found = regions.Regions(empty, empty, 40.0, core, late)
    assert found.core_to_penumbra_ratio == pytest.approx(ratio)
    assert found.severity == severity


def test_the_side_is_where_more_lies(stroke):
    found = stroke.find()
    assert regions.side(found.hypoperfused, LEFT) == "left"
    assert regions.side(found.hypoperfused[:, :, ::-1], LEFT) == "right"
    assert regions.side(np.zeros(SHAPE, bool), LEFT) is None


def test_the_left_of_the_model_grid_begins_at_the_middle_of_the_brain():
    brain = np.zeros((2, 10, 40), bool)
    brain[0, 3:8, 5:16] = True
    assert np.flatnonzero(regions.left_half(brain)).tolist() == list(range(11, 40))
    assert regions.left_half(np.zeros((2, 10, 40), bool)).sum() == 20


def test_bands_share_no_voxel_and_make_up_the_late_tissue(stroke):
    stroke.tmax[1:5, 10:20, 20:25] = 5.0
    stroke.tmax[1:3, 10:20, 30:35] = 12.0
    stroke.tmax[0, 0, 0] = 9.0  # a speck
    found = regions.bands(stroke.tmax, stroke.brain, VOXEL)
    assert [int(band.sum()) for band in found] == [200, 300, 0, 100]
    assert np.sum(found, axis=0).max() == 1
    assert np.array_equal(np.any(found[1:], axis=0), stroke.find().hypoperfused)


def test_the_limits_belong_to_the_lower_band(stroke):
    for index, (low, high) in enumerate(regions.BANDS):
        stroke.tmax[1:5, 10:20, 25:35] = min(high, 11.0)
        assert [int(band.sum()) for band in regions.bands(stroke.tmax, stroke.brain, VOXEL)][index] == 400
        stroke.tmax[1:5, 10:20, 25:35] = low
        assert not regions.bands(stroke.tmax, stroke.brain, VOXEL)[index].any()


@pytest.mark.parametrize("position", phantom.POSITIONS)
def test_on_the_source_the_reference_is_of_the_other_side_of_the_patient(position):
    head = from_slices(phantom.head(phantom.even(10, 14.0), matrix=64, patient_position=position, tilt_degrees=10.0))
    x = _x_of(head)
    brain = np.abs(x) < 60.0
    cbf = np.where(x > 0.0, 50.0, 40.0)
    tmax = np.where(x > 30.0, 8.0, 2.0)  # late on the patient's left
    assert regions.on_source(head, cbf, tmax, brain).reference_cbf == 40.0
    assert regions.on_source(head, cbf, np.where(x < -30.0, 8.0, 2.0), brain).reference_cbf == 50.0


def _x_of(head):
    """(slices, rows, columns) mm to the patient's left, from the centre of each voxel."""
    _, rows, columns = head.hu.shape
    down = np.arange(rows)[:, None, None] * head.pixel_spacing[0] * head.column_direction
    along = np.arange(columns)[None, :, None] * head.pixel_spacing[1] * head.row_direction
    return (head.positions[:, None, None, :] + down + along)[..., 0]


def test_a_voxel_of_an_uneven_slice_stands_for_half_the_way_to_its_neighbours():
    head = from_slices(phantom.head([-60, -50, -45, -40, -30, -10, 0, 5, 10, 20], matrix=64))
    area = (220.0 / 64) ** 2
    expected = [10.0, 7.5, 5.0, 7.5, 15.0, 15.0, 7.5, 5.0, 7.5, 10.0]
    assert regions.slice_voxel_ml(head) == pytest.approx(np.array(expected) * area / 1000.0)
