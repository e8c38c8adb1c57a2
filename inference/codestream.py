"""How large a compressed picture says it is: a decoder believes it, and takes memory for it, before anybody else asks.

JPEG and JPEG-LS: ITU-T T.81 B.2.2 and T.87 C.2.2, start of frame; JPEG 2000: T.800 A.5.1, image and tile size.
"""

import struct

JPEG, JPEG_2000, SIZE, SCAN = b"\xff\xd8", b"\xff\x4f", 0x51, 0xDA
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # without tables and extensions


def size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that the first frame of a JPEG, JPEG-LS or JPEG 2000 stream announces; None: it does not say."""
    begin, at = stream[:2], 2
    if begin not in (JPEG, JPEG_2000):
        return None
    while len(stream) - at >= 4:
        fill, marker, length = struct.unpack_from(">BBH", stream, at)
        if fill != 0xFF or length < 2 or marker == SCAN:
            return None
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if begin == JPEG and marker in FRAMES and len(stream) - at >= 9:
            rows, columns = struct.unpack_from(">HH", stream, at + 5)
            return int(rows), int(columns)
        if begin == JPEG_2000 and marker == SIZE and len(stream) - at >= 22:
            right, bottom, left, top = struct.unpack_from(">IIII", stream, at + 6)
            return int(bottom - top), int(right - left)
        at += 2 + length
    return None
