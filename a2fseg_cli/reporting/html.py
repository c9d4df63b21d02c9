"""Parts of our HTML pages: each page is one file that loads nothing from elsewhere and runs no script but ours."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

GENERATOR = '<meta name="generator" content="a2fseg">'  # by which a page is known as ours

STYLE = """
* { box-sizing: border-box; }
body { font: 15px/1.45 sans-serif; color: #1a1a1a; max-width: 76rem; margin: 1.2rem auto; padding: 0 1rem;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
h1, p, .settings td + td { overflow-wrap: anywhere; } p { margin: .3rem 0; } img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } .wide img { min-width: 40rem; width: 100%; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #888; } td:first-child, th:first-child { text-align: left; }
.settings td { text-align: left; } .settings td:first-child { white-space: nowrap; color: #555; }
.warning { background: #fff3cd; padding: .3rem .6rem; margin: .3rem 0; } .small { color: #555; font-size: .85rem; }
.guess { font-style: italic; }
@media (max-width: 40rem) { td, th { padding-right: .5rem; } table { font-size: .85rem; } }
@page { size: A4; margin: 12mm; }
@media print { html { font-size: 11px; } body { margin: 0; padding: 0; font-size: 11px; max-width: none; }
  h2 { margin: .7rem 0 .2rem; break-after: avoid; } tr, img { break-inside: avoid; } td, th { padding-bottom: .05rem; }
  .wide { overflow: visible; } .wide img { min-width: 0; width: auto; max-height: 165mm; } }
"""


def document(title: str, body: Iterable[str], style: str = "", script: str = "") -> str:
    """Return a whole page.

    A browser is told to load nothing, to show pictures that are in the page or beside it, and to run this script only.

    Args:
        title: Plain text.
        body: HTML, in order.
        style: CSS beside that of all pages.
        script: JavaScript, run when all of the body is there.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    run = f"script-src 'sha256-{digest}'" if script else "script-src 'none'"
    policy = f"default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'; {run}"
    head = [
        f'<meta charset="utf-8">{GENERATOR}',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>",
    ]
    end = f"<script>{script}</script>" if script else ""
    return "\n".join(
        ['<!doctype html>\n<html lang="en"><head>', *head, "</head><body>", *body, end, "</body></html>\n"]
    )


def table(heading: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "") -> str:
    """Return a table of plain text, which may be wider than the screen."""
    return raw_table(
        [escape(str(cell)) for cell in heading], ([escape(str(cell)) for cell in row] for row in rows), kind
    )


def raw_table(heading: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table of cells that are HTML."""
    lines = [_row("th", heading)] if heading else []
    lines += [_row("td", row) for row in rows]
    name = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{name}>{"".join(lines)}</table></div>'


def data_uri(picture: bytes, kind: str = "jpeg") -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{value}</{cell}>" for value in values) + "</tr>\n"
