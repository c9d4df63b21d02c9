"""`predict --dry-run`: print what was found, file by file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from a2fseg_cli.cli.console import print_json, print_table
from a2fseg_cli.cli.needs import with_flags
from a2fseg_cli.errors import InputError

if TYPE_CHECKING:
    from a2fseg_cli.cases.overview import CaseOverview


def show_overview(found: Sequence[CaseOverview], parameters: Iterable[object], json_: bool) -> None:
    """Print what was found, or rows of JSON; texts name flags. Raises: InputError when something is not acceptable.

    Args:
        found: The patients.
        parameters: Of the command.
        json_: As JSON.
    """
    parameters = list(parameters)
    if json_:
        print_json([row for case in found for row in _json_rows(case)])
    else:
        print_table(
            ("case", "modality", "file", "taken for it by", "size z,y,x", "spacing mm", "axes"),
            [
                (
                    row.case,
                    row.modality,
                    row.file,
                    row.decided,
                    " x ".join(map(str, row.size)),
                    " x ".join(f"{mm:g}" for mm in row.spacing_mm),
                    row.orientation,
                )
                for case in found
                for row in case.files
            ],
        )
        for case in found:
            for text in (*case.warnings, *(text for row in case.files for text in row.warnings)):
                print(f"{case.case}: {with_flags(text, parameters)}")
            for text in case.problems:
                print(f"{case.case}: not acceptable: {with_flags(text, parameters)}")
    if count := sum(len(case.problems) for case in found):
        raise InputError(f"not acceptable above: {count}.")


def _json_rows(case: CaseOverview) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [asdict(row) for row in case.files]
    if case.problem or case.warnings:
        empty = {"modality": "", "file": "", "decided": "", "size": (), "spacing_mm": (), "orientation": ""}
        rows.append({"case": case.case, **empty, "warnings": case.warnings, "problem": case.problem})
    return rows
