"""Randomness by name: every random field and stream of a patient has one owner and its own generator.

A field that both the look of the NCCT and the blood flow read would teach a network the flow from the texture of the
noise-free image, which no scanner shows. So each name stands once in a table beside its owner, a module asks for
fields as the owner it works for, and asking for another's raises. Anatomy (where gyri, ventricles and old lesions
lie) is the one thing that image and flow share, as they do in people.

Streams come from SeedSequence([seed, stream]), never from seed + constant: adding a name never shifts another, and
no two patients share a stream.
"""

import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

BOX_LOW = (-98.0, -134.0, -72.0)  # mm MNI, x y z: the first voxel of the ICBM152 2009a template
BOX_SIZE = (196.0, 232.0, 188.0)  # mm between its first and last voxel centres
COARSE_FROM = 12.0  # mm: fields at least this smooth are evaluated on the coarse points and interpolated
SPLINE_SD = 0.479**1.5  # standard deviation of a cubic B-spline of unit white noise in three dimensions


class Owner(StrEnum):
    """Who may read a random field."""

    ANATOMY = "anatomy"  # shapes: what is where
    APPEARANCE = "appearance"  # what only the CT image shows
    PHYSIOLOGY = "physiology"  # what only the blood flow knows


@dataclass(frozen=True, slots=True)
class Field:
    """A smooth Gaussian random field of unit variance over the template; scale: mm between its knots."""

    owner: Owner
    scale: float
    channels: int = 1


FIELDS: dict[str, Field] = {
    "pose deformation": Field(Owner.ANATOMY, 80.0, 3),
    "brain deformation": Field(Owner.ANATOMY, 40.0, 3),
    "gyral deformation": Field(Owner.ANATOMY, 20.0, 3),
    "sulci": Field(Owner.ANATOMY, 6.5, 2),
    "fine sulci": Field(Owner.ANATOMY, 5.0, 1),
    "artery course": Field(Owner.ANATOMY, 14.0, 3),
    "skull thickness": Field(Owner.ANATOMY, 30.0, 2),
    "white matter lesions": Field(Owner.ANATOMY, 10.0, 1),
    "focal lesion edge": Field(Owner.ANATOMY, 8.0, 1),
    "bone texture": Field(Owner.APPEARANCE, 6.0, 2),
    "soft tissue texture": Field(Owner.APPEARANCE, 7.0, 2),
    "cortical vessels": Field(Owner.APPEARANCE, 14.0, 2),
    "brain density": Field(Owner.APPEARANCE, 25.0, 1),
    "white matter tracts": Field(Owner.APPEARANCE, 7.0, 1),
    "water uptake": Field(Owner.APPEARANCE, 14.0, 1),
    "regional flow": Field(Owner.PHYSIOLOGY, 30.0, 2),
    "local flow": Field(Owner.PHYSIOLOGY, 12.0, 2),
    "delay": Field(Owner.PHYSIOLOGY, 18.0, 1),
    "collateral flow": Field(Owner.PHYSIOLOGY, 16.0, 1),
    "collateral islands": Field(Owner.PHYSIOLOGY, 8.0, 2),
    "territory border": Field(Owner.PHYSIOLOGY, 10.0, 1),
    "vascular response": Field(Owner.PHYSIOLOGY, 25.0, 1),
}

STREAMS: dict[str, Owner] = {
    "parameters": Owner.ANATOMY,
    "territories": Owner.PHYSIOLOGY,
    "ncct noise": Owner.APPEARANCE,
    "ncct motion": Owner.APPEARANCE,
    "ctp noise": Owner.APPEARANCE,
    "ctp motion": Owner.APPEARANCE,
}


@dataclass(frozen=True)
class Streams:
    """The random generators of one patient.

    attempt: counts redraws of a patient whose finished maps fell into another severity class than asked for.
    swapped: names to replace by an unrelated patient's, for the leak tests.
    """

    seed: int
    attempt: int = 0
    swapped: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"a seed is one 32-bit word, 0 to 4294967295; not {self.seed}")
        if unknown := self.swapped - FIELDS.keys() - STREAMS.keys():
            raise ValueError(f"no random field or stream is called {sorted(unknown)}")

    def generator(self, name: str, owner: Owner, repeat: int = 0) -> np.random.Generator:
        """The generator of a stream; repeat: 1, 2, ... for scanning the same patient again."""
        if STREAMS[name] is not owner:
            raise PermissionError(f"the stream {name!r} belongs to {STREAMS[name]}, not to {owner}")
        return self._generator(name, repeat)

    def _generator(self, name: str, repeat: int = 0) -> np.random.Generator:
        words = [self.seed, zlib.crc32(name.encode()), self.attempt, repeat, int(name in self.swapped)]
        return np.random.default_rng(np.random.SeedSequence(words))


