"""One HTML page about one patient, with everything in it: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any

from a2fseg_cli.weights.card import guess_sentence

_STYLE = """
body { font: 15px/1.45 sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
img { width: 100%; } table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: right; }
th { border-bottom: 1px solid #888; } td:first-child, th:first-child { text-align: left; }
.warning { background: #fff3cd; padding: .3rem .6rem; margin: .3rem 0; } .small { color: #555; font-size: .85rem; }
@media print { body { margin: 0; } h2, table { break-inside: avoid; } }
"""


def patient_page(stats: Mapping[str, Any], picture: bytes) -> str:
    """Return the page as HTML.

    Args:
        stats: What `predict --stats` writes of a patient, as plain values.
        picture: The preview, a PNG.
    """
    image = base64.b64encode(picture).decode("ascii")
    parts = [
        f"<h1>{escape(stats['case'])}</h1>",
        f"<p>Segmented from {escape(stats['modalities'].replace('+', ', '))}.</p>",
        *(f'<p class="warning">{escape(text)}</p>' for text in _to_read_first(stats)),
        f'<img alt="Slices through the largest cross-sections" src="data:image/png;base64,{image}">',
        "<h2>Volumes</h2>",
        _volumes(stats),
    ]
    if weights := stats["mean_attention"]:
        names = list(next(iter(weights.values())))
        parts += [
            "<h2>What each sequence contributed</h2>",
            _table(["inside", *(f"{m} %" for m in names)], _percent(weights, names)),
            '<p class="small">Mean attention weight in the voxels of each class found; the weights of a voxel add up '
            "to 100 %.</p>",
        ]
    if agreement := stats["agreement_with_fewer"]:
        regions = list(stats["volumes_ml"])
        parts += [
            "<h2>Agreement of fewer sequences with this result</h2>",
            _table(["from only", *(f"{region} Dice %" for region in regions)], _percent(agreement, regions)),
            '<p class="small">No truth is involved.</p>',
        ]
    parts += ["<h2>How it was made</h2>", _table((), _settings(stats))]
    made_for = escape(stats["weights"]["made_for"])
    parts.append(f'<p class="small">{made_for} For research. Not a medical device.</p>')
    title = f"a2fseg: {escape(stats['case'])}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _to_read_first(stats: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know before the numbers: guesses, warnings, what absent sequences cost."""
    guesses = guess_sentence(stats["guesses"], stats["modalities"])
    return [text for text in (guesses, *stats["warnings"], stats["note"]) if text]


def _volumes(stats: Mapping[str, Any]) -> str:
    diameters = stats["largest_axial_diameters_mm"]
    rows = []
    for row in stats["labels"]:
        across = " x ".join(f"{mm:.0f}" for mm in diameters[row["name"]]) if row["label"] is None else ""
        label = "" if row["label"] is None else row["label"]
        guess = "guess" if row["guess"] else ""
        rows.append((row["name"], label, row["voxels"], f"{row['volume_ml']:.2f}", across, guess))
    return _table(("name", "label", "voxels", "mL", "largest axial diameters, mm", ""), rows)


def _percent(values: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> list[tuple[str, ...]]:
    return [(name, *(f"{100 * row[column]:.1f}" for column in columns)) for name, row in values.items()]


def _settings(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    device, windows = stats["device"], stats["windows"]
    return [
        *((m, PurePath(path).name) for m, path in stats["inputs"].items()),
        ("weights", f"{stats['weights']['file']}, sha256 {stats['weights']['sha256']}"),
        ("device", f"{device['name']} ({device['reason']}), {device['precision']}, {device['threads']} threads"),
        ("windows", f"{windows['count']} of {' x '.join(map(str, windows['edges']))} voxels"),
        ("seconds", ", ".join(f"{step} {value:.2f}" for step, value in stats["seconds"].items())),
        ("versions", ", ".join(f"{name} {version}" for name, version in stats["versions"].items())),
    ]


def _table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row("th", heading)] if heading else []
    lines += [_row("td", row) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _row(cell: str, values: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(str(value))}</{cell}>" for value in values) + "</tr>\n"
