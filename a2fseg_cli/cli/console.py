"""What commands print: results to stdout, everything else to stderr; a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from a2fseg_cli.files import json_text

Advance = Callable[[str], None]


def say(text: str, quiet: bool = False) -> None:
    """Print a line to stderr, unless quiet."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value to stdout as valid JSON."""
    print(json_text(value), end="")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table to stdout; columns whose cells are all numbers are aligned right."""
    from rich.console import Console
    from rich.table import Table

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells) and bool(cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


@contextmanager
def progress(task: str, total: int, quiet: bool = False) -> Iterator[Advance]:
    """Give a function that notes one finished item: a bar with the time left, or lines without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False)
    if quiet:
        yield lambda _: None
    elif not console.is_terminal:
        done = 0

        def note(text: str) -> None:
            nonlocal done
            done += 1
            say(f"[{done}/{total}] {text}")

        yield note
    else:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            bar_id = bar.add_task(task, total=total)

            def advance(text: str) -> None:
                bar.console.print(text)
                bar.advance(bar_id)

            yield advance


@contextmanager
def percentage(task: str, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """Give a function that takes the share done, 0 to 1: a bar with the time left on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        bar_id = bar.add_task(task, total=1.0)
        yield lambda share: bar.update(bar_id, completed=share)