@dataclass(frozen=True)
class Points:
    """Where the voxels of a slab lie in the template.

    mm: (planes, rows, columns, 3) MNI x, y, z in mm.
    coarse: (planes, fewer rows, fewer columns, 3) the same slab on a coarse lattice with the same corners.
    """

    mm: Tensor
    coarse: Tensor

    @cached_property
    def unit(self) -> Tensor:
        """`mm` as grid_sample wants it, -1 to 1 over the template."""
        return to_unit(self.mm)

    @cached_property
    def coarse_unit(self) -> Tensor:
        """The same of `coarse`."""
        return to_unit(self.coarse)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns."""
        planes, rows, columns, _ = self.mm.shape
        return planes, rows, columns


def to_unit(mm: Tensor) -> Tensor:
    """MNI mm to -1..1 over the template."""
    return (mm - torch.tensor(BOX_LOW)) * (2.0 / torch.tensor(BOX_SIZE)) - 1.0


def sample(lattice: Tensor, unit: Tensor, nearest: bool = False) -> Tensor:
    """A lattice (channels, z, y, x) over the template at points (planes, rows, columns, 3): (channels, planes, ...)."""
    mode = "nearest" if nearest else "bilinear"
    each = lattice[None].expand(len(unit), -1, -1, -1, -1)  # torch works on batch members in parallel, not on planes
    return functional.grid_sample(each, unit[:, None], mode, "border", align_corners=True)[:, :, 0].transpose(0, 1)


def spread(coarse: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(channels, planes, coarse rows, coarse columns) to full rows and columns, linearly, corners on corners."""
    return functional.interpolate(coarse[None], size=shape, mode="trilinear", align_corners=True)[0]


@dataclass(frozen=True)
class Fields:
    """The random fields of one patient, read by one owner."""

    streams: Streams
    owner: Owner
    lattices: dict[str, Tensor]

    def at(self, name: str, points: Points) -> Tensor:
        """(channels, planes, rows, columns) of unit variance."""
        lattice = self._lattice(name)
        if FIELDS[name].scale >= COARSE_FROM:
            return spread(sample(lattice, points.coarse_unit), points.shape)
        return sample(lattice, points.unit)

    def at_unit(self, name: str, unit: Tensor) -> Tensor:
        """The same at any points in template units."""
        return sample(self._lattice(name), unit)

    def _lattice(self, name: str) -> Tensor:
        field = FIELDS[name]
        if field.owner is not self.owner:
            raise PermissionError(f"the random field {name!r} belongs to {field.owner}, not to {self.owner}")
        if name not in self.lattices:
            self.lattices[name] = _draw(field, self.streams._generator(name))
        return self.lattices[name]


def _draw(field: Field, random: np.random.Generator) -> Tensor:
    """(channels, z, y, x): white noise on knots, raised to a finer lattice by cubic B-splines."""
    cells = [int(np.ceil(size / field.scale)) for size in reversed(BOX_SIZE)]
    finer = 4 if field.scale >= COARSE_FROM else 3
    knots = random.standard_normal((field.channels, *(n + 3 for n in cells)))
    z, y, x = (_splines(n, finer) for n in cells)
    values = np.einsum("kc,jb,ia,ncba->nkji", z, y, x, knots, optimize=True) / SPLINE_SD
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _splines(cells: int, finer: int) -> np.ndarray:
    """(nodes, knots): the weight of each knot at each node; nodes from one end of the box to the other."""
    place = np.linspace(0.0, cells, cells * finer + 1)[:, None] + 1.0
    distance = np.abs(place - np.arange(cells + 3))
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    return np.where(distance < 1.0, near, far)


def smoothstep(value: Tensor, start: float, end: float) -> Tensor:
    """0 up to `start`, 1 from `end`, with a smooth rise between them."""
    t = ((value - start) * (1.0 / (end - start))).clamp_(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
