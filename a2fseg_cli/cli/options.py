"""Options that several commands share, each with its one name, help text and panel."""

from __future__ import annotations

from typing import Annotated, Any

import typer

RUN = "Running"
# Of every path: whether it can be read or written is found out by doing so, whose errors have their own exit codes.
PATH: dict[str, Any] = {"readable": False}

LEAST_OVERLAP = 0.5  # of neighbouring windows, a share of their edge

Weights = Annotated[
    str | None, typer.Option(help="Name in the manifest or a file (default: the bundled ones)", rich_help_panel=RUN)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps", rich_help_panel=RUN)]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16", rich_help_panel=RUN)]
Window = Annotated[
    str | None, typer.Option(help="Window edges in voxels, e.g. 96 (default: planned)", rich_help_panel=RUN)
]
Overlap = Annotated[float, typer.Option(help="Least overlap of windows", rich_help_panel=RUN)]
Tta = Annotated[bool, typer.Option("--tta/--no-tta", help="Test-time mirroring", rich_help_panel=RUN)]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores)", rich_help_panel=RUN)]
NumParts = Annotated[
    int | None, typer.Option(help="Split the cohort in N (default: SLURM, torchrun or 1)", rich_help_panel=RUN)
]
PartId = Annotated[int | None, typer.Option(help="Which part, from 0", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
