"""Slices to a volume: order, geometry, Hounsfield units, and what is refused."""

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless

from inference.refusal import Refused
from inference.volume import from_slices, hounsfield
from tests import phantom


def refusal(slices):
    with pytest.raises(Refused) as caught:
        from_slices(slices)
    return caught.value


@pytest.fixture
def head():
    return phantom.head(z=phantom.even(12), matrix=32, noise=0.0)


def shuffled(slices, seed=4):
    return [slices[i] for i in np.random.default_rng(seed).permutation(len(slices))]


def test_slices_in_any_order_make_the_same_volume(head):
    expected, found = from_slices(head), from_slices(mixed := shuffled(head))
    assert np.array_equal(found.hu, expected.hu)
    assert np.array_equal(found.positions, expected.positions)
    assert [mixed[i].SOPInstanceUID for i in found.order] == [head[i].SOPInstanceUID for i in expected.order]


def test_order_names_the_data_set_of_every_slice(head):
    volume = from_slices(mixed := shuffled(head))
    for hu, position, index in zip(volume.hu, volume.positions, volume.order, strict=True):
        assert np.allclose(position, [float(v) for v in mixed[index].ImagePositionPatient])
        assert np.array_equal(hu, hounsfield(mixed[index]))


def test_a_series_from_head_to_foot_ascends_along_the_normal_too():
    volume = from_slices(phantom.head(z=phantom.even(12), matrix=32, head_to_foot=True))
    assert (np.diff(volume.offsets) > 0).all()
    assert volume.order == tuple(range(11, -1, -1))


@pytest.mark.parametrize("position", phantom.POSITIONS)
def test_offsets_ascend_along_the_normal_of_the_slices_in_every_patient_position(position):
    slices = phantom.head(z=phantom.even(12), matrix=16, patient_position=position)
    volume = from_slices(shuffled(slices))
    row, column = phantom.POSITIONS[position]
    assert np.allclose(volume.row_direction, row)
    assert np.allclose(volume.column_direction, column)
    assert np.allclose(volume.normal, np.cross(row, column))
    assert np.allclose(np.diff(volume.offsets), 5.0)


def test_instance_numbers_that_lie_change_nothing(head):
    expected = from_slices(head).positions
    for number, ds in zip(shuffled(list(range(1, 13))), head, strict=True):
        ds.InstanceNumber = number
    assert np.array_equal(from_slices(head).positions, expected)
    for ds in head:
        del ds.InstanceNumber
    assert np.array_equal(from_slices(head).positions, expected)


def test_unequal_steps_are_kept():
    steps = [4.0] * 5 + [1.08] + [7.0] * 5
    z = [-30.0, *(-30.0 + np.cumsum(steps))]
    volume = from_slices(shuffled(phantom.head(z=z, matrix=16)))
    assert np.allclose(np.diff(volume.offsets), steps)


@pytest.mark.parametrize("degrees", [-20.0, 0.0, 15.0])
def test_a_gantry_tilt_is_kept_as_a_shear(degrees):
    volume = from_slices(phantom.head(z=phantom.even(12), matrix=16, tilt_degrees=degrees))
    assert volume.tilt_degrees == pytest.approx(abs(degrees), abs=1e-4)
    # The table steps along z, so x and y of the first voxel stay while the planes lean.
    assert np.ptp(volume.positions[:, :2], axis=0).max() == 0
    assert np.allclose(np.diff(volume.positions[:, 2]), 5.0)
    assert np.allclose(np.diff(volume.offsets), 5.0 * np.cos(np.radians(degrees)))


def test_the_first_voxel_stands_where_image_position_patient_says(head):
    volume = from_slices(head)
    assert volume.positions[0].tolist() == [float(v) for v in head[0].ImagePositionPatient]


def test_pixel_spacing_is_between_rows_then_between_columns(head):
    for ds in head:
        ds.PixelSpacing = [0.5, 0.8]
    assert from_slices(head).pixel_spacing == (0.5, 0.8)


def test_slice_thickness_is_the_median_and_else_the_step(head):
    for ds, thickness in zip(head, [4.0] * 7 + [7.0] * 5, strict=True):
        ds.SliceThickness = thickness
    assert from_slices(head).slice_thickness == 4.0
    for ds in head:
        ds.SliceThickness = None
    assert from_slices(head).slice_thickness == pytest.approx(5.0)


