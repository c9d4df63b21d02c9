"""A forest plot: how far each method is from the best one, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.reporting.charts import SERIES_COLOURS
from a2fseg_cli.reporting.figures import png_figure, printable


@dataclass(frozen=True)
class Interval:
    """How far a method is from the best one.

    Attributes:
        difference: In the unit of the axis; NaN draws nothing.
        low: Lower end of the interval.
        high: Upper end.
        told_apart: Whether the test tells the two apart.
    """

    difference: float
    low: float
    high: float
    told_apart: bool


def write_forest(path: Path, panels: Mapping[str, Mapping[str, Interval]], best: Mapping[str, str], label: str) -> None:
    """Write differences to the best method as PNG: a panel a region, a line a method, 0 is the best one itself.

    Methods that the test tells from the best are drawn in colour, the others in grey.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        panels: Region to method to its interval.
        best: Region to the method that the others are held against.
        label: Of the axis, with the unit.

    Raises:
        ResourceError: the file cannot be written.
    """
    with png_figure(path, 7.0, 0.7 + sum(0.55 + 0.27 * len(panel) for panel in panels.values())) as figure:
        heights = [max(1, len(panel)) + 0.8 for panel in panels.values()]
        every = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, (region, panel) in zip(every[:, 0], panels.items(), strict=True):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.axvline(0, color="#444444", linewidth=0.8)
            for place, of in enumerate(panel.values()):
                if math.isnan(of.difference):
                    continue
                colour = SERIES_COLOURS[0] if of.told_apart else "#777777"
                axes.plot([of.low, of.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
                axes.plot([of.difference], [place], "o", color=colour, markersize=4.5)
                numbers = [round(number, 1) + 0.0 for number in (of.difference, of.low, of.high)]  # no -0.0
                text = "{:+.1f}  [{:+.1f}, {:+.1f}]".format(*numbers)
                place_of_text = {"xy": (1.01, place), "xycoords": ("axes fraction", "data"), "va": "center"}
                axes.annotate(text, **place_of_text, fontsize=7.5, color=colour)
            axes.set_yticks(range(len(panel)), [printable(name) for name in panel])
            axes.set_ylim(len(panel) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.tick_params(axis="x", labelsize=8)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_title(printable(f"{region} (0: {best[region]})"), fontsize=9, loc="left")
        every[-1, 0].set_xlabel(printable(label), fontsize=9)
        figure.tight_layout()
