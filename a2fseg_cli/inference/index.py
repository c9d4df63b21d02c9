"""The index of a cohort's pages, from the status tables: written once, when a run or its part of the cohort ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from a2fseg_cli import __version__
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import atomic_write_text
from a2fseg_cli.inference.places import THUMBNAILS, Places
from a2fseg_cli.inference.status import OK, Status, StatusTable
from a2fseg_cli.reporting.html import GENERATOR
from a2fseg_cli.reporting.index_page import IndexRow, index_page


def refuse_other_index(places: Places) -> None:
    """Return if no page of others has the index's name. Raises: UsageError."""
    if places.index is None or not places.index.exists():
        return
    try:
        ours = GENERATOR in places.index.read_text("utf-8", errors="replace")
    except OSError:
        ours = False
    if not ours:
        raise UsageError(f"{places.index} exists and is not ours. Move it away, or give the pages another folder.")


def write_index(places: Places, table: StatusTable, regions: Sequence[str]) -> None:
    """Write the index where a cohort has pages. Patients of earlier runs and of other parts are in it.

    Args:
        places: Where the pages are.
        table: What became of each patient.
        regions: Whose volumes have a column.

    Raises:
        ResourceError: it cannot be written.
    """
    if places.index is None or places.report is None:
        return
    rows = [_row(status, places.report) for status in table.everyone().values()]
    made = f"{datetime.now().astimezone().date().isoformat()}, a2fseg {__version__}."
    title = f"Tumours outlined in {places.output.resolve().name}"
    atomic_write_text(places.index, index_page(title, rows, regions, made))


def _row(status: Status, folder: Path) -> IndexRow:
    done = status.status == OK
    page, thumbnail = f"{status.case}.html", f"{THUMBNAILS}/{status.case}.png"
    return IndexRow(
        case=status.case,
        status=status.status,
        modalities=status.modalities,
        words=status.warnings if done else status.reason,
        volumes_ml=status.volumes_ml,
        guesses=[name for name in status.guesses.split("+") if name],
        page=page if done and (folder / page).exists() else "",
        thumbnail=thumbnail if done and (folder / thumbnail).exists() else "",
    )
