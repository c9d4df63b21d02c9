"""Options that several commands share, each with its one name, help text and panel."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from a2fseg_cli.errors import UsageError
from a2fseg_cli.modalities import MODALITIES

RUN, IMAGES, BATCH, AFTERWARDS = "Running", "Images", "Cohorts", "Small parts and holes"
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
Tta = Annotated[
    bool | None,
    typer.Option(
        "--tta/--no-tta",
        help="Mean over all eight mirrorings, or no mirroring (default: as the weights say)",
        rich_help_panel=RUN,
    ),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores)", rich_help_panel=RUN)]
NumParts = Annotated[
    int | None,
    typer.Option(
        help="Share the cohort between N processes (default: as SLURM or torchrun says, else 1)", rich_help_panel=RUN
    ),
]
PartId = Annotated[int | None, typer.Option(help="Which of the parts this process does, from 0", rich_help_panel=RUN)]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|FILE|local:N",
        help="Share the patients among the workers of a Dask scheduler, or among N processes of this machine",
        rich_help_panel=RUN,
    ),
]
RemoveSmall = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION=MM3",
        help="Remove parts of a region under so many mm3: ET becomes NCR, TC becomes ED, WT background; repeatable",
        rich_help_panel=AFTERWARDS,
    ),
]
FillHoles = Annotated[
    bool, typer.Option(help="Fill holes: of the core with NCR, others with ED", rich_help_panel=AFTERWARDS)
]
KeepTiny = Annotated[
    bool,
    typer.Option(
        "--keep-tiny", help="Keep regions that the card of the weights calls invented", rich_help_panel=AFTERWARDS
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
# Of the commands that take a patient and a mask that exists.
CasePath = Annotated[
    Path, typer.Argument(metavar="CASE", help="The patient's folder, or a CSV with one patient", **PATH)
]
GivenLabels = Annotated[
    str, typer.Option(help="Values in the mask: auto, brats2013, 2018, 2023, 2024, or e.g. NCR=2,ED=1,ET=3")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a page that exists.")]

Reference = Annotated[
    str | None,
    typer.Option(
        help="Modality whose grid the output has (default: the first; of raw images T1c, else FLAIR, T2, T1)",
        rich_help_panel=IMAGES,
    ),
]
BrainMask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Mask of the brain, for images with the skull on.", rich_help_panel=IMAGES, **PATH
    ),
]
DropUnregistered = Annotated[
    bool,
    typer.Option(
        "--drop-unregistered",
        help="Go on without a raw sequence that cannot be registered (default: the patient fails).",
        rich_help_panel=IMAGES,
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Word in the file name that chooses between several files of one sequence, e.g. run-01; repeatable",
        rich_help_panel=IMAGES,
    ),
]
IgnoreUnknown = Annotated[
    bool,
    typer.Option(
        "--ignore-unknown",
        help="Ignore images whose sequence cannot be recognised (default: the patient fails).",
        rich_help_panel=IMAGES,
    ),
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NUMBER=SEQUENCE",
        help="What a DICOM series is, e.g. 12=t1c, or 12=- to leave it aside; repeatable",
        rich_help_panel=IMAGES,
    ),
]
Study = Annotated[
    str | None, typer.Option(help="Which of several DICOM studies: its date or UID", rich_help_panel=IMAGES)
]
Prefer = Annotated[
    str | None,
    typer.Option(
        metavar="thinnest",
        help="Of several DICOM series of one sequence take the thinnest (default: the patient fails).",
        rich_help_panel=IMAGES,
    ),
]
CaseName = Annotated[str | None, typer.Option(help="Name of the patient, when there is one", rich_help_panel=IMAGES)]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[:NAME]", help="Only the patients of this list; JSON with named lists.", rich_help_panel=BATCH
    ),
]


def by_series(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return sequence by DICOM series from `NUMBER=SEQUENCE`. Raises: UsageError."""
    chosen: dict[str, str] = {}
    for pair in pairs or ():
        key, separator, name = pair.partition("=")
        if not separator or not key.strip() or not name.strip():
            raise UsageError(f"--series {pair}: expected NUMBER=SEQUENCE, e.g. 12=t1c.")
        if key.strip() in chosen:
            raise UsageError(f"--series {pair}: series {key} is named twice. Keep one.")
        chosen[key.strip()] = name.strip()
    return chosen


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
