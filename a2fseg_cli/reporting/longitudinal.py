"""One person's examinations one after the other: a table for all persons, and a plot and a page for each."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from a2fseg_cli.cases.time_points import TimePoint, parsed_date, places_in_time
from a2fseg_cli.files import csv_text
from a2fseg_cli.reporting.colours import Colour, class_colours, long_name
from a2fseg_cli.reporting.figures import png_figure, printable

# RANO: a lesion is measurable if both diameters have it (Wen et al., J Clin Oncol 2010 and 2023).
MEASURABLE_MM = 10.0
_MEASURED = "ET"  # RANO measures what enhances
NO_ASSESSMENT = (
    "Measured automatically, on masks that a network made. This is not an assessment of response: RANO also asks for "
    "a person who chooses the lesions, for steroids, for the clinical state, and for confirmation at a later time."
)
_MARKS = ("o", "s", "^", "D")
_GREY = (0.2, 0.2, 0.2)
_STYLE = """
body { font: 15px/1.45 sans-serif; color: #1a1a1a; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } img { width: 100%; } .wide { overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #888; } td:first-child, th:first-child { text-align: left; }
.warning { background: #fff3cd; padding: .3rem .6rem; } .small { color: #555; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Measurement:
    """What was measured at one examination.

    Attributes:
        point: Whose, and when.
        case: The case.
        modalities: Subset used, e.g. `t1c+flair`.
        volumes_ml: Of each class and each region.
        regions: Which of them are regions, in the order of the table.
        diameters_mm: Largest axial diameter of the enhancing tumour and the largest across it; None where the task has
            no such region.
        guesses: Classes and regions that the sequences cannot show.
    """

    point: TimePoint
    case: str
    modalities: str
    volumes_ml: Mapping[str, float]
    regions: Sequence[str]
    diameters_mm: tuple[float, float] | None = None
    guesses: Sequence[str] = ()

    @property
    def product_mm2(self) -> float:
        """The product of the two diameters."""
        longest, across = self.diameters_mm or (0.0, 0.0)
        return longest * across

    @property
    def measurable(self) -> bool:
        """Whether both diameters have what RANO asks for, and the sequences can show the enhancing tumour."""
        long_enough = self.diameters_mm is not None and min(self.diameters_mm) >= MEASURABLE_MM
        return long_enough and _MEASURED not in self.guesses

    @property
    def diameters(self) -> str:
        """The diameters in words."""
        if self.diameters_mm is None or not self.diameters_mm[0]:
            return "none"
        longest, across = self.diameters_mm
        words = f"{longest:.1f} x {across:.1f} mm"
        if not self.measurable:
            return f"{words}, not measurable"
        return f"{words} = {self.product_mm2:.0f} mm²"


def longitudinal_csv(measured: Sequence[Measurement]) -> str:
    """Return a row for each examination; volumes in mL, diameters in mm, their product in mm2."""
    return csv_text([_row(one) for one in measured])


def _row(one: Measurement) -> dict[str, object]:
    row: dict[str, object] = {
        "subject": one.point.subject,
        "session": one.point.session,
        "date": one.point.day.isoformat() if one.point.day else "",
        "case": one.case,
        "modalities": one.modalities,
    }
    row |= {f"{name}_ml": round(ml, 3) for name, ml in one.volumes_ml.items()}
    if one.diameters_mm is not None:
        longest, across = one.diameters_mm
        row |= {
            f"{_MEASURED}_diameter_mm": round(longest, 2),
            f"{_MEASURED}_diameter_across_mm": round(across, 2),
            f"{_MEASURED}_product_mm2": round(one.product_mm2, 1),
            f"{_MEASURED}_measurable": "yes" if one.measurable else "no",
        }
    return row | {"guesses": "+".join(one.guesses)}


def longitudinal_plot(measured: Sequence[Measurement]) -> bytes:
    """Return a PNG of one person's volumes over time, below it the product of the diameters; guesses are open marks.

    Args:
        measured: The examinations in the order of time.
    """
    places, unit = places_in_time([one.point for one in measured])
    with_product = any(one.diameters_mm is not None for one in measured)
    regions = measured[0].regions
    file = io.BytesIO()
    with png_figure(file, 7.5, 2.9 * (1 + with_product) + 0.4) as figure:
        axes = figure.add_subplot(1 + with_product, 1, 1)
        for index, (name, colour) in enumerate(zip(regions, class_colours(regions), strict=True)):
            values = [one.volumes_ml[name] for one in measured]
            unsure = [name in one.guesses for one in measured]
            _line(axes, places, values, unsure, colour, long_name(name), _MARKS[index % len(_MARKS)])
        axes.set_ylabel("mL")
        _dress(axes, places, measured, unit)
        if with_product:
            axes = figure.add_subplot(2, 1, 2)
            values = [one.product_mm2 for one in measured]
            unsure = [_MEASURED in one.guesses for one in measured]
            _line(
                axes, places, values, unsure, _GREY, f"{_MEASURED}: largest diameter x diameter across it", _MARKS[-1]
            )
            for place, one in zip(places, measured, strict=True):
                if not one.measurable:
                    axes.annotate(
                        "not measurable", (place, one.product_mm2), (0, 6), textcoords="offset points", ha="center",
                        fontsize=7,
                    )  # fmt: skip
            axes.set_ylabel("mm²")
            _dress(axes, places, measured, unit)
        figure.suptitle(printable(measured[0].point.subject), fontsize=11)
        figure.tight_layout()
    return file.getvalue()


def _line(
    axes: Any,
    places: Sequence[float],
    values: Sequence[float],
    unsure: Sequence[bool],
    colour: Colour,
    label: str,
    mark: str,
) -> None:
    """Draw one course; the way from or to a guess is dotted, since it may be no change at all.

    Marks have a dark edge: colours made for grey images may be pale on white.
    """
    looks: dict[str, Any] = {"color": colour, "marker": mark, "markeredgecolor": _GREY, "markersize": 6}
    for first, last in pairwise(range(len(places))):
        style = ":" if unsure[first] or unsure[last] else "-"
        axes.plot([places[first], places[last]], [values[first], values[last]], style, linewidth=1.8, color=colour)
    axes.plot(places, values, linestyle="", label=printable(label), **looks)
    open_ = [(place, value) for place, value, guess in zip(places, values, unsure, strict=True) if guess]
    axes.plot([place for place, _ in open_], [value for _, value in open_], linestyle="", **looks | {"mfc": "white"})


def _dress(axes: Any, places: Sequence[float], measured: Sequence[Measurement], unit: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 1.1 * max(1.0, axes.dataLim.ymax))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    slanted = len(places) > 4
    axes.set_xticks(
        places, [printable(_when(one)) for one in measured],
        rotation=30 if slanted else 0, ha="right" if slanted else "center", fontsize=8,
    )  # fmt: skip
    if unit:
        axes.set_xlabel(unit, fontsize=8)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)


def _when(one: Measurement) -> str:
    return one.point.day.isoformat() if one.point.day else one.point.session or one.case


def longitudinal_page(measured: Sequence[Measurement], plot: bytes, version: str) -> str:
    """Return one person's page as HTML, with everything in it.

    Args:
        measured: The examinations in the order of time.
        plot: The PNG.
        version: Of this tool.
    """
    subject = escape(measured[0].point.subject)
    image = base64.b64encode(plot).decode("ascii")
    guessed = [f"{_when(one)} ({', '.join(one.guesses)})" for one in measured if one.guesses]
    remarks = [
        NO_ASSESSMENT,
        *([f"Guesses, open marks in the plot and ? in the table: {'; '.join(guessed)}."] if guessed else []),
    ]
    if len({one.modalities for one in measured}) > 1:
        remarks.append("The examinations do not have the same sequences, which alone changes the volumes.")
    names = list(measured[0].volumes_ml)
    measuring = measured[0].diameters_mm is not None
    dated = any(one.point.day and one.point.day != parsed_date(one.point.session) for one in measured)
    heading = ["examination", *(["date"] if dated else []), "sequences"]
    heading += [f"{name} mL" for name in names] + ([f"{_MEASURED}, largest axial diameters"] if measuring else [])
    rows = [_cells(one, dated, measuring) for one in measured]
    explained = (
        f"The largest axial diameter of any lesion of {_MEASURED} and the largest one across it at a right angle, in "
        f"the same slice; RANO calls a lesion measurable if both have at least {MEASURABLE_MM:.0f} mm."
    )
    parts = [
        f"<h1>{subject}, {len(measured)} examinations</h1>",
        *(f'<p class="warning">{escape(text)}</p>' for text in remarks),
        f'<img alt="Volumes over time; the numbers are in the table" src="data:image/png;base64,{image}">',
        f'<div class="wide"><table>{_tr("th", heading)}{"".join(_tr("td", row) for row in rows)}</table></div>',
        *([f'<p class="small">{explained}</p>'] if measuring else []),
        f'<p class="small">a2fseg {escape(version)}. For research. Not a medical device.</p>',
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>a2fseg: {subject} over time</title><style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _cells(one: Measurement, with_date: bool, measuring: bool) -> list[str]:
    day = [one.point.day.isoformat() if one.point.day else ""] if with_date else []
    volumes = [f"{ml:.1f}{' ?' if name in one.guesses else ''}" for name, ml in one.volumes_ml.items()]
    return [
        one.point.session or one.case,
        *day,
        one.modalities.replace("+", ", "),
        *volumes,
        *([one.diameters + (" ?" if _MEASURED in one.guesses else "")] if measuring else []),
    ]


def _tr(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>"
