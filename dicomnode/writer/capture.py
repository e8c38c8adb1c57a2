"""What all pages in colour have in common: the module of a secondary capture, and the words burned into it."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import ImageCms
from pydicom import Dataset

from dicomnode import MODEL_NAME
from dicomnode.writer import burn, common
from dicomnode.writer.study import Study


def describe(ds: Dataset) -> None:
    """The Secondary Capture Equipment and General Image modules of a page whose lettering names no patient."""
    ds.Modality, ds.ConversionType = "OT", "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "YES", "NO"
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.SecondaryCaptureDeviceManufacturer = ds.Manufacturer
    ds.SecondaryCaptureDeviceManufacturerModelName = ds.ManufacturerModelName
    ds.SecondaryCaptureDeviceSoftwareVersions = ds.SoftwareVersions


def set_pixels(ds: Dataset, rgb: np.ndarray) -> None:
    """An RGB image (rows, columns, 3) uint8."""
    ds.Rows, ds.Columns, _ = rgb.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.ICCProfile, ds.ColorSpace = srgb(), "SRGB"
    ds.PixelData = rgb.tobytes()


@cache
def srgb() -> bytes:
    """The ICC profile of the colours, sRGB as an input device (PS3.3 C.11.15), without the time of its making."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[12:16] = b"scnr"  # the device class
    profile[24:36] = bytes.fromhex("07e80001 00010000 00000000")  # 2024-01-01 00:00:00
    return bytes(profile)


def cautions(study: Study) -> Iterator[burn.Line]:
    """What a reader must know of the weights and of the patient."""
    if study.manifest.training_domain == "untrained":
        yield burn.Line("UNTRAINED: random weights, no meaning", 18, burn.RED)
    if study.manifest.training_domain == "virtual":
        yield burn.Line("TRAINED ON SIMULATED DATA", 15, burn.ORANGE)
    if study.simulated_input:
        yield burn.Line("SIMULATED PATIENT", 15, burn.ORANGE)


def footer(study: Study, what: str) -> list[burn.Line]:
    """The disclaimers, and what was made by which weights and software, in which revision, when."""
    manifest, stamp = study.manifest, study.written_at
    revision = f"rev {study.revision}, replaces rev {study.supersedes}" if study.supersedes else f"rev {study.revision}"
    return [
        burn.Line(common.DISCLAIMER, 17, burn.YELLOW),
        burn.Line(common.NOT_AN_EXCLUSION, 14),
        burn.Line(f"{what}, {manifest.name} {manifest.version}", 12, burn.GREY),
        burn.Line(f"{MODEL_NAME} {study.software_version}, {revision}, {stamp:%Y-%m-%d %H:%M %Z}", 12, burn.GREY),
    ]
