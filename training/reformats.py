"""Sagittal and coronal planes through maps on axial slices, as a radiologist expects them: head up, the patient's right
on the left of a coronal plane, the face on the left of a sagittal one.

Everything is found by its place in the patient (LPS, mm), so a gantry tilt and any position on the table come out
straight. Every pixel is the voxel that lies there: nothing is smoothed between slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from scipy import ndimage

from inference.maps import KINDS
from inference.preprocess import WINDOW
from inference.volume import AIR, Volume
from training.metrics import box
from training.simulate.colours import rainbow

PIXEL = 1.0  # mm
HEIGHT = 2  # the axis of LPS along which the rows lie
HEAD_HU = -400.0  # anything thinner is the air around the head
COLOURS = ListedColormap(rainbow(np.linspace(0.0, 1.0, 256)) / 255.0).with_extremes(bad="black")
LETTER: Mapping[str, Any] = {
    "color": "white",
    "fontsize": "small",
    "bbox": {"facecolor": "black", "edgecolor": "none", "pad": 1.0},
}

Maps = Mapping[str, np.ndarray]  # kind -> (slices, rows, columns) in its unit, nan outside the brain


@dataclass(frozen=True, slots=True)
class Cut:
    """A plane across the slices. fixed: the axis of LPS on which it stands; along: the one along which columns lie.

    ends: the side of the patient at the first column and at the last one.
    """

    fixed: int
    along: int
    ends: tuple[str, str]


CUTS: Mapping[str, Cut] = {"sagittal": Cut(0, 1, ("A", "P")), "coronal": Cut(1, 0, ("R", "L"))}


def reformat(values_SYX: np.ndarray, head: Volume, cut: Cut, point: np.ndarray, outside: float) -> np.ndarray:
    """The plane through a point of the patient (3,), in pixels of 1 mm; `outside` where no slice is.

    Rows go down from the head to the feet, columns to the patient's left (coronal) or back (sagittal). The slices
    are evenly spaced.
    """
    low, high = _reach(head)
    heights = np.arange(high[HEIGHT], low[HEIGHT] - PIXEL / 2, -PIXEL)
    columns = np.arange(low[cut.along], high[cut.along] + PIXEL / 2, PIXEL)
    places = np.empty((len(heights), len(columns), 3))
    places[..., cut.fixed], places[..., cut.along] = point[cut.fixed], columns
    places[..., HEIGHT] = heights[:, None]
    indices = (places - head.positions[0]) @ np.linalg.inv(_steps(head))
    plane: np.ndarray = ndimage.map_coordinates(
        values_SYX, indices.transpose(2, 0, 1), order=0, mode="grid-constant", cval=outside
    )
    return plane


def middle(region_SYX: np.ndarray, head: Volume) -> np.ndarray:
    """(3,) LPS mm: the planes through this point halve a region, which must not be empty."""
    places = head.positions[0] + np.argwhere(region_SYX) @ _steps(head)
    point: np.ndarray = np.median(places, axis=0)
    return point


def _steps(head: Volume) -> np.ndarray:
    """(3, 3) rows, mm in LPS: to the next slice, to the next row, to the next column."""
    between_rows, between_columns = head.pixel_spacing
    to_next = (head.positions[-1] - head.positions[0]) / (len(head.positions) - 1)
    return np.stack([to_next, head.column_direction * between_rows, head.row_direction * between_columns])


def _reach(head: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest place of all voxel centres along each axis of LPS, mm."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(head.hu.shape) - 1)
    places = head.positions[0] + corners @ _steps(head)
    return places.min(axis=0), places.max(axis=0)


def sheet(
    head: Volume, columns: Mapping[str, Maps], kinds: Sequence[str], lesion_SYX: np.ndarray, title: str
) -> Figure:
    """Two planes through the middle of a lesion, of each kind: the CT on the left, then each of the columns.

    The CT is bare beside the first kind and has the lesion outlined beside the others.
    """
    point = middle(lesion_SYX, head)
    figure = Figure(figsize=(2.7 * (1 + len(columns)) + 0.7, 4.5 * len(kinds) + 0.5), layout="constrained")
    panels = figure.subplots(len(kinds) * len(CUTS), 1 + len(columns), squeeze=False)
    for k, kind in enumerate(kinds):
        rows = panels[k * len(CUTS) : (k + 1) * len(CUTS)]
        for line, (name, cut) in zip(rows, CUTS.items(), strict=True):
            cropped = _ct(line[0], head, cut, point, lesion_SYX if k else None)
            line[0].set_ylabel(f"{name}, {'xyz'[cut.fixed]} = {point[cut.fixed]:.0f} mm", fontsize="small")
            for axes, maps in zip(line[1:], columns.values(), strict=True):
                _map(axes, reformat(maps[kind], head, cut, point, np.nan)[cropped], kind)
            for axes in line:
                _mark(axes, cut)
        words = "NCCT, lesion outlined" if k else f"NCCT, {WINDOW[0]:g} to {WINDOW[1]:g} HU"
        for axes, text in zip(rows[0], (words, *(f"{kind}, {name}" for name in columns)), strict=True):
            axes.set_title(text, fontsize="small")
        _bar(figure, rows, kind)
    figure.suptitle(title, fontsize="small")
    return figure


def _ct(axes: Axes, head: Volume, cut: Cut, point: np.ndarray, lesion_SYX: np.ndarray | None) -> tuple[slice, slice]:
    """Draw the CT, and return the rows and columns that hold the head."""
    grey = reformat(head.hu, head, cut, point, AIR)
    cropped = box(grey > HEAD_HU)
    axes.imshow(grey[cropped], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
    if lesion_SYX is not None:
        outlined = reformat(lesion_SYX.astype(np.uint8), head, cut, point, 0)
        axes.contour(outlined[cropped], levels=[0.5], colors="yellow", linewidths=0.8)
    return cropped


def _map(axes: Axes, plane: np.ndarray, kind: str) -> None:
    axes.imshow(plane, cmap=COLOURS, vmin=0.0, vmax=KINDS[kind].ceiling, interpolation="nearest")


def _mark(axes: Axes, cut: Cut) -> None:
    """The four sides of the patient, at the edges of a panel."""
    first, last = cut.ends
    places = {first: (0.02, 0.5, "left", "center"), last: (0.98, 0.5, "right", "center")}
    places |= {"H": (0.5, 0.98, "center", "top"), "F": (0.5, 0.02, "center", "bottom")}
    for letter, (x, y, horizontal, vertical) in places.items():
        axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, **LETTER)
    axes.set(xticks=[], yticks=[])
    axes.set_facecolor("black")
    for side in axes.spines.values():
        side.set_visible(False)


def _bar(figure: Figure, rows: np.ndarray, kind: str) -> None:
    """Values saturate, so the top tick says at least."""
    ceiling = KINDS[kind].ceiling
    bar = figure.colorbar(rows[0, -1].images[0], ax=list(rows.flat), shrink=0.7, pad=0.01)
    bar.set_ticks([0.0, ceiling / 2, ceiling], labels=["0", f"{ceiling / 2:g}", f"≥ {ceiling:g}"])
    bar.set_label(f"{kind}, {KINDS[kind].unit}", fontsize="small")
