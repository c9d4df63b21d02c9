"""`a2fseg view`: a patient's images and a mask in one HTML file, to be looked at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from a2fseg_cli.cli.console import say
from a2fseg_cli.cli.options import PATH, CaseName, CasePath, GivenLabels, Overwrite, Quiet, Select
from a2fseg_cli.cli.runtime import prepare_process


def view(
    source: CasePath,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page, .html", **PATH)],
    seg: Annotated[Path | None, typer.Argument(metavar="[SEG]", help="A mask", **PATH)] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A map as predict --uncertainty writes it", **PATH)
    ] = None,
    labels: GivenLabels = "auto",
    select: Select = None,
    case: CaseName = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file that shows a patient's sequences with a mask: slices, 3D, grey levels, values.

    a2fseg view PATIENT_FOLDER seg.nii.gz -o case.html

    It opens from the disk in any browser with WebGL 2, with no network. It holds the patient's images.
    """
    prepare_process()
    from a2fseg_cli.cases.selection import Selection
    from a2fseg_cli.reporting.given import write_view

    selection = Selection(select=tuple(select or ()), case_name=case)
    warnings, sentence = write_view(
        source, seg, output, uncertainty=uncertainty, labels=labels, selection=selection, overwrite=overwrite
    )
    for warning in warnings:
        say(f"Warning: {warning}")
    say(sentence, quiet)
    print(output)
