"""JPEG of 12 bits with loss (process 4), as archives of CT hold it: GDCM reads it, though pydicom does not ask it to.

Every other transfer syntax is decoded by the plugins that pydicom finds by itself.
"""

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

NAME = "gdcm with 12 bits"
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("python-gdcm",)}  # what pydicom asks a plugin for


def is_available(uid: str) -> bool:
    """True for the one transfer syntax that is decoded here."""
    return uid == JPEGExtended12Bit


def decode(codestream: bytes, runner: DecodeRunner) -> bytes:
    """One frame, little endian words; raises ValueError where GDCM gives no or too few values."""
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    bits = runner.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, runner.pixel_representation))
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(codestream)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image.SetDataElement(element)
    words: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM hands bytes over as text
    if len(words) != 2 * runner.rows * runner.columns:
        raise ValueError(f"GDCM decoded {len(words)} bytes of a frame of {runner.rows} x {runner.columns} words")
    return words


def register() -> None:
    """Let pydicom use it; more than once does no harm."""
    if NAME not in JPEGExtended12BitDecoder.available_plugins:
        JPEGExtended12BitDecoder.add_plugin(NAME, (__name__, decode.__name__))
