"""Do the virtual patients look and measure like heads? A sheet for the eye and a table for the rest.

The same rulers measure a real CT series, so that both stand in one table, each in its own labelled row.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from inference import volume
from inference.maps import KINDS
from training.simulate import render, tissue
from training.simulate.cohort import head_grid
from training.simulate.colours import rainbow
from training.simulate.geometry import Grid
from training.simulate.params import Mix
from training.simulate.patient import Patient, make

PURE = 0.95  # fraction of a tissue from which a voxel counts as that tissue
CELL = 168  # pixels of one picture on the sheet
LEVELS = (-48.0, -24.0, 0.0, 32.0)  # mm: heights of the NCCT slices on the sheet
SHOWN = ("CBF", "CBV", "MTT", "Tmax")
LAG = 1.0  # mm at which the grain of the noise is measured
BONE_HU, AIR_HU = 300.0, -400.0


@dataclass(frozen=True, slots=True)
class Measures:
    """What a ruler finds without knowing the truth; medians over slices through the middle of the head.

    brain: HU of brain after smoothing by 1.5 mm. noise: HU, standard deviation of what smoothing by 3 mm removes,
    in quiet brain. grain: its autocorrelation 1 mm away. skull, scalp in mm along rays; bone: HU of its hardest layer.
    """

    brain: float
    noise: float
    grain: float
    skull: float
    bone: float
    scalp: float


@dataclass(frozen=True, slots=True)
class Truths:
    """What only the simulator knows: median HU of pure tissue, fluid as a share of the inside of the skull, volumes."""

    grey: float
    white: float
    ventricle: float
    fluid_share: float
    brain_ml: float
    hypoperfused_ml: float
    core_ml: float


def measure(hu: np.ndarray, spacing: float, slices: Sequence[int]) -> Measures:
    """Medians over the given slices of a head, (slices, rows, columns) HU."""
    rows = [_measure_slice(hu[index], spacing) for index in slices]
    return Measures(*(float(np.median([getattr(row, name) for row in rows])) for name in Measures.__slots__))


def _measure_slice(plane: np.ndarray, spacing: float) -> Measures:
    soft = ndimage.binary_opening((plane > -5) & (plane < 75), iterations=2)
    labels, _ = ndimage.label(soft)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    quiet = ndimage.binary_erosion(ndimage.binary_fill_holes(largest), iterations=round(8 / spacing))
    rest = (plane - ndimage.gaussian_filter(plane, 3.0 / spacing)) * quiet
    steps = LAG / spacing
    apart = ndimage.shift(rest, (0, steps), order=1) * quiet
    variance = float(rest[quiet].var())
    centre = ndimage.center_of_mass(quiet)
    skull, bone, scalp = _rays(plane, spacing, (float(centre[0]), float(centre[1])))
    return Measures(
        brain=float(np.median(ndimage.gaussian_filter(plane, 1.5 / spacing)[quiet])),
        noise=variance**0.5,
        grain=float((rest * apart)[quiet].mean()) / variance,
        skull=skull,
        bone=bone,
        scalp=scalp,
    )


def _rays(
    plane: np.ndarray, spacing: float, centre: tuple[float, float], step: float = 0.25
) -> tuple[float, float, float]:
    """Median thickness of bone in mm, hardest HU, and mm from bone to air, along 72 rays from the centre."""
    radius = np.arange(40.0, 118.0, step)
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    places = [centre[axis] + np.outer(wave(angles), radius) / spacing for axis, wave in enumerate((np.sin, np.cos))]
    profiles = ndimage.map_coordinates(plane, places, order=1, mode="nearest")
    found = []
    for profile in profiles:
        bone = np.flatnonzero(profile > BONE_HU)
        if not bone.size:
            continue
        start = bone[0]
        end = start + int(np.argmax(profile[start:] < BONE_HU / 2))
        skin = int(np.argmax(profile[end:] < AIR_HU))
        found.append(((end - start) * step, profile[start : end + 1].max(), skin * step))
    thickness, hardest, scalp = np.median(found, axis=0)
    return float(thickness), float(hardest), float(scalp)


def truths(patient: Patient, grid: Grid, hu: np.ndarray) -> Truths:
    """Tissue medians of a rendered patient, away from any lesion."""
    inside = on_slices(patient, grid)
    flow = patient.at(("flow",), grid, planes=False)[0].numpy()
    sound = flow > 0.98
    medians = {name: float(np.median(hu[(inside[name] > PURE) & sound])) for name in ("grey", "white", "ventricle")}
    fluid = float(inside["fluid"].sum() + inside["ventricle"].sum())
    brain = float(inside["grey"].sum() + inside["white"].sum())
    return Truths(
        **medians,
        fluid_share=fluid / (fluid + brain),
        brain_ml=float(patient.latent.brain.sum()) * patient.latent.grid.voxel_ml,
        hypoperfused_ml=patient.volumes.hypoperfused,
        core_ml=patient.volumes.core,
    )


def on_slices(patient: Patient, grid: Grid) -> dict[str, np.ndarray]:
    """Tissue fractions on the slices of a grid; voxels touched by focal lesions, vessels or calcium hold none."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("grey", "white", "fluid", "ventricle")}
    for _, slab in grid.slabs():
        points = patient.deformation.points(slab)
        here = patient.tissue_at(points)
        focal = patient.focal_at(points, here)
        clean = _clean(here) * (1 - focal.old) * (1 - focal.haemorrhage) * (1 - focal.oedema) * (1 - focal.lacune)
        for name, parts in found.items():
            weight = clean * (1 - focal.white) if name in ("grey", "white") else torch.ones(())
            parts.append(slab.mean_of_planes(getattr(here, name) * weight))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _clean(here: tissue.Tissue) -> torch.Tensor:
    return (1 - here.artery) * (1 - here.vein) * (1 - here.falx)


