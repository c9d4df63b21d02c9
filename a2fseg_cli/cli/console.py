"""What commands print: results to stdout, everything else to stderr; a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from textwrap import wrap
from typing import Any, TextIO

from a2fseg_cli.files import json_text

Advance = Callable[[str], None]

# A table of more patients than this lists those that failed: of 10,000 nobody reads the lines, and they took 8 s.
MOST_LISTED = 200
_LEAST_HEADING = 5  # letters in a line of a folded heading


class Stream:
    """A standard stream that never ends a run: what its reader or its disk no longer takes is dropped.

    Results are in their files before anything is shown; a viewer that is gone must not cost the rest of a batch.

    Args:
        stream: Where to write; None where the process was started without it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.full = False  # whether a disk was full: a reader that is gone is none of ours

    def write(self, text: str) -> int:
        """Write what can be written; what cannot be encoded is written with escapes."""
        if self._stream is None:
            return len(text)
        try:
            encoding = self._stream.encoding or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop(error)

    def _drop(self, error: OSError | ValueError) -> None:
        self.full = self.full or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError):  # what is left in its buffer would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno() if stream else -1)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        if self._stream is None:
            return getattr(sys.__stdout__, name)
        return getattr(self._stream, name)


@contextmanager
def guarded_streams() -> Iterator[Stream]:
    """Put streams that cannot end a run in the place of stdout and stderr, and give that of stdout."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a file opened later would get the number of a stream that is closed, and with it its text
    os.close(descriptor)
    out, err = sys.stdout, sys.stderr
    guarded, errors = Stream(out), Stream(err)
    sys.stdout, sys.stderr = guarded, errors
    try:
        yield guarded
    finally:
        guarded.flush()
        errors.flush()
        sys.stdout, sys.stderr = out, err


def say(text: str, quiet: bool = False) -> None:
    """Print a line to stderr, unless quiet."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value to stdout as valid JSON."""
    print(json_text(value), end="")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str | None = None,
    bold: Collection[tuple[int, int]] = (),
    underlined: Collection[tuple[int, int]] = (),
) -> None:
    """Print a table to stdout; columns whose cells are all numbers are aligned right.

    Words are folded where the terminal is too narrow; a number is not, since its halves read as two: such a table is
    wider than the terminal.

    Args:
        columns: Headings.
        rows: Cells.
        title: Above the table.
        bold: (row, column) of cells in bold; where there is no terminal, between two asterisks.
        underlined: (row, column) of cells that are underlined; where there is no terminal, between two low lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left")
    console = Console(markup=False, highlight=False)
    marks = dict.fromkeys(bold, ("bold", "*")) | dict.fromkeys(underlined, ("underline", "_"))

    def shown(i: int, j: int, cell: str) -> Text:
        style, sign = marks.get((i, j), ("", ""))
        return Text(cell if console.is_terminal else f"{sign}{cell}{sign}", style=style)

    texts = [[shown(i, j, cell) for j, cell in enumerate(row)] for i, row in enumerate(cells)]
    room = console.width if console.is_terminal else 160
    widths = [max([0, *(len(row[index]) for row in texts)]) for index in range(len(columns))]
    folded = 1 + sum(3 + max(width, len(column)) for width, column in zip(widths, columns, strict=True)) > room
    least = 1
    for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
        numeric = all(_is_number(row[index]) for row in cells) and bool(cells)
        width = max(width, _LEAST_HEADING) if numeric else 1
        heading = "\n".join(wrap(column, width)) if numeric and folded else column
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
        least += width + 3  # with its blanks and a line
    console.width = max(room, least)
    for row in texts:
        table.add_row(*row)
    console.print(table)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


class Bar:
    """Counts finished items: a bar with the time left on a terminal, lines elsewhere, nothing when quiet.

    Args:
        task: What is counted.
        quiet: Show nothing.
    """

    def __init__(self, task: str, quiet: bool = False) -> None:
        self._task, self._quiet = task, quiet
        self._total = self._done = 0
        self._bar: Any = None

    def start(self, total: int) -> None:
        """Say how many there are."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._total = total
        console = Console(stderr=True, markup=False, highlight=False)
        if console.is_terminal and not self._quiet:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
            self._bar.add_task(self._task, total=total)
            self._bar.start()

    def advance(self, text: str) -> None:
        """Note one finished item, with a line on it."""
        self._done += 1
        if self._bar is not None:
            self._bar.console.print(text)
            self._bar.advance(self._bar.task_ids[0])
        elif not self._quiet:
            say(f"[{self._done}/{self._total}] {text}")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(task: str, total: int, quiet: bool = False) -> Iterator[Advance]:
    """Give a function that notes one finished item of `total`."""
    with Bar(task, quiet) as bar:
        bar.start(total)
        yield bar.advance


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
