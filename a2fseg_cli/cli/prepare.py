"""`a2fseg prepare`: raw images registered to each other and without the skull, for the network or for anything else."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cli.console import MOST_LISTED, Bar, print_json, print_table, say
from a2fseg_cli.cli.options import (
    PATH,
    BrainMask,
    CaseName,
    DropUnregistered,
    IgnoreUnknown,
    Json,
    Prefer,
    Quiet,
    Reference,
    Scheduler,
    Select,
    Series,
    Split,
    Study,
    Threads,
    by_series,
    with_modality_options,
)
from a2fseg_cli.cli.runtime import prepare_process
from a2fseg_cli.cli.workers import crew_of
from a2fseg_cli.errors import CohortError, UsageError

if TYPE_CHECKING:
    from a2fseg_cli.inference.preparation import Preparation


@with_modality_options
def prepare(
    source: Annotated[
        Path | None, typer.Argument(help="A patient's folder, a cohort's, or a CSV, as of predict.", **PATH)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Gets a folder for each patient.", **PATH)
    ] = None,
    reference: Reference = None,
    brain_mask: BrainMask = None,
    drop_unregistered: DropUnregistered = False,
    select: Select = None,
    series: Series = None,
    study: Study = None,
    prefer: Prefer = None,
    ignore_unknown: IgnoreUnknown = False,
    case: CaseName = None,
    split: Split = None,
    threads: Threads = None,
    scheduler: Scheduler = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Redo only what is missing or outdated.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over results that exist.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
    **flags: Path | None,
) -> None:
    """Register raw images to each other and take off the skull; predict takes the result.

    a2fseg prepare COHORT_FOLDER -o PREPARED
    """
    images = {m: path for m, path in flags.items() if path is not None}
    if output is None or (source is None) == (not images):
        raise UsageError("Give one folder or CSV, or images by flag (--t1c FILE), and where to: -o FOLDER.")
    prepare_process(threads)
    import torch

    from a2fseg_cli import api
    from a2fseg_cli.inference.raw_cohort import prepare as prepare_patients

    with crew_of(scheduler, threads) as crew, Bar("patients", quiet) as bar:
        results = prepare_patients(
            source,
            output=output,
            images=images,
            selection=api.Selection(
                split, (), ignore_unknown, tuple(select or ()), (), case, by_series(series), study, prefer
            ),
            reading=api.ReadingOptions(reference=reference, brain_mask=brain_mask, drop_unregistered=drop_unregistered),
            existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
            threads=torch.get_num_threads(),
            crew=crew,
            started=bar.start,
            progress=partial(_tell, bar, quiet),
        )
    _show(results, output, json_)


def _tell(bar: Bar, quiet: bool, result: Preparation) -> None:
    bar.advance(_line(result))
    if quiet and (result.error or result.warnings):
        say(_line(result))


def _line(result: Preparation) -> str:
    status = result.status
    line = f"{status.case} {status.modalities} {status.status}" + (f": {status.reason}" if result.error else "")
    return f"{line} ({status.seconds:.1f} s)" + "".join(f"\n    {text}" for text in result.warnings)


def _show(results: list[Preparation], folder: Path, json_: bool) -> None:
    """Print a line a patient, of many those that failed. Raises: the one patient's error, CohortError of several."""
    counts = Counter(result.status.status for result in results)
    failed = [result for result in results if result.error]
    if json_:
        print_json({"folder": str(folder), **counts, "patients": [vars(result.status) for result in results]})
    else:
        listed = results if len(results) <= MOST_LISTED else failed[:MOST_LISTED]
        print_table(
            ("case", "modalities", "status", "s"),
            [(r.status.case, r.status.modalities, r.status.status, r.status.seconds) for r in listed],
            title=", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" in {folder}",
        )
        if len(listed) < len(results):
            print(f"{len(results) - len(listed)} more: see {folder}/status.csv.")
    if len(results) == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    if failed:
        raise CohortError(f"{len(failed)} of {len(results)} patients failed; see the reasons in {folder}/status.csv.")