def middle_slices(heights: np.ndarray) -> list[int]:
    """Slices from 35 to 75 % of the way up: above the base of the skull, below the vertex."""
    share = (heights - heights.min()) / np.ptp(heights)
    return [int(index) for index in np.flatnonzero((share > 0.35) & (share < 0.75))]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A rendered patient and the processor time it took; maps as Patient.truth gives them."""

    patient: Patient
    grid: Grid
    hu: np.ndarray
    maps: Mapping[str, np.ndarray]
    seconds: float


def make_head(seed: int, mix: Mix, matrix: int = 256) -> Head:
    """Draw, solve and render one patient."""
    started = time.process_time()
    patient = make(seed, mix)
    grid = head_grid(patient, matrix)
    hu, maps = render.ncct(patient, grid), patient.truth(grid)
    return Head(patient, grid, hu, maps, time.process_time() - started)


Row = dict[str, str | float]


def table(heads: Sequence[Head], real: Path | None = None) -> list[Row]:
    """One row a patient, then the real series if there is one; cpu_s: processor seconds of solving, NCCT and maps."""
    rows: list[Row] = []
    for head in heads:
        params = head.patient.params
        found = measure(head.hu, head.grid.spacing, middle_slices(np.array(head.grid.heights)))
        known = truths(head.patient, head.grid, head.hu)
        name = f"{params.seed} {params.severity}, {params.kind}"
        rows.append({"head": name, **asdict(known), **asdict(found), "cpu_s": head.seconds})
    if real is not None:
        rows.append({"head": f"REAL {real.name}", **asdict(measure_series(real))})
    return rows


def measure_series(folder: Path) -> Measures:
    """The same rulers on a CT series on disk."""
    head = volume.from_slices([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))])
    return measure(head.hu, head.pixel_spacing[0], middle_slices(head.offsets))


def markdown(rows: Sequence[Mapping[str, str | float]]) -> str:
    """The rows as a Markdown table, with a last row of means over the virtual patients."""
    columns = list(rows[0])
    virtual = [row for row in rows if "cpu_s" in row]
    mean: dict[str, str | float] = {"head": "**mean of virtual**"}
    mean |= {name: float(np.mean([float(row[name]) for row in virtual])) for name in columns[1:]}
    lines = [" | ".join(columns), " | ".join(["---"] + ["---:"] * (len(columns) - 1))]
    lines += [" | ".join(_cell(row.get(name, "")) for name in columns) for row in (*virtual, mean)]
    lines += [" | ".join(_cell(row.get(name, "")) for name in columns) for row in rows if "cpu_s" not in row]
    return "".join(f"| {line} |\n" for line in lines)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def sheet(heads: Sequence[Head], path: Path) -> Path:
    """A PNG: each patient a line of NCCT levels and the maps of one level, two patients side by side."""
    lines = [_line(head) for head in heads]
    across = [np.concatenate(lines[k : k + 2], axis=1) for k in range(0, len(lines) - len(lines) % 2, 2)]
    footer = np.zeros((18, across[0].shape[1], 3), np.uint8)
    image = Image.fromarray(np.concatenate([*across, footer]))
    words = f"SIMULATED, NOT PATIENTS. NCCT centre 40 width 80 HU; maps {_ranges()}"
    ImageDraw.Draw(image).text((4, image.height - 15), words, fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _ranges() -> str:
    return ", ".join(f"{name} 0-{KINDS[name].ceiling:g} {KINDS[name].unit}" for name in SHOWN)


def _line(head: Head) -> np.ndarray:
    """(CELL, cells * CELL, 3) of one patient."""
    patient, maps, heights = head.patient, head.maps, np.array(head.grid.heights)
    cells = [_grey(head.hu[np.abs(heights - level).argmin()]) for level in LEVELS]
    lesion = int((maps["Tmax"] > 6.0).sum(axis=(1, 2)).argmax()) if patient.params.stroke else len(heights) // 2
    for name in SHOWN:
        share = np.clip(maps[name][lesion] / KINDS[name].ceiling, 0, 1)
        cells.append((rainbow(share) * (maps[name][lesion] > 0)[..., None]).astype(np.uint8))
    image = Image.fromarray(np.concatenate([_fit(cell) for cell in cells], axis=1))
    draw, words = ImageDraw.Draw(image), _caption(patient)
    draw.rectangle((0, 0, draw.textlength(words) + 8, 13), fill="black")
    draw.text((3, 1), words, fill="yellow")
    return np.asarray(image)


def _caption(patient: Patient) -> str:
    params, stroke = patient.params, patient.params.stroke
    words = f"{params.seed} {params.sex} {params.age:.0f} y, {params.severity}, {params.kind}"
    return f"{words}, {stroke.side} {stroke.vessel}, {stroke.onset:.1f} h" if stroke else words


def _grey(plane: np.ndarray) -> np.ndarray:
    level = (np.clip(plane, 0, 80) * (255 / 80)).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def _fit(picture: np.ndarray) -> np.ndarray:
    """The middle of a slice at the size of a cell."""
    rim = picture.shape[0] // 16
    return np.asarray(Image.fromarray(picture[rim:-rim, rim:-rim]).resize((CELL, CELL), Image.Resampling.LANCZOS))
