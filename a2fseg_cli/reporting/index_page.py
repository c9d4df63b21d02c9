"""The page about a cohort: a row a patient, those that failed first, with links to their pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.html import document

_STYLE = """
.cohort td { border-bottom: 1px solid #ddd; white-space: nowrap; } .cohort td, .cohort th { text-align: left; }
.cohort td[data-key] { text-align: right; } .cohort .words { white-space: normal; min-width: 14rem; }
.wide .cohort img { display: block; width: 5rem; max-width: none; min-width: 0; background: #000; }
.cohort th button { font: inherit; font-weight: bold; border: 0; background: none; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.failed { background: #fbe0dd; }
@media (max-width: 48rem) {
  .cohort, .cohort thead, .cohort tbody { display: block; } .cohort .words { min-width: 0; overflow-wrap: anywhere; }
  .cohort thead tr { display: flex; flex-wrap: wrap; gap: .2rem 1rem; } .cohort thead th:first-child { display: none; }
  .cohort tbody tr { display: block; position: relative; min-height: 6.6rem; padding-left: 5.6rem; margin: .5rem 0;
    border-bottom: 1px solid #888; }
  .cohort td { display: block; border: 0; padding: 0; white-space: normal; } .cohort td[data-key] { text-align: left; }
  .cohort td:first-child { position: absolute; left: 0; }
  .cohort td[data-label]::before { content: attr(data-label) ": "; }
}
"""
# Numbers sort as numbers, everything else as text; a second click turns the order round.
_SCRIPT = """
const body = document.querySelector('tbody');
document.querySelectorAll('th button').forEach(button => button.addEventListener('click', () => {
  const head = button.parentElement, column = head.cellIndex;
  const down = head.getAttribute('aria-sort') === 'ascending';
  document.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const rows = Array.from(body.rows).sort((a, b) => {
    const x = key(a), y = key(b), n = parseFloat(x) - parseFloat(y);
    return isNaN(n) ? (isNaN(parseFloat(x)) - isNaN(parseFloat(y)) || x.localeCompare(y)) : n;
  });
  (down ? rows.reverse() : rows).forEach(row => body.append(row));
}));
"""


@dataclass(frozen=True)
class IndexRow:
    """What the index says of a patient.

    Attributes:
        case: Its name.
        status: ok, failed, or running.
        modalities: Subset used, e.g. `t1c+flair`.
        words: Why it failed, or the warnings.
        volumes_ml: Region to volume.
        guesses: Regions whose volume is a guess.
        page: Address of its page, from the index; nothing without one.
        thumbnail: Address of its small picture; nothing without one.
    """

    case: str
    status: str
    modalities: str
    words: str = ""
    volumes_ml: Mapping[str, float] | None = None
    guesses: Sequence[str] = ()
    page: str = ""
    thumbnail: str = ""


def index_page(title: str, rows: Sequence[IndexRow], regions: Sequence[str], made: str) -> str:
    """Return the page as HTML.

    Args:
        title: Above everything.
        rows: The patients, in any order: those that failed are put first.
        regions: Whose volumes have a column.
        made: When, and with what, in a few words.
    """
    order = {"failed": 0, "ok": 2}
    ordered = sorted(rows, key=lambda row: (order.get(row.status, 1), row.case))
    failed = sum(row.status == "failed" for row in rows)
    guessed = sum(bool(row.guesses) for row in rows)
    counts = f"{len(rows)} patients" if len(rows) != 1 else "1 patient"
    more = [f"{failed} failed" if failed else "none failed"]
    more += [f"in {guessed} a volume is a guess"] if guessed else []
    headings = ["patient", "status", "sequences", *(f"{region} mL" for region in regions), "to know"]
    cells = ["<th></th>", *(f'<th scope="col"><button>{escape(text)}</button></th>' for text in headings)]
    lines = [_line(row, regions) for row in ordered]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{counts}, {', '.join(more)}. {escape(made)}</p>",
        '<p class="small">A volume in italics with a question mark is a guess. A click on a heading sorts.</p>',
        f'<div class="wide"><table class="cohort"><thead><tr>{"".join(cells)}</tr></thead>',
        f"<tbody>{''.join(lines)}</tbody></table></div>",
        '<p class="small">For research. Not a medical device.</p>',
    ]
    return document(f"{title} (a2fseg)", body, _STYLE, _SCRIPT)


def _line(row: IndexRow, regions: Sequence[str]) -> str:
    picture = ""
    if row.thumbnail:
        alt = f"Slice of {row.case} with the outlines of the tumour"
        picture = f'<img loading="lazy" alt="{escape(alt)}" src="{quote(row.thumbnail)}">'
    name = escape(row.case)
    if row.page:
        name = f'<a href="{quote(row.page)}">{name}</a>'
        picture = picture and f'<a href="{quote(row.page)}">{picture}</a>'
    given = ", ".join(heading(m) for m in row.modalities.split("+") if m)
    cells = [f"<td>{picture}</td><td>{name}</td><td>{escape(row.status)}</td><td>{escape(given)}</td>"]
    for region in regions:
        volume = (row.volumes_ml or {}).get(region)
        if volume is None:
            cells.append("<td></td>")  # nothing to sort by: last
            continue
        text = f'<span class="guess">{volume:.1f} ?</span>' if region in row.guesses else f"{volume:.1f}"
        cells.append(f'<td data-key="{volume}" data-label="{escape(region)} mL">{text}</td>')
    cells.append(f'<td class="words">{escape(row.words)}</td>')
    kind = ' class="failed"' if row.status == "failed" else ""
    return f"<tr{kind}>{''.join(cells)}</tr>\n"