def test_slope_and_intercept_are_taken_from_each_slice():
    plain = from_slices(phantom.head(z=phantom.even(12), matrix=32, noise=0.0))
    slices = phantom.head(z=phantom.even(12), matrix=32, noise=0.0)
    for i, ds in enumerate(slices):
        phantom.set_pixels(ds, hounsfield(ds), (1.0 + i / 10, -1000.0 + 50 * i))
    assert np.abs(from_slices(slices).hu - plain.hu).max() <= 2.1 / 2 + 1e-3  # half of the largest slope


def set_padding(ds, stored_value, tag_value, limit=None, vr="SS"):
    pixels = np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns).copy()
    pixels[:3] = stored_value
    ds.PixelData = pixels.tobytes()
    ds.add_new("PixelPaddingValue", vr, tag_value)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", vr, limit)


@pytest.mark.parametrize(
    ("stored", "value", "limit", "vr"),
    [
        (-1500, -1500, None, "SS"),
        (2000, 2000, None, "SS"),  # would be denser than bone if it were a measurement
        (2000, 1900, 2100, "SS"),
        (2000, 2100, 1900, "SS"),
        (-2000, 63536, None, "US"),  # the right bits under the wrong sign, as some scanners write
    ],
)
def test_padding_is_air_before_the_rescale(head, stored, value, limit, vr):
    set_padding(head[0], stored, value, limit, vr)
    hu = from_slices(head).hu[0]
    assert (hu[:3] == -1000).all()
    assert np.array_equal(hu[3:], from_slices(phantom.head(z=phantom.even(12), matrix=32, noise=0.0)).hu[0, 3:])


def test_padding_outside_its_range_is_a_measurement(head):
    for stored in (1899, 2101):
        set_padding(head[0], stored, 1900, 2100)
        assert (from_slices(head).hu[0, :3] == stored - 1024).all()


def test_values_thinner_than_vacuum_are_air(head):
    set_padding(head[0], -2000, 5000)
    assert (from_slices(head).hu[0, :3] == -1000).all()


def test_twelve_bits_with_an_overlay_in_the_high_bits_are_read_without_it(head):
    expected = from_slices(head).hu.clip(-1024, 3071)
    for ds in head:
        stored = (hounsfield(ds) + 1024).astype("<u2")
        stored[:4] |= 0x1000  # a legacy overlay plane
        ds.PixelData, ds.PixelRepresentation = stored.tobytes(), 0
        ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 12, 11, -1024
    assert np.array_equal(from_slices(head).hu, expected)


def test_signed_twelve_bits_keep_their_sign(head):
    expected = from_slices(head).hu.clip(-2048, 2047)
    for ds in head:
        stored = (hounsfield(ds).clip(-2048, 2047).astype("<i2").view("<u2") & 0x0FFF).astype("<u2")
        ds.PixelData = stored.tobytes()
        ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 12, 11, 0
    assert np.array_equal(from_slices(head).hu, expected)


def test_compressed_slices_give_the_same_volume(head):
    expected = from_slices(head).hu
    for ds in head:
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
    assert np.array_equal(from_slices(head).hu, expected)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("left", [0, 3, 40])
def test_pixels_cut_short_are_refused_as_truncated(head, compressed, left):
    if compressed:
        head[5].compress(JPEGLSLossless, generate_instance_uid=False)
    head[5].PixelData = head[5].PixelData[:left]
    found = refusal(head)
    assert found.code == "truncated"
    assert "image 6" in found.sentence


def test_slices_without_pixels_are_refused_as_truncated(head):
    del head[5].PixelData
    assert refusal(head).code == "truncated"


def test_six_slices_are_too_few(head):
    found = refusal(head[:6])
    assert (found.code, found.sentence) == ("too-few-slices", "the series holds 6 slices; at least 10 are needed")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_nine_slices_are_too_few_and_ten_are_enough(head, count):
    assert refusal(head[:count]).code == "too-few-slices"
    assert from_slices(head[:10]).hu.shape[0] == 10


def test_another_modality_is_refused(head):
    head[3].Modality = "MR"
    found = refusal(head)
    assert (found.code, found.sentence) == ("wrong-modality", "the series is MR; a CT series is needed")


def other_orientation(ds):
    ds.ImageOrientationPatient = [1, 0, 0, 0, np.cos(0.01), np.sin(0.01)]


