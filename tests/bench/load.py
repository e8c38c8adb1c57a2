"""A load that looks like a thin head CT to whoever files it; its UIDs can be made new without writing it again."""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from tests import phantom

ROOT = "2.25.7000"  # of all UIDs of the load; twelve digits follow that tell one round from the next
PIXELS_BEGIN = 4096  # bytes of a file in which all its UIDs stand


def series(folder: Path, number: int, slices: int = 161, matrix: int = 512) -> list[Path]:
    """Write one series of CT slices, Explicit VR Little Endian, 0.53 MB each at 512 x 512."""
    folder.mkdir(parents=True)
    uid = partial(_uid, 0, number)
    noise = np.random.default_rng(number).normal(30, 8, (4, matrix, matrix))
    paths = []
    for n in range(slices):
        ds = phantom.header(uid(0), uid(1), uid(2), n + 1)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(100 + n)
        ds.PatientID, ds.AccessionNumber = f"BENCH-{number}", f"BENCH{number}"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-115, -115, n]
        ds.PixelSpacing, ds.SliceThickness = [0.449, 0.449], 1
        phantom.set_pixels(ds, noise[n % 4])
        paths.append(folder / f"{n:03d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def captures(folder: Path, maps: int = 5, slices: int = 161, matrix: int = 512) -> list[list[Path]]:
    """Write one series of colour secondary captures for each map, 0.79 MB each, as the writer's are."""
    rgb = np.random.default_rng(0).integers(0, 255, (4, matrix, matrix, 3), dtype=np.uint8)
    found = []
    for number in range(maps):
        uid, paths = partial(_uid, 0, number), list[Path]()
        (folder / str(number)).mkdir(parents=True)
        for n in range(slices):
            ds = phantom.header(uid(0), uid(1), uid(2), n + 1)
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(100 + n)
            ds.StudyInstanceUID, ds.Modality, ds.ConversionType = _uid(0, 0, 0), "OT", "WSD"
            ds.Rows = ds.Columns = matrix
            ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
            ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
            ds.PixelData = rgb[n % 4].tobytes()
            paths.append(folder / str(number) / f"{n:03d}.dcm")
            ds.save_as(paths[-1], enforce_file_format=True)
        found.append(paths)
    return found


def renumber(paths: Iterable[Path], nonce: int) -> None:
    """Give the files new UIDs of the same length, in place."""
    old, new = re.compile(re.escape(ROOT.encode()) + rb"\d{12}"), f"{ROOT}{nonce:012d}".encode()
    for path in paths:
        with path.open("r+b") as file:
            head = file.read(PIXELS_BEGIN)
            file.seek(0)
            file.write(old.sub(new, head))


def _uid(nonce: int, series_number: int, n: int) -> str:
    return f"{ROOT}{nonce:012d}.{series_number}.{n}"
