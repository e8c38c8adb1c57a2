"""How the CT of three vendors differs in what a reader of DICOM meets; likenesses, and named so.

What varies is what has broken software before: signed or unsigned pixels, the rescale intercept, padding, the order
of slices, how a tilt is written, multi-valued kernels, and the kind of object that carries perfusion maps.
"""

from dataclasses import dataclass
from typing import Literal

Likeness = Literal["plain", "ge-like", "siemens-like", "philips-like"]
Maps = Literal["parametric map", "secondary capture", "derived ct"]


@dataclass(frozen=True, slots=True)
class Vendor:
    """intercept: Rescale Intercept in HU. padding: Pixel Padding Value, if any. tilt_sign: how the angle is signed."""

    manufacturer: str
    model: str
    image_type: tuple[str, ...]
    kernels: dict[str, str | list[str]]
    signed: bool
    intercept: int
    padding: int | None
    head_to_foot: bool
    tilt_sign: int
    maps: Maps


VENDORS: dict[Likeness, Vendor] = {
    "plain": Vendor(
        manufacturer="Virtual patient simulator",
        model="plain",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        kernels={"soft": "SIM-SOFT", "bone": "SIM-BONE"},
        signed=True,
        intercept=-1024,
        padding=None,
        head_to_foot=False,
        tilt_sign=1,
        maps="parametric map",
    ),
    "ge-like": Vendor(
        manufacturer="Virtual patient simulator (GE likeness)",
        model="ge-like",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        kernels={"soft": "STANDARD", "bone": "BONEPLUS"},
        signed=True,
        intercept=-1024,
        padding=-2000,
        head_to_foot=False,
        tilt_sign=1,
        maps="secondary capture",
    ),
    "siemens-like": Vendor(
        manufacturer="Virtual patient simulator (Siemens likeness)",
        model="siemens-like",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"),
        kernels={"soft": ["Hr40s", "3"], "bone": ["Hr69h", "3"]},
        signed=False,
        intercept=-1024,
        padding=None,
        head_to_foot=True,
        tilt_sign=1,
        maps="derived ct",
    ),
    "philips-like": Vendor(
        manufacturer="Virtual patient simulator (Philips likeness)",
        model="philips-like",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL", "HELIX"),
        kernels={"soft": "UB", "bone": "YE"},
        signed=False,
        intercept=-1000,
        padding=None,
        head_to_foot=True,
        tilt_sign=-1,
        maps="parametric map",
    ),
}
