"""inference.frames: an enhanced CT is read as the slices it stands for."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from inference import frames
from inference.refusal import Refused
from inference.volume import from_slices
from tests import phantom
from tests.cases.enhanced import enhanced, legacy_converted
from tests.dicomnode.writer import studies


@pytest.fixture(scope="module")
def head():
    return phantom.head(phantom.even(12, 8.0, -40.0), matrix=32, tilt_degrees=10.0, rescale=(0.5, -1000.0))


def test_a_classic_image_is_its_own_only_slice(head):
    assert frames.of(head[0]) == [head[0]]


@pytest.mark.parametrize("convert", [enhanced, legacy_converted])
def test_the_frames_make_the_same_volume(head, convert):
    found, expected = from_slices(frames.of(convert(head))), from_slices(head)
    assert np.array_equal(found.hu, expected.hu)
    assert np.allclose(found.positions, expected.positions)
    assert found.pixel_spacing == pytest.approx(expected.pixel_spacing)


@pytest.mark.parametrize("convert", [enhanced, legacy_converted])
def test_what_a_series_is_judged_by_is_said_of_each_frame(head, convert):
    for number, frame in enumerate(frames.of(convert(head)), start=1):
        assert frame.ConvolutionKernel == "H31s"
        assert frame.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
        assert frame.InstanceNumber == frame.ReferencedFrameNumber == number
        assert (frame.AcquisitionDate + frame.AcquisitionTime)[:14] == "20260302083000"
        assert frame.BodyPartExamined == "HEAD"
        assert frame.SliceThickness == 5.0


def test_compressed_frames_are_decoded(head):
    image = enhanced(head)
    image.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(from_slices(frames.of(image)).hu, from_slices(head).hu)


def test_frames_cut_short_are_refused_as_truncated(head):
    image = enhanced(head)
    image.PixelData = image.PixelData[:1000]
    with pytest.raises(Refused) as refused:
        frames.of(image)
    assert refused.value.code == "truncated"


def test_an_enhanced_image_without_groups_says_nothing_of_its_place():
    image = Dataset()
    image.SOPClassUID = EnhancedCTImageStorage
    with pytest.raises(Refused) as refused:
        frames.of(image)
    assert refused.value.code == "mixed-geometry"


def test_every_kind_of_object_names_the_frames_it_was_made_from():
    source = frames.of(enhanced(phantom.head(phantom.even(10, 14.0), matrix=64)))
    study = studies.stroke(source)
    for kind in ("sc", "pm", "ct", "seg", "mosaic", "sr", "pdf"):
        ds = studies.one(study, kind, name="regions" if kind == "seg" else "Tmax")
        named = {int(e.value) for e in ds.iterall() if e.keyword == "ReferencedFrameNumber" and e.value}
        assert named <= set(range(1, 11))
        assert named or kind == "sr", kind
        assert study.source[0].SOPInstanceUID in {e.value for e in ds.iterall() if e.VR == "UI"}
