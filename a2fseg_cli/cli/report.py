"""`a2fseg report`: volumes and page of a mask that exists, such as one corrected by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from a2fseg_cli.cli.console import print_json, print_table, say
from a2fseg_cli.cli.options import PATH, CaseName, CasePath, GivenLabels, Json, Overwrite, Select
from a2fseg_cli.cli.runtime import prepare_process


def report(
    source: CasePath,
    seg: Annotated[Path, typer.Argument(metavar="SEG", help="The mask, on the grid of one of the images", **PATH)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page, .html", **PATH)],
    stats: Annotated[
        Path | None, typer.Option(help=".json or .csv with volumes and diameters", metavar="FILE", **PATH)
    ] = None,
    labels: GivenLabels = "auto",
    select: Select = None,
    case: CaseName = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Measure a mask that exists, such as one corrected by hand, and write its page. No network runs.

    a2fseg report PATIENT_FOLDER corrected.nii.gz -o page.html
    """
    prepare_process()
    from a2fseg_cli.cases.selection import Selection
    from a2fseg_cli.reporting.given import write_report

    selection = Selection(select=tuple(select or ()), case_name=case)
    facts = write_report(source, seg, output, stats=stats, labels=labels, selection=selection, overwrite=overwrite)
    if json_:
        print_json(facts)
        return
    for warning in facts["warnings"]:
        say(f"Warning: {warning}")
    rows = {row["name"]: (row["name"], row["voxels"], f"{row['volume_ml']:.2f}") for row in facts["labels"]}
    print_table(("name", "voxels", "mL"), rows.values())  # ET is a class and a region, of the same voxels
    print(output)
