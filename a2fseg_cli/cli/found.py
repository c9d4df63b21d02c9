"""`predict --dry-run`: what was found, file by file, without loading the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cli.console import print_json, print_table
from a2fseg_cli.errors import InputError

if TYPE_CHECKING:
    from a2fseg_cli.imaging.discovery import Case


def show_found(cases: Sequence[Case], json_: bool) -> None:
    """Print what was found, from the files' headers only. Raises: InputError when something is not acceptable."""
    from a2fseg_cli.imaging.reading import check_same_grid, peek_image

    rows: list[dict[str, Any]] = []
    for case in cases:
        grids = {}
        for modality, path in case.images.items():
            row: dict[str, Any] = {"case": case.name, "modality": modality, "file": str(path)}
            try:
                grid, warnings = peek_image(path)
                grids[modality] = (path, grid)
                row |= {"size": grid.size, "spacing_mm": grid.spacing_mm, "orientation": grid.orientation}
                rows.append(row | {"warnings": list(warnings), "problem": None})
            except InputError as error:
                rows.append(
                    row | {"size": (), "spacing_mm": (), "orientation": "", "warnings": [], "problem": str(error)}
                )
        problem = case.problem
        if problem is None and len(grids) > 1:
            try:
                check_same_grid(grids)
            except InputError as error:
                problem = str(error)
        if problem or case.warnings:
            rows.append(
                {
                    "case": case.name,
                    "modality": "",
                    "file": "",
                    "size": (),
                    "spacing_mm": (),
                    "orientation": "",
                    "warnings": list(case.warnings),
                    "problem": problem,
                }
            )
    if json_:
        print_json(rows)
    else:
        print_table(
            ("case", "modality", "file", "size z,y,x", "spacing mm", "axes", "remarks"),
            [
                (
                    row["case"],
                    row["modality"],
                    row["file"],
                    " x ".join(map(str, row["size"])),
                    " x ".join(f"{mm:g}" for mm in row["spacing_mm"]),
                    row["orientation"],
                    "; ".join([*row["warnings"], *([row["problem"]] if row["problem"] else [])]),
                )
                for row in rows
            ],
        )
    problems = [row for row in rows if row["problem"]]
    if problems:
        raise InputError(f"{len(problems)} of the files or cases above are not acceptable.")
