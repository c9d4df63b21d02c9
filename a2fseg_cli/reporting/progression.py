"""Figure 2 of the paper: one slice, segmented from ever more modalities, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.reporting.colours import DEFAULT_PALETTE, Colour, class_colours, long_name
from a2fseg_cli.reporting.figures import png_figure, printable
from a2fseg_cli.reporting.slices import EDGE_MARKS, Backdrop, Classes, Cut, largest_cut

_FILL, _EDGE = 0.45, 0.95  # opacity inside a class and on its border
_PANEL = 2.0  # width in inches
_LEGEND_COLUMNS = 3


def write_subset_progression(
    path: Path,
    image: Backdrop,
    columns: Sequence[tuple[str, Classes]],
    truth: Classes,
    spacing_mm: tuple[float, float, float],
    class_names: Sequence[str] = ("background", "NCR", "ED", "ET"),
    title: str = "",
    palette: str = DEFAULT_PALETTE,
) -> None:
    """Write Figure 2 of the paper as PNG: one axial slice, segmented from more and more modalities, then the truth.

    The slice is where the truth's largest part is largest; without a tumour, the middle of the image. Classes are
    filled, as in the paper: whole outlines are compared here, not their course in the tissue.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        image: (D, H, W), shown under every column.
        columns: Heading (for example FLAIR, + T1c) and class indices (D, H, W), in the order of the columns.
        truth: Class indices (D, H, W) of the last column.
        spacing_mm: Voxel spacing (z, y, x).
        class_names: Name of each class index, background first.
        title: Above everything.
        palette: Which colours, a key of PALETTES.

    Raises:
        ValueError: arrays that differ in shape, or a class without a name.
        ResourceError: the file cannot be written.
    """
    everything = [*columns, ("truth", truth)]
    for _heading, classes in everything:
        _check(image.voxels, classes, class_names)
    cut = Cut(0, largest_cut(truth > 0, 0))
    picture = cut.of(image.voxels)
    tall_mm, wide_mm = cut.pixel_mm(spacing_mm)
    aspect = tall_mm / wide_mm
    colours = class_colours(class_names[1:], palette)
    entries = [(long_name(name), colour) for name, colour in zip(class_names[1:], colours, strict=True)]
    foot = 0.25 + 0.2 * max(1, -(-len(entries) // _LEGEND_COLUMNS))
    height = _PANEL * picture.shape[0] * aspect / picture.shape[1] + foot + 0.6
    with png_figure(path, _PANEL * len(everything), height) as figure:
        grid = figure.add_gridspec(1, len(everything), wspace=0.03)
        grid.update(left=0.005, right=0.995, bottom=foot / height, top=1 - 0.55 / height)
        for column, (heading, classes) in enumerate(everything):
            axes = figure.add_subplot(grid[0, column])
            _show(axes, picture, _paint(cut.of(classes), colours), image.limits, aspect)
            axes.set_title(printable(heading), fontsize=10, color="black", pad=3)
        figure.suptitle(printable(title), fontsize=11, color="black", y=1 - 0.06 / height, va="top")
        _legend(figure, entries)


def _check(image: npt.NDArray[Any], classes: Classes, class_names: Sequence[str]) -> None:
    if image.ndim != 3 or image.shape != classes.shape:
        raise ValueError(f"expected an image and classes of one shape (D, H, W); got {image.shape}, {classes.shape}")
    if classes.max(initial=0) >= len(class_names):
        raise ValueError(f"class {classes.max()} has no name among {tuple(class_names)}")


def _paint(classes: Classes, colours: Sequence[Colour]) -> npt.NDArray[np.float32]:
    """Return RGBA (rows, columns, 4): each class in its colour, its border nearly opaque."""
    padded = np.pad(classes, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    border = np.zeros(classes.shape, np.bool_)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        border |= neighbour != middle
    table = np.array([(0.0, 0.0, 0.0), *colours], np.float32)
    alpha = np.where(classes > 0, np.where(border, _EDGE, _FILL), 0.0).astype(np.float32)
    return np.concatenate([table[classes], alpha[..., None]], axis=-1)


def _show(
    axes: Any,
    picture: npt.NDArray[Any],
    overlay: npt.NDArray[np.float32],
    limits: tuple[float, float],
    aspect: float,
) -> None:
    low, high = limits
    grey = np.where(np.isfinite(picture) & (picture != 0), picture, low)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.imshow(overlay, aspect=aspect, interpolation="nearest")
    axes.set_axis_off()
    for text, x, side in zip(EDGE_MARKS[0], (0.02, 0.98), ("left", "right"), strict=True):
        axes.text(x, 0.5, text, transform=axes.transAxes, color="white", fontsize=9, ha=side, va="center")


def _legend(figure: Any, entries: Sequence[tuple[str, Colour]]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(facecolor=colour, label=printable(label)) for label, colour in entries],
        loc="lower center",
        ncols=min(len(entries), _LEGEND_COLUMNS),
        frameon=False,
        fontsize=9,
        labelcolor="black",
    )
