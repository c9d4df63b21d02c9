"""A picture of how well sequences lie on one another: a checkerboard of two, with the outline of the brain."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.figures import dark_edge, png_figure, printable

FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_FIELD_MM = 22.0
_OUTLINE = "#ffd84d"
_WIDTH_IN = 9.0
# Planes by the axis that they cut, with what lies on the left and the right side of the picture.
_PLANES = ((0, "axial", ("R", "L")), (1, "coronal", ("R", "L")), (2, "sagittal", ("A", "P")))


def checkerboard_picture(
    images: Mapping[str, FloatVolume],
    brain: Mask,
    reference: str,
    spacing_mm: tuple[float, float, float],
    notes: Mapping[str, str],
    title: str = "",
) -> bytes:
    """Return a PNG: a row for each sequence, its fields in turn with the reference's, cut through the brain's middle.

    Where the sequences lie on one another, borders go on from field to field. The reference has a row of its own.

    Args:
        images: By sequence, (D, H, W) in LPS order: to the head, to the back, to the patient's left; on one grid.
        brain: Where the brain is, as the images.
        reference: The sequence that the others are compared with.
        spacing_mm: Voxel spacing (z, y, x).
        notes: What is said of a sequence, beside its name.
        title: Above everything.
    """
    greys = {m: _greys(image, brain) for m, image in images.items()}
    rows = [reference, *(m for m in images if m != reference)]
    sizes_mm = [size * mm for size, mm in zip(brain.shape, spacing_mm, strict=True)]
    widths = [sizes_mm[2], sizes_mm[2], sizes_mm[1]]
    row_in = _WIDTH_IN * max(sizes_mm[0], sizes_mm[1]) / sum(widths) + 0.25
    file = io.BytesIO()
    with png_figure(file, _WIDTH_IN, row_in * len(rows) + 0.45) as figure:
        inch = 1 / figure.get_figheight()
        grid = figure.add_gridspec(len(rows), 3, width_ratios=widths, wspace=0.02, hspace=0.14)
        grid.update(left=0.01, right=0.99, top=1 - 0.65 * inch, bottom=0.05 * inch)
        for row, name in enumerate(rows):
            board = greys[name] if name == reference else _checkered(greys[name], greys[reference], spacing_mm)
            for column, (axis, plane, sides) in enumerate(_PLANES):
                axes = figure.add_subplot(grid[row, column])
                _show(axes, board, brain, axis, spacing_mm, sides)
                if column == 0:
                    compared = " and ".join(heading(m) for m in dict.fromkeys((name, reference)))
                    text = ", ".join(filter(None, (f"{compared}, {plane}", notes.get(name, ""))))
                    axes.set_title(printable(text), fontsize=8, pad=2, loc="left")
        figure.suptitle(printable(title), fontsize=11, y=1 - 0.06 * inch, va="top")
    return file.getvalue()


def _greys(image: FloatVolume, brain: Mask) -> FloatVolume:
    """Return the image from 0 (black) to 1 (white), by what is in the brain."""
    inside = image[brain]
    low, high = np.percentile(inside[:: max(1, inside.size // 200_000)], (1, 99)) if inside.size else (0.0, 1.0)
    return np.clip((image - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def _checkered(first: FloatVolume, second: FloatVolume, spacing_mm: tuple[float, float, float]) -> FloatVolume:
    fields = [
        (np.arange(size) * mm // _FIELD_MM).astype(int).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (size, mm) in enumerate(zip(first.shape, spacing_mm, strict=True))
    ]
    odd = (fields[0] + fields[1] + fields[2]) % 2 == 1
    return np.where(odd, second, first)


def _show(
    axes: Any,
    board: FloatVolume,
    brain: Mask,
    axis: int,
    spacing_mm: tuple[float, float, float],
    sides: tuple[str, str],
) -> None:
    planes = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
    position = int(planes[len(planes) // 2]) if planes.size else board.shape[axis] // 2
    picture, outline = np.take(board, position, axis), np.take(brain, position, axis)
    if axis:  # the head is up
        picture, outline = picture[::-1], outline[::-1]
    rows, columns = [a for a in range(3) if a != axis]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=spacing_mm[rows] / spacing_mm[columns])
    if outline.any() and not outline.all():
        axes.contour(outline, levels=[0.5], colors=[_OUTLINE], linewidths=0.8)
    for text, x, side in zip(sides, (0.02, 0.98), ("left", "right"), strict=True):
        words = {"color": "white", "fontsize": 8, "ha": side, "va": "center", "path_effects": dark_edge()}
        axes.text(x, 0.5, text, transform=axes.transAxes, **words)
    axes.set_axis_off()
