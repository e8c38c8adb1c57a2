"""How instances are encoded: transfer syntaxes and storage classes."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    XRayRadiationDoseSRStorage,
)

from inference.volume import hounsfield
from tests.cases.case import Case, changed, head, process, refuse, warn
from tests.cases.enhanced import enhanced, legacy_converted
from tests.tools import program

Make = Callable[[], list[Dataset]]


def unsigned() -> list[Dataset]:
    """The head as 12 bits without sign, which all encoders take."""
    slices = head()
    for ds in slices:
        stored = (np.round(hounsfield(ds)).clip(-1024, 3071) + 1024).astype("<u2")
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
        ds.PixelData = stored.tobytes()
    return slices


def uncompressed(syntax: UID, of: Make = head) -> Make:
    def make() -> list[Dataset]:
        slices = of()
        for ds in slices:
            ds.file_meta.TransferSyntaxUID = syntax
        return slices

    return make


def compressed(syntax: UID, of: Make = unsigned, **how: object) -> Make:
    """By the encoders of pydicom."""

    def make() -> list[Dataset]:
        slices = of()
        for ds in slices:
            ds.compress(syntax, generate_instance_uid=False, **how)
        return slices

    return make


def by_dcmtk(*command: str, of: Make = unsigned) -> Make:
    """By a program of DCMTK that converts a file."""

    def make() -> list[Dataset]:
        with TemporaryDirectory() as folder:
            return [_converted(Path(folder) / "slice.dcm", ds, command) for ds in of()]

    return make


def _converted(path: Path, ds: Dataset, command: tuple[str, ...]) -> Dataset:
    ds.save_as(path, enforce_file_format=True, overwrite=True)
    out = path.with_suffix(".out")
    subprocess.run([program(command[0]), *command[1:], str(path), str(out)], check=True, capture_output=True)
    converted = dcmread(out)
    converted.PixelData  # read now: the folder goes away # noqa: B018
    return converted


def high_throughput(syntax: UID, *options: str, of: Make = unsigned) -> Make:
    """HTJ2K, by OpenJPH."""

    def make() -> list[Dataset]:
        slices = of()
        with TemporaryDirectory() as folder:
            for ds in slices:
                ds.PixelData = encapsulate([_codestream(Path(folder), ds, options)])
                ds["PixelData"].is_undefined_length = True
                ds.file_meta.TransferSyntaxUID = syntax
        return slices

    return make


def _codestream(folder: Path, ds: Dataset, options: tuple[str, ...]) -> bytes:
    image, out = folder / "slice.pgm", folder / "slice.j2c"
    stored = np.frombuffer(ds.PixelData, "<u2").astype(">u2")
    image.write_bytes(b"P5\n%d %d\n4095\n" % (ds.Columns, ds.Rows) + stored.tobytes())
    subprocess.run(
        [program("ojph_compress"), "-i", str(image), "-o", str(out), *options], check=True, capture_output=True
    )
    return out.read_bytes()


LOSS = "The images were compressed with loss."
SYNTAXES = (
    process("Implicit VR Little Endian", uncompressed(ImplicitVRLittleEndian)),
    process("Explicit VR Little Endian", uncompressed(ExplicitVRLittleEndian)),
    process("Deflated Explicit VR Little Endian", uncompressed(DeflatedExplicitVRLittleEndian)),
    process("Explicit VR Big Endian", by_dcmtk("dcmconv", "+tb")),
    process("RLE", compressed(RLELossless)),
    process("JPEG-LS lossless", compressed(JPEGLSLossless)),
    process("JPEG 2000 lossless", compressed(JPEG2000Lossless)),
    process("HTJ2K lossless", high_throughput(HTJ2KLossless, "-reversible", "true")),
    process("HTJ2K lossless, RPCL", high_throughput(HTJ2KLosslessRPCL, "-reversible", "true", "-prog_order", "RPCL")),
    process("JPEG lossless, selection value 1", by_dcmtk("dcmcjpeg", "+e1")),
    process("JPEG lossless, process 14", by_dcmtk("dcmcjpeg", "+el", "+sv", "6")),
    warn("JPEG-LS near lossless", compressed(JPEGLSNearLossless, jls_error=2), LOSS),
    warn("JPEG 2000 with loss", compressed(JPEG2000, j2k_cr=[8]), LOSS),
    warn("HTJ2K with loss", high_throughput(HTJ2K, "-qstep", "0.002"), LOSS),
    warn("JPEG extended, 12 bits with loss", by_dcmtk("dcmcjpeg", "+ee", "+q", "95"), LOSS),
)


def _of_class(sop_class: UID, modality: str) -> Make:
    def make() -> list[Dataset]:
        slices = changed(head(), SOPClassUID=sop_class, Modality=modality)
        for ds in slices:
            ds.file_meta.MediaStorageSOPClassUID = sop_class
        return slices

    return make


def _refused_classes() -> list[Case]:
    mr = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
    others = (
        *((PositronEmissionTomographyImageStorage, "PT"), (NuclearMedicineImageStorage, "NM")),
        *((UltrasoundImageStorage, "US"), (SecondaryCaptureImageStorage, "OT"), (SegmentationStorage, "SEG")),
        *((XRayRadiationDoseSRStorage, "SR"), (EnhancedSRStorage, "SR"), (RTStructureSetStorage, "RTSTRUCT")),
        *((EncapsulatedPDFStorage, "DOC"), (GrayscaleSoftcopyPresentationStateStorage, "PR")),
    )
    return [
        *(refuse(uid.name, _of_class(uid, "MR"), "no-route", "no route for MR") for uid in mr),
        *(refuse(uid.name, _of_class(uid, modality), "unsupported-class", uid.name) for uid, modality in others),
    ]


def _perfusion_map() -> list[Dataset]:
    return [changed([enhanced(head())], ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"])[0]]


def _enhanced_with_contrast() -> list[Dataset]:
    agent = Dataset()
    agent.ContrastBolusAgentNumber = 1
    return [changed([enhanced(head())], ContrastBolusAgentSequence=[agent])[0]]


def _enhanced_rle() -> list[Dataset]:
    ds = enhanced(unsigned())
    ds.compress(RLELossless, generate_instance_uid=False)
    return [ds]


CLASSES = (
    process("Enhanced CT", lambda: [enhanced(head())]),
    process("Enhanced CT, compressed", _enhanced_rle),
    process("Legacy Converted Enhanced CT", lambda: [legacy_converted(head())]),
    process("Enhanced CT in two instances", lambda: [enhanced(head()[:11]), enhanced(head()[11:])]),
    warn("Enhanced CT, gantry tilt", lambda: [enhanced(head(tilt_degrees=18.0))], "tilted by 18 degrees"),
    refuse("Enhanced CT, perfusion map of another maker", _perfusion_map, "derived", "PERFUSION"),
    refuse("Enhanced CT with contrast", _enhanced_with_contrast, "contrast"),
    *_refused_classes(),
)
