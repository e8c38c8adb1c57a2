"""Tables of anatomy in the space of the ICBM152 template (MNI, mm: x to the patient's right, y forwards, z upwards).

MNI +x is the patient's right here because the bundled template is symmetric and the generator mirrors it into DICOM's
LPS, whose +x is the patient's left. Courses and centres were set by hand against the template and textbook anatomy;
they are design choices, not an atlas of measured territories.
"""

from dataclasses import dataclass

Point = tuple[float, float, float]

RIGHT, LEFT = "right", "left"
SIGN = {RIGHT: 1.0, LEFT: -1.0}  # of MNI x


@dataclass(frozen=True, slots=True)
class Segment:
    """An arterial segment of the right side: radius in mm and its course, from the heart outwards."""

    radius: float
    course: tuple[Point, ...]


SEGMENTS: dict[str, Segment] = {
    "ICA": Segment(2.2, ((22, -30, -66), (24, -16, -46), (18, -4, -38), (14, 6, -28), (13, 2, -18))),
    "M1": Segment(1.45, ((13, 2, -18), (20, 3, -18), (28, 5, -18), (35, 4, -15))),
    "M2 superior": Segment(
        1.0, ((35, 4, -15), (38, 8, -7), (40, 10, 2), (41, 8, 11), (47, 5, 17), (54, 0, 22), (58, -6, 30))
    ),
    "M2 inferior": Segment(
        1.0, ((35, 4, -15), (39, -3, -10), (42, -14, -4), (44, -26, 5), (52, -36, 12), (60, -42, 16))
    ),
    "A1": Segment(1.0, ((13, 2, -18), (8, 8, -19), (2.2, 13, -17))),
    "A2": Segment(0.9, ((2.2, 13, -17), (2, 25, -9), (2, 35, 3), (2, 34, 14), (2, 24, 25), (2, 5, 33), (2, -18, 36))),
    "P1": Segment(1.1, ((0, -13, -20), (6, -15, -19), (12, -17, -17))),
    "P2": Segment(1.0, ((12, -17, -17), (20, -26, -13), (22, -36, -7), (17, -50, -2), (12, -66, 3), (10, -82, 6))),
    "VA": Segment(1.5, ((9, -32, -70), (5, -25, -60), (0, -18, -52))),
    "BA": Segment(1.6, ((0, -18, -52), (0, -15, -36), (0, -13, -20))),
    "SCA": Segment(0.7, ((0, -14, -23), (14, -26, -22), (24, -45, -22))),
}


@dataclass(frozen=True, slots=True)
class Territory:
    """Points that one artery of the right side feeds, and how much farther it reaches than its neighbours, in mm."""

    reach: float
    seeds: tuple[Point, ...]


