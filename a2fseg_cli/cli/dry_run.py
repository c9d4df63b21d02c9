"""`predict --dry-run`: what was found, file by file, without loading the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cli.console import print_json, print_table
from a2fseg_cli.errors import InputError

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case


def show_found(cases: Sequence[Case], resample: bool, reference: str | None, json_: bool) -> None:
    """Print what was found, from the files' headers only.

    Args:
        cases: The patients.
        resample: Differing grids will be put on the reference's, so they are only remarked on.
        reference: Modality whose grid the others are compared with; None takes the first.
        json_: Print rows of JSON instead of a table.

    Raises:
        InputError: something is not acceptable.
    """
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
        problem, remarks = case.problem, list(case.warnings)
        if problem is None and reference is not None and reference not in case.images:
            problem = f"--reference {reference}: not among the images found ({', '.join(case.images)})"
        if problem is None and len(grids) > 1:
            try:
                check_same_grid({reference: grids[reference], **grids} if reference in grids else grids)
            except InputError as error:
                problem, remarks = (
                    (None, [*remarks, "grids differ: will be resampled"]) if resample else (str(error), remarks)
                )
        if problem or remarks:
            rows.append(
                {
                    "case": case.name,
                    "modality": "",
                    "file": "",
                    "size": (),
                    "spacing_mm": (),
                    "orientation": "",
                    "warnings": remarks,
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
