"""The picture of a patient: a row a sequence, a column a slice, with outlines, sides and scale; and smaller ones of it.

Everything is put together as one array of pixels, on which matplotlib draws lines and words once: 4 sequences in 6
slices take 0.25 s of CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from a2fseg_cli.reporting.colours import Colour
from a2fseg_cli.reporting.figures import RGB, dark_edge, drawing_over, printable
from a2fseg_cli.reporting.scene import Scene, uncertainty_colours
from a2fseg_cli.reporting.slices import EDGE_MARKS, Cut

_WIDTH = 1850  # pixels, 276 mm at 170 dpi: 2 a millimetre for a head in six columns
_LEAST_WIDTH = 1100  # for the title and the legend
_MOST_PIXELS_PER_MM = 8.0  # a small field of view is not blown up any further
_GAP = 5
_TITLE, _HEADING, _LEGEND_LINE = 52, 54, 34
_LEGEND_COLUMNS = 3
_LINE_PT = 0.6  # 1.4 pixels: the tissue under it stays visible
_BARS_MM = (50, 20, 10, 5, 2, 1)

Row = tuple[str, Callable[[Cut, tuple[int, int]], RGB]]
Column = tuple[Cut, bool]  # the slice, and whether it has outlines


def write_preview(path: Path | BinaryIO, scene: Scene, title: str = "") -> None:
    """Write a PNG: a row a sequence; axial slices, a coronal and a sagittal one, with the outlines of what was found.

    One axial slice is shown without outlines beside itself. Sides are marked, a bar gives the scale, which is one for
    all panels. Where nothing was segmented, words say so.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically. Or a binary file that is open.
        scene: What to show.
        title: Above everything.

    Raises:
        ResourceError: the file cannot be written.
    """
    rows = [(words, _grey_row(scene, name)) for words, name in zip(scene.headings, scene.backdrops, strict=True)]
    _Sheet(scene, rows, _columns(scene)).write(path, title, scene.legend or [("no tumour found", None)])


def write_uncertainty(path: Path | BinaryIO, scene: Scene) -> None:
    """Write a PNG: the slices of the preview with the uncertainty in colour, and the key to the colours.

    Without outlines: the network is least sure along them.

    Args:
        path: As of `write_preview`.
        scene: What to show; it has an uncertainty.

    Raises:
        ResourceError: the file cannot be written.
    """
    _Sheet(scene, [("", scene.unsure)], [(cut, False) for cut in scene.cuts], key=True).write(path, "", [])


def write_thumbnail(path: Path, scene: Scene, width: int = 150) -> None:
    """Write a PNG: the first sequence in the slice where the innermost region is largest, with outlines.

    Args:
        path: As of `write_preview`.
        scene: What to show.
        width: Of the picture, in pixels.

    Raises:
        ResourceError: the file cannot be written.
    """
    name = next(iter(scene.backdrops))
    cut = next(cut for cut in scene.cuts if cut.main)
    tall, wide = scene.classes.shape[1] * scene.spacing_mm[1], scene.classes.shape[2] * scene.spacing_mm[2]
    size = max(1, round(width * tall / wide)), width
    with drawing_over(path, _grey_row(scene, name)(cut, size)) as axes:
        _draw_lines(axes, scene, cut, (0, 0), size)


def _grey_row(scene: Scene, name: str) -> Callable[[Cut, tuple[int, int]], RGB]:
    return lambda cut, size: np.repeat(scene.grey(name, cut, size)[..., None], 3, axis=-1)


def _columns(scene: Scene) -> list[Column]:
    """Return the slices in order, the main one also without outlines, before itself."""
    if not scene.classes.any():
        return [(cut, False) for cut in scene.cuts]
    return [(cut, lined) for cut in scene.cuts for lined in ((False, True) if cut.main else (True,))]


class _Sheet:
    """Panels of one scale in rows and columns, and where they lie.

    Args:
        scene: What is shown.
        rows: Words and the picture of each row.
        columns: The slices.
        key: Whether the key to the colours of an uncertainty stands below.
    """

    def __init__(self, scene: Scene, rows: Sequence[Row], columns: Sequence[Column], key: bool = False) -> None:
        self.scene, self.rows, self.columns, self.key = scene, rows, columns, key
        extents_mm = []
        for cut, _ in columns:
            tall, wide = cut.of(scene.classes).shape
            tall_mm, wide_mm = cut.pixel_mm(scene.spacing_mm)
            extents_mm.append((tall * tall_mm, wide * wide_mm))
        room = _WIDTH - _GAP * (len(columns) + 1)
        self.scale = min(room / sum(wide for _, wide in extents_mm), _MOST_PIXELS_PER_MM)
        self.sizes = [(max(1, round(t * self.scale)), max(1, round(w * self.scale))) for t, w in extents_mm]
        self.height = max(tall for tall, _ in self.sizes)
        self.width = max(sum(wide + _GAP for _, wide in self.sizes) + _GAP, _LEAST_WIDTH)

    def write(self, path: Path | BinaryIO, title: str, legend: Sequence[tuple[str, Colour | None]]) -> None:
        """Draw everything and write the PNG."""
        top = (_TITLE if title else 0) + _HEADING
        lines = -(-len(legend) // _LEGEND_COLUMNS) + self.key
        height = top + len(self.rows) * (self.height + _GAP) + _LEGEND_LINE * lines + 20
        canvas = np.full((height, self.width, 3), 255, np.uint8)
        panels = []
        for number, (_, picture) in enumerate(self.rows):
            left, y = _GAP, top + number * (self.height + _GAP)
            for (cut, lined), (tall, wide) in zip(self.columns, self.sizes, strict=True):
                canvas[y : y + self.height, left : left + wide] = 0
                place = y + (self.height - tall) // 2, left
                canvas[place[0] : place[0] + tall, left : left + wide] = picture(cut, (tall, wide))
                panels.append((number, cut, lined, place, (tall, wide)))
                left += wide + _GAP
        with drawing_over(path, canvas) as axes:
            for number, cut, lined, place, size in panels:
                if lined:
                    _draw_lines(axes, self.scene, cut, place, size)
                self._label(axes, number, cut, lined, place, size, top)
            if title:
                axes.text(self.width / 2, 10, printable(title), fontsize=11, ha="center", va="top")
            self._foot(axes, legend, top + len(self.rows) * (self.height + _GAP) + 10)

    def _label(
        self, axes: Any, row: int, cut: Cut, lined: bool, place: tuple[int, int], size: tuple[int, int], top: int
    ) -> None:
        """Write the sides, and the words that are needed once a row or a column; draw the scale."""
        white = {"color": "white", "fontsize": 7.5}
        y = place[0] + 0.84 * size[0]  # where a head leaves the corners empty
        sides = (place[1] + 5, "left"), (place[1] + size[1] - 5, "right")
        for text, (x, side) in zip(EDGE_MARKS[cut.plane], sides, strict=True):
            axes.text(x, y, text, ha=side, va="center", path_effects=dark_edge(), **white)
        if row == 0:
            why = f"\n{cut.reason}" if cut.reason and (lined or self.key) else ""
            why = "\nwithout outlines" if not lined and (cut, True) in self.columns else why
            axes.text(
                place[1] + size[1] / 2, top - 5, self.scene.place(cut) + why, fontsize=7, ha="center", va="bottom"
            )
        if place[1] == _GAP:
            y = top + row * (self.height + _GAP)
            axes.text(
                place[1] + 6,
                y + 5,
                printable(self.rows[row][0]),
                color="white",
                fontsize=9,
                weight="bold",
                va="top",
                path_effects=dark_edge(),
            )
            self._scale_bar(axes, place[1] + 8, y + self.height - 9)

    def _scale_bar(self, axes: Any, x: float, y: float) -> None:
        """Draw the longest bar of a round number of mm that is at most half as wide as the first panel."""
        length_mm = next((mm for mm in _BARS_MM if mm * self.scale <= self.sizes[0][1] / 2), _BARS_MM[-1])
        end = x + length_mm * self.scale
        axes.plot([x, end], [y, y], color="white", linewidth=1.6, solid_capstyle="butt")
        words = {"color": "white", "fontsize": 6.5, "ha": "center", "va": "bottom", "path_effects": dark_edge()}
        axes.text((x + end) / 2, y - 5, f"{length_mm} mm", **words)

    def _foot(self, axes: Any, legend: Sequence[tuple[str, Colour | None]], y: float) -> None:
        """Write which colour is what."""
        columns = min(len(legend), _LEGEND_COLUMNS)
        for number, (words, colour) in enumerate(legend):
            x = self.width * (number % columns) / columns + 12
            line = y + _LEGEND_LINE * (number // columns + 0.5)
            if colour is None:
                axes.text(self.width / 2, line, words, fontsize=11, ha="center", va="center")
                continue
            axes.plot([x, x + 34], [line, line], color=colour, linewidth=4, solid_capstyle="butt")
            axes.text(x + 44, line, printable(words), fontsize=8, va="center")
        if self.key:
            line = y + _LEGEND_LINE * (math.ceil(len(legend) / _LEGEND_COLUMNS) + 0.5)
            key = np.repeat(uncertainty_colours()[None], 2, axis=0)
            axes.imshow(key, extent=(12, 312, line + 8, line - 8), aspect="auto", zorder=2)
            axes.text(322, line, "sure (0) to every class as likely (1)", fontsize=8, va="center")


def _draw_lines(axes: Any, scene: Scene, cut: Cut, place: tuple[int, int], size: tuple[int, int]) -> None:
    from matplotlib.collections import LineCollection

    rows, columns = cut.of(scene.classes).shape
    scale = size[1] / columns, size[0] / rows
    for _, colour, lines in scene.lines(cut):
        moved = [line * scale + (place[1], place[0]) for line in lines]
        axes.add_collection(LineCollection(moved, colors=[colour], linewidths=_LINE_PT), autolim=False)
