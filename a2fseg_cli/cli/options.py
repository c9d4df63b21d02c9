"""Options that several commands share, each with its one name, help text and panel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from a2fseg_cli.modalities import MODALITIES

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
    str | None, typer.Option(help="Window size in voxels, e.g. 96 (default: fitted to the brain)", rich_help_panel=RUN)
]
Overlap = Annotated[float, typer.Option(help="Least overlap of windows, a share of their size", rich_help_panel=RUN)]
Tta = Annotated[bool, typer.Option("--tta/--no-tta", help="Mean over eight mirrorings", rich_help_panel=RUN)]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores)", rich_help_panel=RUN)]
NumParts = Annotated[
    int | None,
    typer.Option(
        help="Share the cohort between N processes (default: as SLURM or torchrun says, else 1)", rich_help_panel=RUN
    ),
]
PartId = Annotated[int | None, typer.Option(help="Which of the parts this process does, from 0", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
# Of the commands that take a patient and a mask that exists.
CasePath = Annotated[
    Path, typer.Argument(metavar="CASE", help="The patient's folder, or a CSV with one patient", **PATH)
]
GivenLabels = Annotated[
    str, typer.Option(help="Values in the mask: auto, brats2013, 2018, 2023, 2024, or e.g. NCR=2,ED=1,ET=3")
]
Select = Annotated[
    list[str] | None, typer.Option(help="Word in the file name that chooses between several files of one sequence")
]
CaseName = Annotated[str | None, typer.Option(help="Name of the patient, the page's title")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a page that exists.")]


def with_modality_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that also takes a file by each modality's flag, as `MODALITIES` lists them.

    They reach the command as keyword arguments of the modalities' names.
    """

    @wraps(command)
    def wrapped(**arguments: Any) -> None:
        command(**arguments)

    signature = inspect.signature(command, eval_str=True)
    flags = [
        inspect.Parameter(
            modality.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    f"--{modality.name}",
                    *(f"--{flag}" for flag in modality.flags),
                    metavar="FILE",
                    rich_help_panel="Images",
                    **PATH,
                ),
            ],
        )
        for modality in MODALITIES
    ]
    named = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in named]
    parameters = [*own[:3], *flags, *own[3:]]  # behind context, source and output
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped
