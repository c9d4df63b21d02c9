"""Pictures of a segmentation over its image, in radiological convention: the patient's left is on the right.

Arrays arrive in LPS order: axis 0 to the head, axis 1 to the back, axis 2 to the patient's left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.preprocessing import bounding_box
from a2fseg_cli.reporting.colours import Colour, class_colours, long_name
from a2fseg_cli.reporting.figures import png_figure, printable

Classes = npt.NDArray[np.uint8]
Slice2D = npt.NDArray[np.floating[Any]]

_FILL, _EDGE = 0.45, 0.95  # opacity inside a class and on its border
_PLANES = ("axial", "coronal", "sagittal")
_EDGE_MARKS = (("R", "L"), ("R", "L"), ("A", "P"))
_MARGIN_MM = 6.0
_LEGEND_COLUMNS = 3


def write_preview(
    path: Path | BinaryIO,
    image: npt.NDArray[np.floating[Any]],
    classes: Classes,
    spacing_mm: tuple[float, float, float],
    class_names: Sequence[str],
    title: str = "",
    background_name: str = "",
    guesses: Collection[str] = (),
) -> None:
    """Write a PNG: an axial, a coronal and a sagittal slice, above without and below with the segmentation.

    Each plane is cut where the tumour is largest in it; without a tumour, through the middle of the image.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically. Or a binary file that is open.
        image: (D, H, W), any intensities.
        classes: Class indices (D, H, W), 0 background.
        spacing_mm: Voxel spacing (z, y, x).
        class_names: Name of each class index, background first.
        title: Above everything.
        background_name: What the image is, for example FLAIR.
        guesses: Classes that the sequences at hand cannot show; the legend says so.

    Raises:
        ValueError: the arrays differ in shape, or a class has no name.
        ResourceError: the file cannot be written.
    """
    _check(image, classes, class_names)
    box = _visible_box(image, classes, spacing_mm)
    sizes_mm = [(part.stop - part.start) * mm for part, mm in zip(box, spacing_mm, strict=True)]
    widths, height = [sizes_mm[2], sizes_mm[2], sizes_mm[1]], max(sizes_mm[0], sizes_mm[1])
    colours = class_colours(class_names[1:])
    limits = _grey_limits(image)
    volumes_ml = np.bincount(classes.ravel(), minlength=len(class_names)) * np.prod(spacing_mm) / 1000
    entries = [
        (f"{long_name(name)}, {ml:.1f} mL{' (a guess)' if name in guesses else ''}", colour)
        for name, ml, colour in zip(class_names[1:], volumes_ml[1:], colours, strict=True)
        if ml
    ]
    foot = _legend_height_in(entries)
    with png_figure(path, 9.0, 2 * 9.0 * height / sum(widths) + foot + 0.6) as figure:
        inch = 1 / figure.get_figheight()
        grid = figure.add_gridspec(2, 3, width_ratios=widths, wspace=0.02, hspace=0.02)
        grid.update(left=0.01, right=0.99, top=1 - 0.55 * inch, bottom=foot * inch)
        for plane in range(3):
            position = _largest_cut(classes, plane, box)
            picture = _cut(image, plane, position, box)
            overlay = _paint(_cut(classes, plane, position, box), colours)
            aspect = _aspect(plane, spacing_mm)
            for row in range(2):
                axes = figure.add_subplot(grid[row, plane])
                _show(axes, picture, overlay if row else None, limits, aspect)
                _mark(axes, _EDGE_MARKS[plane])
                if not row:
                    where = f"{_PLANES[plane]}, slice {position + 1} of {image.shape[plane]}"
                    axes.set_title(where, fontsize=9, color="black", pad=3)
        heading = ", ".join(filter(None, (title, background_name and f"shown on {background_name}")))
        figure.suptitle(printable(heading), fontsize=11, color="black", y=1 - 0.06 * inch, va="top")
        _legend(figure, entries)


def write_subset_progression(
    path: Path,
    image: npt.NDArray[np.floating[Any]],
    columns: Sequence[tuple[str, Classes]],
    truth: Classes,
    spacing_mm: tuple[float, float, float],
    class_names: Sequence[str] = ("background", "NCR", "ED", "ET"),
    title: str = "",
    truth_name: str = "truth",
) -> None:
    """Write Figure 2 of the paper as PNG: one axial slice, segmented from more and more modalities, then the truth.

    The slice is where the truth's tumour is largest; without a tumour, the middle of the image.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        image: (D, H, W), shown under every column.
        columns: Heading (for example FLAIR, + T1c) and class indices (D, H, W), in the order of the columns.
        truth: Class indices (D, H, W) of the last column.
        spacing_mm: Voxel spacing (z, y, x).
        class_names: Name of each class index, background first.
        title: Above everything.
        truth_name: Heading of the last column.

    Raises:
        ValueError: arrays that differ in shape, or a class without a name.
        ResourceError: the file cannot be written.
    """
    everything = [*columns, (truth_name, truth)]
    for _heading, classes in everything:
        _check(image, classes, class_names)
    box = _visible_box(image, truth, spacing_mm)
    position = _largest_cut(truth, 0, box)
    picture, limits = _cut(image, 0, position, box), _grey_limits(image)
    aspect = _aspect(0, spacing_mm)
    height_per_width = picture.shape[0] * aspect / picture.shape[1]
    colours = class_colours(class_names[1:])
    entries = [(long_name(name), colour) for name, colour in zip(class_names[1:], colours, strict=True)]
    panel, foot = 2.0, _legend_height_in(entries)
    with png_figure(path, panel * len(everything), panel * height_per_width + foot + 0.6) as figure:
        inch = 1 / figure.get_figheight()
        grid = figure.add_gridspec(1, len(everything), wspace=0.03)
        grid.update(left=0.005, right=0.995, bottom=foot * inch, top=1 - 0.55 * inch)
        for column, (heading, classes) in enumerate(everything):
            axes = figure.add_subplot(grid[0, column])
            _show(axes, picture, _paint(_cut(classes, 0, position, box), colours), limits, aspect)
            _mark(axes, _EDGE_MARKS[0])
            axes.set_title(printable(heading), fontsize=10, color="black", pad=3)
        figure.suptitle(printable(title), fontsize=11, color="black", y=1 - 0.06 * inch, va="top")
        _legend(figure, entries)


def _check(image: npt.NDArray[Any], classes: Classes, class_names: Sequence[str]) -> None:
    if image.ndim != 3 or image.shape != classes.shape:
        raise ValueError(f"expected an image and classes of one shape (D, H, W); got {image.shape}, {classes.shape}")
    if classes.max(initial=0) >= len(class_names):
        raise ValueError(f"class {classes.max()} has no name among {tuple(class_names)}")


def _visible_box(image: npt.NDArray[Any], classes: Classes, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Return the part to show: the box around all that is not zero, with a margin."""
    visible = (image != 0) | (classes > 0)
    if not visible.any():
        return tuple(slice(0, n) for n in image.shape)
    margins = [round(_MARGIN_MM / mm) for mm in spacing_mm]
    edges = zip(*bounding_box(visible), margins, image.shape, strict=True)
    return tuple(slice(max(start - margin, 0), min(stop + margin, n)) for start, stop, margin, n in edges)


