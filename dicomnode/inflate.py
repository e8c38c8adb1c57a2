"""Deflated data sets (PS3.5 A.5): a few kilobytes may become gigabytes when a parser unpacks them."""

import zlib
from typing import BinaryIO

from inference.refusal import Refused

MODEST = 64 * 2**20  # bytes that any data set may become
SWELLING = 100  # times its size that a larger one may become; CT shrinks to a third, an empty picture to a thousandth
PIECE = 65536  # bytes unpacked at once


def check(stream: BinaryIO, start: int) -> None:
    """Raise Refused where the deflated data set that begins at `start` has no end or swells beyond measure."""
    stream.seek(start)
    packer, packed, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    while not packer.eof:
        piece = packer.unconsumed_tail or stream.read(PIECE)
        try:
            out = len(packer.decompress(piece, PIECE))  # it may hold back some, and need no more input for it
        except zlib.error as error:
            raise Refused("not-dicom", f"the deflated data set cannot be unpacked ({error})") from error
        if not piece and not out and not packer.eof:
            raise Refused("truncated", "the deflated data set has no end; send the instance again")
        packed, unpacked = packed + len(piece) - len(packer.unconsumed_tail), unpacked + out
        if unpacked > MODEST and unpacked > SWELLING * packed:
            raise Refused("not-dicom", f"the deflated data set swells to more than {SWELLING} times its size")
