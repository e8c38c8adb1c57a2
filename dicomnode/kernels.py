"""Reconstruction kernels by name: soft ones show brain, sharp ones drown it in noise (Convolution Kernel, 0018,1210).

Every maker has names of its own. What is not in the table is unknown, and the results say so.
"""

import re
from enum import StrEnum

from pydicom import Dataset


class Kernel(StrEnum):
    """What a kernel is for."""

    SOFT = "soft"
    SHARP = "sharp"
    UNKNOWN = "unknown"


# Whole names in capitals. Siemens and Canon count upwards with the sharpness; what lies between soft and sharp is left
# out, and so are names that makers use for both.
NAMES: tuple[tuple[str, Kernel], ...] = (
    (r"[BHJQ][RVCF]?[1-4]\d[A-Z]?", Kernel.SOFT),  # Siemens: H31s, J40s, Hr38, Qr40, B30f
    (r"[BHJQ][RVCF]?(5[5-9]|[6-9]\d)[A-Z]?", Kernel.SHARP),  # H60s, H70h, Hr69h, B80s
    (r"FC(0\d|1\d|2\d|4\d|6\d)", Kernel.SOFT),  # Canon (Toshiba): FC21, FC26, FC64
    (r"FC(3\d|5\d|8\d)", Kernel.SHARP),  # FC30, FC35, FC52, FC81
    (r"STANDARD|STAN|STND|STD\+?|SOFT|BRAIN|SMOOTH", Kernel.SOFT),  # GE
    (r"EDGE|LUNG|ULTRA", Kernel.SHARP),
    (r"A|B|UA|UB|UC", Kernel.SOFT),  # Philips
    (r"D|E|YD|YE", Kernel.SHARP),
    (r".*BONE.*|.*SHARP.*", Kernel.SHARP),
    (r".*(SOFT|BRAIN|STANDARD).*", Kernel.SOFT),
)


def name(ds: Dataset) -> str:
    """The kernel as the scanner names it; of several values the first, which is the kernel itself."""
    value = ds.get("ConvolutionKernel") or ""
    return str(value if isinstance(value, str) else value[0]).strip()


def kind(ds: Dataset) -> Kernel:
    """What the kernel of an image is for."""
    stated = name(ds).upper()
    return next((of for pattern, of in NAMES if re.fullmatch(pattern, stated)), Kernel.UNKNOWN)
