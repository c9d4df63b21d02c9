"""Patients listed in a file: a table of their images, and a split into training, validation and test."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from a2fseg_cli.cases.case import Case, too_long
from a2fseg_cli.cases.names import modality_words
from a2fseg_cli.cases.time_points import parsed_date
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import parse_json
from a2fseg_cli.modalities import BRATS_MODALITIES

TRUTH_COLUMN = "seg"
TIME_COLUMNS = ("subject", "session", "date")

Split = dict[str, list[str]]


def read_case_table(csv_path: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> list[Case]:
    """Return the patients of a CSV: columns `case`, the modalities (or their aliases), optionally `seg`.

    An empty cell is an absent modality; paths are relative to the table's folder. `subject`, `session` and `date` say
    which examination of whom a case is; without `case` its name is made of the first two.

    Raises:
        InputError: unreadable, unknown or missing columns, a case twice or without image, with the line.
    """
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        if "\0" in text:
            raise InputError(f"{csv_path}: no CSV table in UTF-8 (a byte of zero).")
        rows = list(_numbered_rows(text))
    except OSError as error:
        raise InputError(f"{csv_path}: cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{csv_path}: no CSV table in UTF-8 ({error}).") from error
    if not rows:
        raise InputError(f"{csv_path}: an empty table. Expected columns case, {', '.join(modalities)}.")
    heading = rows[0][1]
    while heading and not heading[-1]:
        heading = heading[:-1]
    columns = _columns(csv_path, heading, modalities)
    cases: dict[str, Case] = {}
    for line, cells in rows[1:]:
        case = _table_case(f"{csv_path}, line {line}", csv_path.parent, columns, cells, modalities)
        if case.name in cases:
            raise InputError(f"{csv_path}, line {line}: case {case.name} stands in the table twice.")
        cases[case.name] = case
    if not cases:
        raise InputError(f"{csv_path}: no case below the column names.")
    return list(cases.values())


def read_split(path: Path) -> Split:
    """Return the lists of case names of a split file, JSON: {"train": [...], "validation": [...], "test": [...]}.

    Raises:
        InputError: unreadable, not of this form, or a case in two lists.
    """
    try:
        raw = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a JSON file that can be read ({error}).") from error
    lists: list[Any] = list(raw.values()) if isinstance(raw, dict) else [None]
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in lists):
        raise InputError(f"{path}: expected a JSON object, name to list of cases.")
    twice = [name for name, count in Counter(name for part in lists for name in part).items() if count > 1]
    if twice:
        raise InputError(f"{path}: {twice[0]} stands in it twice ({len(twice)} such cases).")
    return {str(name): list(part) for name, part in raw.items()}


def split_part(split: str) -> tuple[str, list[str]]:
    """Return where a list of FILE or FILE:NAME stands, in words, and its case names.

    Raises:
        UsageError: no such list, or several and none is named.
        InputError: the file is not acceptable.
    """
    path, name = Path(split), ""
    if not os.path.isfile(path) and ":" in split:  # false as well where it cannot be looked at, as reading will say
        before, name = split.rsplit(":", 1)
        path = Path(before)
    lists = read_split(path)
    if name not in lists:
        if name or len(lists) != 1:
            raise UsageError(f"split {split}: expected {path}:NAME with NAME one of {', '.join(lists)}.")
        name = next(iter(lists))
    return f"{path}, {name}", lists[name]


def _numbered_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not blank; comma, semicolon or tab, as line 1 has it.

    Spreadsheets fill what was once a larger table with empty cells: rows of them are blank, and those that end every
    row fall away with their columns.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _columns(csv_path: Path, cells: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Return for each column `case`, a modality, `seg`, or one of the time."""
    words = modality_words(modalities) | {name: name for name in modalities}
    known = {name: name for name in ("case", TRUTH_COLUMN, *TIME_COLUMNS)} | words
    columns = [known.get(cell.lower(), "") for cell in cells]
    expected = f"Expected case, {', '.join(modalities)}, and optionally {', '.join((TRUTH_COLUMN, *TIME_COLUMNS))}"
    for cell, column in zip(cells, columns, strict=True):
        if not column:
            raise InputError(f"{csv_path}, line 1: unknown column {cell!r}. {expected}.")
        if columns.count(column) > 1:
            raise InputError(f"{csv_path}, line 1: two columns for {column}. {expected}.")
    if "case" not in columns and not {"subject", "session"} <= set(columns):
        raise InputError(f"{csv_path}, line 1: no column case. {expected}.")
    return columns


def _table_case(
    where: str, folder: Path, columns: Sequence[str], cells: Sequence[str], modalities: Sequence[str]
) -> Case:
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise InputError(f"{where}: {len(cells)} cells, expected {len(columns)}.")
    row = dict(zip(columns, cells, strict=False))
    subject, session, day = (row.get(column, "") for column in TIME_COLUMNS)
    if not subject and (session or day):
        raise InputError(f"{where}: a session or a date without a subject.")
    if day and parsed_date(day) is None:
        raise InputError(f"{where}: the date {day[:40]!r}. Expected year, month and day, such as 2019-01-31.")
    name = row.get("case") or "_".join(filter(None, (subject, session)))
    for kind, text in (("case", name), *([("subject", subject)] if subject else [])):
        if not text or text in (".", "..") or re.search(r"[/\\\0]", text) or too_long(text):
            raise InputError(f"{where}: the {kind} is named {text[:80]!r}. Expected a name that can be a file name.")
    # os.path leaves a `~name` that nobody has as it is; reading then says that there is no such file.
    images = {m: folder / os.path.expanduser(row[m]) for m in modalities if row.get(m)}
    if not images:
        raise InputError(f"{where}: case {name} has no image. Give at least one of {', '.join(modalities)}.")
    truth = row.get(TRUTH_COLUMN)
    decided = dict.fromkeys(images, "the table")
    place = folder / os.path.expanduser(truth) if truth else None
    return Case(name, images, place, decided=decided, subject=subject, session=session, date=day)
