"""What a reader should know of a series that is used all the same: sentences for the results and the books."""

from collections.abc import Callable, Sequence

from pydicom import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from dicomnode import kernels, places
from dicomnode.ages import age
from dicomnode.kernels import Kernel

Headers = Sequence[Dataset]

STRAIGHT = 1.0  # degrees; less is the play of a gantry
EVEN = 0.5  # mm between the shortest and the longest step of slices that lie evenly
# Syntaxes that may lose; JPEG 2000 and its successor may also lose nothing, and then the header says 00.
LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
PERHAPS_LOSSY = frozenset({JPEG2000, HTJ2K})


def _tilted(headers: Headers) -> str:
    degrees = places.tilt(headers)
    return f"The gantry was tilted by {degrees:.0f} degrees." if degrees > STRAIGHT else ""


def _uneven(headers: Headers) -> str:
    shortest, longest = places.steps(headers)
    return f"The slices lie {shortest:.1f} to {longest:.1f} mm apart." if longest - shortest > EVEN else ""


def _lossy(headers: Headers) -> str:
    return "The images were compressed with loss." if any(map(is_lossy, headers)) else ""


def _age(headers: Headers) -> str:
    return "" if any(age(ds) is not None for ds in headers) else "The age of the patient is not stated."


def _kernel(headers: Headers) -> str:
    unknown = next((ds for ds in headers if kernels.kind(ds) is Kernel.UNKNOWN), None)
    if unknown is None:
        return ""
    name = kernels.name(unknown)
    return f"The kernel {name} is not known." if name else "The kernel of the reconstruction is not stated."


CAUTIONS: tuple[Callable[[Headers], str], ...] = (_tilted, _uneven, _lossy, _age, _kernel)


def of(headers: Headers, gaps: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """The sentences. gaps: holes in the series in mm along the normal; they alone are told, not the step they make."""
    holes = [f"INCOMPLETE SERIES: no slice between {below:.1f} and {above:.1f} mm" for below, above in gaps]
    said = (caution(headers) for caution in CAUTIONS if not (gaps and caution is _uneven))
    return (*holes, *(sentence for sentence in said if sentence))


def is_lossy(ds: Dataset) -> bool:
    """True where the pixels are not what the scanner measured (PS3.3 C.7.6.1.1.5); its word or its transfer syntax."""
    said = ds.get("LossyImageCompression")
    syntax = UID(ds.file_meta.TransferSyntaxUID) if "file_meta" in ds.__dict__ else UID("")
    return said == "01" or syntax in LOSSY or (syntax in PERHAPS_LOSSY and said != "00")
