"""Charts of scores, of the modalities' weights and of a training, as PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fseg_cli.reporting.colours import class_colours
from a2fseg_cli.reporting.figures import png_figure, printable

Number = float | int | str | None

# Okabe and Ito's colours, which stay apart for the colour-blind.
SERIES_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_DASHES = ("-", "--", ":", "-.")
# Columns of metrics.csv that are no scores.
_CLOCKS = ("epoch", "step", "hours", "seconds")
_NO_SCORES = ("loss", "learning rate")  # panels whose values are not between 0 and 1


def write_attention_bars(path: Path, weights: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Write Figure 3 of the paper as PNG: the mean attention weight of each modality inside each region.

    The dashed line is the equal share, 1 / number of modalities.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        weights: Region or class to modality to (mean, standard deviation) of its weight over the patients;
            NaN, or a modality left out, draws no bar.

    Raises:
        ValueError: nothing to draw.
        ResourceError: the file cannot be written.
    """
    modalities = _names(weights.values())
    if not modalities:
        raise ValueError("no attention weights to draw")
    width = 0.8 / len(modalities)
    with png_figure(path, max(4.0, 1.2 + 1.4 * len(weights)), 3.2) as figure:
        axes = _axes(figure, 1, 1)
        for number, modality in enumerate(modalities):
            bars = [
                (place + (number - (len(modalities) - 1) / 2) * width, *region[modality])
                for place, region in enumerate(weights.values())
                if modality in region and math.isfinite(region[modality][0])
            ]
            axes.bar(
                [x for x, _mean, _sd in bars],
                [mean for _x, mean, _sd in bars],
                width * 0.92,
                yerr=[sd if math.isfinite(sd) else 0.0 for _x, _mean, sd in bars],
                color=SERIES_COLOURS[number % len(SERIES_COLOURS)],
                ecolor="#444444",
                capsize=2,
                label=printable(modality),
            )
        axes.axhline(1 / len(modalities), color="#444444", linestyle="--", linewidth=0.8, zorder=0)
        axes.set_xticks(range(len(weights)), [printable(name) for name in weights])
        axes.set_ylabel("mean attention weight")
        axes.set_ylim(bottom=0)
        _legend_above(axes, len(modalities))
        figure.tight_layout()


def write_dice_boxes(path: Path, scores: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write box plots of Dice as PNG: one panel per region, one box per subset of the modalities.

    A box is the middle half of the patients, its line the median, the diamond the mean, the whiskers reach to the
    last patient within 1.5 box heights, circles are the patients beyond. Undefined scores (NaN) are left out.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        scores: Subset (for example t1c+flair) to region to Dice per patient, 0 to 1, in the order to draw.

    Raises:
        ValueError: nothing to draw.
        ResourceError: the file cannot be written.
    """
    regions = _names(scores.values())
    if not regions:
        raise ValueError("no Dice scores to draw")
    with png_figure(path, max(4.5, 1.2 + 0.5 * len(scores)), 0.9 + 2.1 * len(regions)) as figure:
        for number, (region, colour) in enumerate(zip(regions, class_colours(regions), strict=True)):
            axes = _axes(figure, len(regions), number + 1)
            boxes = [[dice for dice in subset.get(region, ()) if math.isfinite(dice)] for subset in scores.values()]
            places = [place for place, box in enumerate(boxes) if box]
            if places:
                axes.boxplot(
                    [boxes[place] for place in places],
                    positions=places,
                    widths=0.6,
                    showmeans=True,
                    patch_artist=True,
                    boxprops={"facecolor": (*colour, 0.6), "edgecolor": "#444444"},
                    medianprops={"color": "black"},
                    meanprops={"marker": "D", "markersize": 3, "markerfacecolor": "black", "markeredgecolor": "none"},
                    flierprops={"marker": "o", "markersize": 2.5, "markeredgecolor": "#444444"},
                )
            counts = sorted({len(box) for box in boxes})
            patients = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            axes.set_title(printable(f"{region} (n = {patients})"), fontsize=9, loc="left")
            axes.set_ylabel("Dice")
            axes.set_ylim(-0.03, 1.03)
            axes.set_xlim(-0.6, len(scores) - 0.4)
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            last = number == len(regions) - 1
            names = [printable(name) for name in scores] if last else []
            axes.set_xticks(range(len(scores)))
            axes.set_xticklabels(names or [""] * len(scores), rotation=45, ha="right", rotation_mode="anchor")
        figure.tight_layout()


def write_learning_curves(path: Path, rows: Sequence[Mapping[str, Number]]) -> None:
    """Write the course of a training as PNG: loss, learning rate and validation scores over the epochs.

    Args:
        path: The PNG; its folder is made, an existing file is replaced, atomically.
        rows: Lines of `metrics.csv`, numbers or their text, with the column `epoch`. Clocks are not drawn;
            columns with `loss` in the name share a panel, `learning_rate` has its own; all others are scores,
            one panel for those whose names share the first word (`WT t1c`, `WT flair`), one for single words.
            Empty or missing values (epochs without validation) are skipped.

    Raises:
        ValueError: no row with an epoch and a value.
        ResourceError: the file cannot be written.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in _names(rows):
        if name not in _CLOCKS and (points := _curve(rows, name)):
            panel, line = _place(name)
            panels.setdefault(panel, {})[line] = points
    if not panels:
        raise ValueError("no row with an epoch and a value to draw")
    epochs = [epoch for curves in panels.values() for points in curves.values() for epoch, _value in points]
    margin = max(0.02 * (max(epochs) - min(epochs)), 0.5)
    with png_figure(path, 7.5, 0.4 + 2.0 * len(panels)) as figure:
        for number, (panel, curves) in enumerate(panels.items(), 1):
            axes = _axes(figure, len(panels), number)
            for index, (line, points) in enumerate(curves.items()):
                axes.plot(
                    [epoch for epoch, _value in points],
                    [value for _epoch, value in points],
                    _DASHES[index // len(SERIES_COLOURS) % len(_DASHES)],
                    color=SERIES_COLOURS[index % len(SERIES_COLOURS)],
                    linewidth=1.2,
                    marker="o" if len(points) < 30 else None,
                    markersize=2.5,
                    label=printable(line),
                )
            axes.set_ylabel(printable(panel))
            axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
            axes.grid(color="#dddddd", linewidth=0.6)
            if panel not in _NO_SCORES:
                axes.set_ylim(-0.02, 1.02)
            if len(curves) > 1:
                axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel("epoch")
        figure.tight_layout()


def _names(rows: Iterable[Iterable[str]]) -> list[str]:
    """Return every name that occurs, once, in the order of its first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _place(column: str) -> tuple[str, str]:
    """Return the panel and the name in it of a column of `metrics.csv`."""
    if column == "learning_rate":
        return "learning rate", column
    if "loss" in column:
        return "loss", column
    first, _space, rest = column.partition(" ")
    return (first, rest) if rest else ("score", column)


def _curve(rows: Sequence[Mapping[str, Number]], name: str) -> list[tuple[float, float]]:
    points = ((_number(row.get("epoch")), _number(row.get(name))) for row in rows)
    return [(epoch, value) for epoch, value in points if math.isfinite(epoch) and math.isfinite(value)]


def _number(value: Number) -> float:
    """Return the value, NaN where there is none or where it is no number."""
    try:
        return float(value) if value is not None else math.nan
    except ValueError:
        return math.nan


def _axes(figure: Any, panels: int, number: int) -> Any:
    axes = figure.add_subplot(panels, 1, number)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return axes


def _legend_above(axes: Any, entries: int) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(entries, 4), frameon=False, fontsize=8)