def other_matrix(ds):
    phantom.set_pixels(ds, np.zeros((32, 30)))


def other_spacing(ds):
    ds.PixelSpacing = [0.7, 0.7]


def no_position(ds):
    del ds.ImagePositionPatient


def two_coordinates(ds):
    ds.ImagePositionPatient = [0.0, 1.0]


def not_a_direction(ds):
    ds.ImageOrientationPatient = None


def other_frame(ds):
    ds.FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (other_orientation, "orientation"),
        (other_matrix, "matrix"),
        (other_spacing, "pixel spacing"),
        (no_position, "ImagePositionPatient"),
        (two_coordinates, "ImagePositionPatient"),
        (not_a_direction, "ImageOrientationPatient"),
        (other_frame, "frames of reference"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused_with_what_differs(head, spoil, word):
    spoil(head[7])
    found = refusal(head)
    assert found.code == "mixed-geometry"
    assert word in found.sentence


def test_orientations_that_differ_by_rounding_are_one(head):
    head[7].ImageOrientationPatient = [1, 0, 0, 0, 1, 0.0009]
    assert from_slices(head).hu.shape[0] == 12


def test_an_orientation_that_is_not_perpendicular_is_refused(head):
    for ds in head:
        ds.ImageOrientationPatient = [1, 0, 0, 0.1, 0.995, 0]
    assert "perpendicular" in refusal(head).sentence


def test_a_pixel_spacing_of_zero_is_refused(head):
    for ds in head:
        ds.PixelSpacing = [0, 0]
    assert refusal(head).code == "mixed-geometry"


def test_a_repeated_position_is_refused_with_the_position(head):
    head[4].ImagePositionPatient = [float(v) for v in head[3].ImagePositionPatient]
    found = refusal(head)
    assert found.code == "mixed-geometry"
    assert "-45.0 mm" in found.sentence


def test_a_gap_is_not_refused_here(head):
    assert from_slices(head[:5] + head[6:]).hu.shape[0] == 11


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_values_without_a_rescale_are_refused(head, keyword):
    delattr(head[2], keyword)
    found = refusal(head)
    assert found.code == "no-rescale"
    assert "image 3" in found.sentence


def test_a_slope_of_zero_is_no_rescale(head):
    head[2].RescaleSlope = 0
    assert refusal(head).code == "no-rescale"


@pytest.mark.parametrize(("degrees", "refused"), [(29.0, False), (31.0, True), (90.0, True)])
def test_slices_more_than_30_degrees_off_axial_are_oblique(degrees, refused):
    slices = phantom.head(z=phantom.even(12, 15.0), matrix=16, tilt_degrees=degrees)
    for i, ds in enumerate(slices):  # stacked along the normal, so that even 90 degrees has distinct positions
        normal = np.cross(ds.ImageOrientationPatient[:3], ds.ImageOrientationPatient[3:])
        ds.ImagePositionPatient = [float(v) for v in 5.0 * i * normal]
    if not refused:
        assert from_slices(slices).tilt_degrees == pytest.approx(0.0, abs=1e-3)
        return
    found = refusal(slices)
    assert found.code == "oblique"
    assert f"{degrees:.0f} degrees" in found.sentence


@pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR"])
def test_pictures_whose_grey_does_not_mean_density_are_refused(head, photometric):
    head[1].PhotometricInterpretation = photometric
    found = refusal(head)
    assert found.code == "unsupported-class"
    assert photometric in found.sentence


def test_a_display_that_is_inverted_changes_no_value(head):
    expected = from_slices(head).hu
    for ds in head:
        ds.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(from_slices(head).hu, expected)


def test_several_frames_in_an_image_are_refused(head):
    head[1].NumberOfFrames = 4
    assert refusal(head).code == "unsupported-class"


def test_a_refusal_prints_its_code_and_sentence(head):
    assert str(refusal(head[:6])) == "too-few-slices: the series holds 6 slices; at least 10 are needed"


def test_the_real_tilted_head_keeps_its_geometry(ge_head):
    volume = from_slices(ge_head)
    assert volume.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert np.unique(np.diff(volume.offsets).round(1)).tolist() == [1.1, 4.0, 7.0]
    assert volume.hu.min() >= -1024
    assert volume.hu[0, 0, 0] == -1000  # stored as its padding, -1500
