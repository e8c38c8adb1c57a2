"""Values and geometry of our images in readers that share no code with the writer: dcm2niix, GDCM and DCMTK.

SimpleITK and dcmqi are asked in the tests of each object; neither dcm2niix nor GDCM reads segmentations as volumes.
"""

import subprocess
from pathlib import Path

import gdcm
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread

from dicomnode.writer import write
from inference.maps import KINDS
from tests import phantom
from tests.dicomnode.writer import studies
from tests.tools import program

CEILING = KINDS["Tmax"].ceiling


def save(study, kind: str, folder: Path) -> list[Path]:
    """All objects of one kind, as files."""
    folder.mkdir()
    paths = []
    for r in write(study, kinds=(kind,)):
        paths.append(folder / f"{r.index:03d}.dcm")
        paths[-1].write_bytes(studies.saved(r.dataset))
    return paths


def by_dcm2niix(folder: Path) -> sitk.Image:
    """What dcm2niix makes of a folder, one volume."""
    out = folder.parent / "nifti"
    out.mkdir()
    command = [program("dcm2niix"), "-b", "n", "-z", "n", "-f", "map", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (nifti,) = out.glob("*.nii")
    return sitk.ReadImage(str(nifti))


@pytest.mark.parametrize("position", ["HFS", "FFP"])
@pytest.mark.parametrize(("kind", "unit"), [("ct", 1.0), ("pm", CEILING)])
def test_dcm2niix_finds_the_marks(tmp_path: Path, position, kind, unit):
    """Of a parametric map it gives the stored values, which are fractions of the ceiling."""
    study = studies.study(phantom.head(matrix=128, patient_position=position))
    save(study, kind, tmp_path / kind)
    image = by_dcm2niix(tmp_path / kind)
    assert sorted(image.GetSize()) == [26, 128, 128]
    for point, value in studies.marked():
        read = image.GetPixel(image.TransformPhysicalPointToIndex(point.tolist())) * unit
        assert read == pytest.approx(value, abs=0.001)


def by_gdcm(path: Path) -> tuple[gdcm.ImageReader, np.ndarray]:
    """The reader, which owns the image, and the bytes of the pixels."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    return reader, np.frombuffer(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"), np.uint8)


def test_gdcm_reads_values_and_place_of_derived_ct(tmp_path: Path):
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=64, tilt_degrees=9.0))
    paths = save(study, "ct", tmp_path / "ct")
    for path, source, values in zip(paths, study.source, study.maps[0].values, strict=True):
        reader, stored = by_gdcm(path)
        image = reader.GetImage()
        assert image.GetOrigin() == pytest.approx([float(v) for v in source.ImagePositionPatient], abs=1e-3)
        assert image.GetDirectionCosines() == pytest.approx(
            [float(v) for v in source.ImageOrientationPatient], abs=1e-6
        )
        assert image.GetSpacing()[:2] == pytest.approx([float(v) for v in source.PixelSpacing])
        read = stored.view("<u2").reshape(values.shape) * image.GetSlope() + image.GetIntercept()
        assert read[values > 0] == pytest.approx(values[values > 0], abs=CEILING / 40_000 * 1.001)


def test_gdcm_reads_the_colours_of_captures_but_no_place(tmp_path: Path):
    """It knows no plane of a secondary capture, whose IOD has none; viewers and SimpleITK read ours."""
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=64))
    for path in save(study, "sc", tmp_path / "sc"):
        reader, stored = by_gdcm(path)
        assert np.array_equal(stored.reshape(512, 512, 3), studies.rgb(dcmread(path)))
        assert reader.GetImage().GetOrigin()[2] == 0.0


def test_dcmtk_draws_captures(tmp_path: Path):
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=64))
    for path in save(study, "sc", tmp_path / "sc"):
        out = path.with_suffix(".ppm")
        subprocess.run([program("dcm2pnm"), "--write-raw-pnm", str(path), str(out)], check=True)
        with Image.open(out) as picture:
            assert np.array_equal(np.asarray(picture), studies.rgb(dcmread(path)))


@pytest.mark.parametrize("tilt", [0.0, 9.0])
def test_dcmtk_reads_values_and_place_of_derived_ct(tmp_path: Path, tilt):
    study = studies.study(phantom.head(phantom.even(10, 14.0), matrix=64, tilt_degrees=tilt))
    paths = save(study, "ct", tmp_path / "ct")
    for path, source, values in zip(paths, study.source, study.maps[0].values, strict=True):
        said = dumped(path, "RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient")
        slope, intercept, position, orientation = said
        assert position == pytest.approx([float(v) for v in source.ImagePositionPatient], abs=1e-3)
        assert orientation == pytest.approx([float(v) for v in source.ImageOrientationPatient], abs=1e-6)
        stored = np.fromfile(path.with_name(f"{path.name}.0.raw"), "<u2").reshape(values.shape)
        read = stored * slope[0] + intercept[0]
        assert read[values > 0] == pytest.approx(values[values > 0], abs=CEILING / 40_000 * 1.001)


def dumped(path: Path, *keywords: str) -> list[list[float]]:
    """The numbers of these elements as dcmdump reads them; the pixels it writes beside the file."""
    elements = [word for keyword in keywords for word in ("--search", keyword)]
    for options in (["--write-pixel", str(path.parent)], elements):
        command = [program("dcmdump"), *options, str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
    by_name = {line.split()[-1]: line[line.index("[") + 1 : line.index("]")] for line in said.stdout.splitlines()}
    return [[float(number) for number in by_name[keyword].split("\\")] for keyword in keywords]
