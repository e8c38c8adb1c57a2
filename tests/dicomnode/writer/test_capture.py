"""The colours of captures are those of sRGB, and the profile says so."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from dicomnode.writer import capture
from dicomnode.writer.palette import RAINBOW
from tests.dicomnode.writer import studies


def test_the_profile_is_that_of_an_input_device_in_srgb():
    profile = ImageCms.ImageCmsProfile(BytesIO(capture.srgb()))
    assert profile.profile.device_class == "scnr"
    assert (profile.profile.xcolor_space, profile.profile.connection_space) == ("RGB ", "XYZ ")
    colours = Image.fromarray(RAINBOW[None])
    shown = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(shown).astype(int) - RAINBOW).max() <= 1


def test_every_capture_carries_the_profile():
    for kind in ("sc", "mosaic"):
        ds = studies.one(studies.small(), kind)
        assert ds.ICCProfile == capture.srgb()
        assert ds.ColorSpace == "SRGB"