TERRITORIES: dict[str, Territory] = {
    "ACA": Territory(
        -1.0,
        (
            *((6, 40, 0), (6, 52, 8), (7, 50, 26), (9, 35, 42), (9, 15, 55), (9, -5, 62), (9, -25, 64), (8, -40, 55)),
            *((6, -45, 42), (6, 52, -10), (5, 30, -15), (6, 0, 42), (6, 25, 30), (5, 10, -12), (12, 60, 10)),
        ),
    ),
    "M2 superior": Territory(
        0.0,
        (
            *((45, 20, 5), (50, 5, 15), (48, 0, 35), (42, 32, 20), (38, 12, 45), (50, -10, 40), (42, -20, 52)),
            *((36, -28, 58), (50, -28, 42), (32, 46, 10), (45, 35, -5), (35, -5, 57), (38, 12, 0), (28, 25, 30)),
            *((28, -10, 35), (30, 38, -12)),
        ),
    ),
    "M2 inferior": Territory(
        0.0,
        (
            *((55, -10, -15), (60, -30, 0), (58, -45, 12), (52, -60, 16), (42, -72, 20), (55, -42, 30), (44, 8, -30)),
            *((38, 2, -38), (52, -60, 0), (44, -60, 40), (30, -62, 48), (44, -20, -25), (36, -45, 12), (40, -8, -10)),
        ),
    ),
    "lenticulostriate": Territory(
        3.0, ((24, 2, 0), (26, -8, 2), (22, 8, 8), (14, 12, 8), (22, -16, 10), (27, 0, -5), (24, -6, 15))
    ),
    "PCA": Territory(
        0.0,
        (
            *((10, -88, 5), (12, -72, 5), (10, -62, 14), (25, -95, 3), (20, -80, -10), (28, -60, -12), (26, -42, -12)),
            *((40, -50, -22), (30, -18, -28), (22, -28, -12), (8, -20, 5), (11, -13, 8), (9, -76, 22), (12, -25, 10)),
            (5, -15, -5),
        ),
    ),
    "vertebrobasilar": Territory(
        -2.0,
        (
            *((20, -60, -42), (36, -60, -40), (10, -60, -26), (3, -25, -36), (6, -60, -52), (15, -78, -36)),
            *((30, -48, -36), (3, -28, -50), (45, -55, -40)),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Occlusion:
    """What an occlusion at one place does.

    share: of all strokes. hyperdense: share of them whose clot is dense on NCCT.
    territories lose flow; the clot lies in `clot`; `beyond` are the segments that fill late.
    """

    share: float
    hyperdense: float
    territories: tuple[str, ...]
    clot: tuple[str, ...]
    beyond: tuple[str, ...]


_MCA = ("M2 superior", "M2 inferior")
OCCLUSIONS: dict[str, Occlusion] = {
    "ICA": Occlusion(0.13, 0.50, ("ACA", *_MCA, "lenticulostriate"), ("ICA", "M1"), (*_MCA, "A1")),
    "M1": Occlusion(0.32, 0.50, (*_MCA, "lenticulostriate"), ("M1",), _MCA),
    "distal M1": Occlusion(0.15, 0.42, _MCA, ("M1",), _MCA),
    "M2 superior": Occlusion(0.15, 0.20, ("M2 superior",), ("M2 superior",), ()),
    "M2 inferior": Occlusion(0.12, 0.20, ("M2 inferior",), ("M2 inferior",), ()),
    "ACA": Occlusion(0.05, 0.15, ("ACA",), ("A2",), ()),
    "PCA": Occlusion(0.08, 0.25, ("PCA",), ("P2",), ()),
}
OLIGAEMIC = ("distal M1", "M2 superior", "M2 inferior", "PCA")  # vessels whose narrowing starves without a core
STENOSIS = ("ACA", *_MCA, "lenticulostriate")  # territories behind a narrow carotid
HAEMORRHAGES: tuple[Point, ...] = ((26, 0, 4), (14, -16, 8), (40, -5, 25))  # putamen, thalamus, lobar


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A body of the skull base or face on both sides of the midline: centre and half axes in mm, content in HU."""

    centre: Point
    half: Point
    hu: float


AIR_HU, ORBITAL_FAT_HU, VITREOUS_HU, MUSCLE_HU, FAT_HU, SKIN_HU = -980.0, -95.0, 14.0, 55.0, -95.0, 45.0
ORBIT = Ellipsoid((28, 50, -38), (18, 28, 17), ORBITAL_FAT_HU)
GLOBE = Ellipsoid((32, 63, -38), (12.3, 12.3, 12.3), VITREOUS_HU)
ORBITAL_MUSCLES: tuple[tuple[Point, Point, float], ...] = (  # from, to, radius in mm
    ((20, 26, -34), (31, 52, -38), 2.0),  # optic nerve
    ((21, 26, -36), (44, 58, -38), 1.7),  # lateral rectus
    ((19, 26, -36), (20, 58, -38), 1.9),  # medial rectus
)
CAVITIES: tuple[Ellipsoid, ...] = (  # paranasal sinuses and nose; mirrored, so a centre at x = 0 is one body
    Ellipsoid((7, 50, -42), (5.5, 22, 13), AIR_HU),  # ethmoid
    Ellipsoid((7, 16, -42), (8, 11, 8), AIR_HU),  # sphenoid
    Ellipsoid((11, 74, -20), (11, 5, 9), AIR_HU),  # frontal
    Ellipsoid((29, 48, -68), (13, 16, 14), AIR_HU),  # maxillary
    Ellipsoid((5, 44, -66), (4, 34, 12), AIR_HU),  # nasal
    Ellipsoid((0, 2, -74), (12, 9, 22), AIR_HU),  # pharynx
)
MASTOID = Ellipsoid((53, -38, -46), (9, 13, 15), AIR_HU)  # honeycombed
BONES: tuple[tuple[Point, Point, float], ...] = (  # from, to, radius in mm: bars of dense bone, mirrored
    ((9, -8, -44), (50, -34, -40), 8.5),  # petrous ridge
    ((10, 22, -34), (52, 14, -30), 4.0),  # sphenoid ridge
    ((4, -2, -36), (4, -26, -68), 6.0),  # clivus
    ((46, 40, -38), (40, 60, -56), 4.5),  # zygoma
    ((56, 30, -56), (64, -14, -52), 3.0),  # zygomatic arch
    ((0, 74, -34), (0, 84, -50), 3.0),  # nasal bones
)
CALCIFIED: tuple[Point, ...] = ((0, -28, 3), (20, -38, 12), (-20, -38, 12))  # pineal gland, choroid plexus
PALLIDUM: Point = (20, -4, 0)
