"""A forest plot: how far each method is from the best one, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from a2fseg_cli.reporting.charts import SERIES_COLOURS
from a2fseg_cli.reporting.figures import png_figure, printable


def write_forest(
    path: Path, panels: Mapping[str, Mapping[str, tuple[float, ...]]], best: Mapping[str, str], label: str
) -> None:
    """Write differences to the best method as PNG: a panel a region, a line a method, 0 is the best one itself.

    An interval that does not reach 0 is drawn in colour, one that does in grey.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        panels: Region to method to (difference, low, high), each in the unit of `label`; NaN draws nothing.
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
            for place, (mean, low, high) in enumerate(panel.values()):
                if math.isnan(mean):
                    continue
                clear = low > 0 or high < 0
                colour = SERIES_COLOURS[0] if clear else "#777777"
                axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
                axes.plot([mean], [place], "o", color=colour, markersize=4.5)
                axes.annotate(
                    f"{mean:+.1f}  [{low:+.1f}, {high:+.1f}]", (1.01, place), xycoords=("axes fraction", "data"),
                    va="center", fontsize=7.5, color=colour,
                )  # fmt: skip
            axes.set_yticks(range(len(panel)), [printable(name) for name in panel])
            axes.set_ylim(len(panel) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.tick_params(axis="x", labelsize=8)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_title(printable(f"{region} (0: {best[region]})"), fontsize=9, loc="left")
        every[-1, 0].set_xlabel(printable(label), fontsize=9)
        figure.tight_layout()