def _largest_cut(classes: Classes, plane: int, box: Sequence[slice]) -> int:
    areas = (classes > 0).sum(tuple(axis for axis in range(3) if axis != plane))
    if not areas.any():
        return int(box[plane].start + box[plane].stop - 1) // 2
    largest = np.flatnonzero(areas == areas.max())
    return int(largest[len(largest) // 2])


def _cut(volume: npt.NDArray[Any], plane: int, position: int, box: Sequence[slice]) -> npt.NDArray[Any]:
    """Return a slice as it is displayed, first row on top: front or head up."""
    part: npt.NDArray[Any] = np.take(volume, position, plane)
    part = part[tuple(box[axis] for axis in range(3) if axis != plane)]
    return part if plane == 0 else part[::-1]


def _aspect(plane: int, spacing_mm: Sequence[float]) -> float:
    rows, columns = ((1, 2), (0, 2), (0, 1))[plane]
    return spacing_mm[rows] / spacing_mm[columns]


def _grey_limits(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Return black and white: the 1st and 99.7th percentile of what is not background."""
    tissue = image[np.isfinite(image) & (image != 0)]
    if not tissue.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(tissue[:: max(1, tissue.size // 200_000)], (1, 99.7)))
    # Cerebrospinal fluid, the darkest tissue, should still stand out from the background.
    low -= 0.15 * (high - low)
    return (low, high) if high > low else (low - 1, high + 1)


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
    picture: Slice2D,
    overlay: npt.NDArray[np.float32] | None,
    limits: tuple[float, float],
    aspect: float,
) -> None:
    low, high = limits
    grey = np.where(np.isfinite(picture) & (picture != 0), picture, low)
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    if overlay is not None:
        axes.imshow(overlay, aspect=aspect, interpolation="nearest")
    axes.set_axis_off()


def _mark(axes: Any, marks: tuple[str, str]) -> None:
    for text, x, side in zip(marks, (0.02, 0.98), ("left", "right"), strict=True):
        axes.text(x, 0.5, text, transform=axes.transAxes, color="white", fontsize=9, ha=side, va="center")


def _legend_height_in(entries: Sequence[tuple[str, Colour]]) -> float:
    return 0.25 + 0.2 * max(1, -(-len(entries) // _LEGEND_COLUMNS))


def _legend(figure: Any, entries: Sequence[tuple[str, Colour]]) -> None:
    from matplotlib.patches import Patch

    if not entries:
        figure.text(0.5, 0.2 / figure.get_figheight(), "no tumour found", color="black", ha="center", va="center")
        return
    patches = [Patch(facecolor=colour, label=printable(label)) for label, colour in entries]
    figure.legend(
        handles=patches,
        loc="lower center",
        ncols=min(len(patches), _LEGEND_COLUMNS),
        frameon=False,
        fontsize=9,
        labelcolor="black",
    )
