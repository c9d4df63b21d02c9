"""`a2fseg evaluate`: scores of subsets of modalities, or of label maps that exist, against the expert's truth."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cli.console import Advance, print_json, print_table, progress, say
from a2fseg_cli.cli.options import (
    LEAST_OVERLAP,
    PATH,
    RUN,
    Device,
    FillHoles,
    Json,
    KeepTiny,
    NumParts,
    Overlap,
    PartId,
    Precision,
    Quiet,
    RemoveSmall,
    Scheduler,
    Threads,
    Tta,
    Window,
)
from a2fseg_cli.cli.runtime import prepare_process, region_sizes, three
from a2fseg_cli.cli.workers import crew_of

if TYPE_CHECKING:
    from a2fseg_cli.evaluation.cohort import Failure
    from a2fseg_cli.evaluation.evaluate import Start
    from a2fseg_cli.evaluation.patient_scores import PatientScores
    from a2fseg_cli.evaluation.result import EvaluationResult

WHAT, SCORES, OUTPUT = "What is scored", "Scores", "Output"
POLICY, METRICS, NSD_TOLERANCE_MM = "brats2020", "dice,hd95", 1.0


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="A cohort's folder (BIDS too), a patient's, or a CSV (case,t1,t1c,t2,flair,seg).", **PATH),
    ],
    all_subsets_: Annotated[
        bool, typer.Option("--all-subsets", help="Every subset, from one pass per patient.", rich_help_panel=WHAT)
    ] = False,
    subset: Annotated[
        list[str] | None,
        typer.Option(
            "--subset",
            metavar="A+B",
            help="Sequences to score, e.g. t1c+flair; repeatable (default: all present)",
            rich_help_panel=WHAT,
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FOLDER",
            help="Score the masks in this folder, made by any tool; several are compared",
            rich_help_panel=WHAT,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:NAME]", help="Only the patients of this list; JSON with named lists.", rich_help_panel=WHAT
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="dice, hd95, nsd, lesionwise, sensitivity, precision, volume, calibration", rich_help_panel=SCORES
        ),
    ] = METRICS,
    policy: Annotated[
        str,
        typer.Option(
            help="HD95 and empty masks as in brats2020 or brats2023; nan: an empty mask has no score",
            rich_help_panel=SCORES,
        ),
    ] = POLICY,
    nsd_tolerance: Annotated[
        float, typer.Option(help="For nsd: largest distance at which surfaces agree, mm", rich_help_panel=SCORES)
    ] = NSD_TOLERANCE_MM,
    labels: Annotated[
        str,
        typer.Option(
            help="Values in the expert's masks: auto, brats2013, 2018, 2023, 2024, or e.g. NCR=2,ED=1,ET=3",
            rich_help_panel=SCORES,
        ),
    ] = "auto",
    prediction_labels: Annotated[
        str,
        typer.Option(
            help="Values in the masks of --predictions: as --labels, or NCR=2,ED=1,ET=3", rich_help_panel=SCORES
        ),
    ] = "auto",
    compare: Annotated[
        str | None, typer.Option(metavar="paper", help="Put the paper's Dice beside yours.", rich_help_panel=SCORES)
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="truth|FILE",
            help="Mean Dice by kind of patient: with and without each region, and the kinds of a CSV (case,kind).",
            rich_help_panel=SCORES,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="Tables, CSV, JSON, PNG.", rich_help_panel=OUTPUT, **PATH
        ),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="CASE",
            help="Draw this patient, from FLAIR alone to all sequences (needs -o).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    write_card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a copy of the weights with these scores in its card.",
            rich_help_panel=OUTPUT,
            **PATH,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace scores of other settings.", rich_help_panel=OUTPUT)
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]NAME|FILE",
            help="Name in the manifest or a file (default: the bundled ones); several are compared",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    window: Window = None,
    overlap: Overlap = LEAST_OVERLAP,
    tta: Tta = None,
    remove_small: RemoveSmall = None,
    fill_holes: FillHoles = False,
    keep_tiny: KeepTiny = False,
    threads: Threads = None,
    num_parts: NumParts = None,
    part_id: PartId = None,
    scheduler: Scheduler = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score subsets of modalities, or files that exist, against the expert's masks beside the images.

    a2fseg evaluate data/ --all-subsets -o scores/

    a2fseg evaluate data/ --subset t1c+flair

    a2fseg evaluate data/ --predictions OUT_FOLDER

    a2fseg evaluate data/ --all-subsets --weights first=a.safetensors --weights second=b.safetensors
    """
    prepare_process(threads)
    from a2fseg_cli.evaluation.evaluate import evaluate as evaluate_data

    with crew_of(scheduler, threads) as crew, ExitStack() as stack:
        shown = _Progress(stack, quiet)
        result = evaluate_data(
            data,
            subsets="all" if all_subsets_ else subset,
            predictions=predictions,
            split=split,
            metrics=metrics.replace(" ", "").split(","),
            policy=policy,
            nsd_tolerance_mm=nsd_tolerance,
            labels=labels,
            prediction_labels=prediction_labels,
            compare=compare,
            kinds=kinds,
            output=output,
            figure=figure,
            write_card=write_card,
            overwrite=overwrite,
            weights=weights,
            device=device,
            precision=precision,
            window=three(window, "--window"),
            overlap=overlap,
            tta=tta,
            remove_small=region_sizes(remove_small or []),
            fill_holes=fill_holes,
            keep_tiny=keep_tiny,
            num_parts=num_parts,
            part_id=part_id,
            crew=crew,
            on_start=shown.start,
            on_patient=shown.patient,
        )
    _show(result, json_)
    result.raise_for_failed()


class _Progress:
    """What is said while patients are scored: the device, the share, a line a patient.

    Args:
        stack: Ends the bar.
        quiet: Say failures and assumptions only.
    """

    def __init__(self, stack: ExitStack, quiet: bool) -> None:
        self._stack, self._quiet = stack, quiet
        self._advance: Advance = lambda _: None
        self._said: set[str] = set()  # each method scores the same patients, with the same remarks

    def start(self, start: Start) -> None:
        """Say what is known beforehand, and begin the bar; that of a method before it ends."""
        self._stack.close()
        of = f"{start.method}: " if start.method else ""
        for line in filter(None, (of + (start.network or "masks of its folder") if of else start.network, start.share)):
            say(line, self._quiet)
        self._advance = self._stack.enter_context(progress("patients", start.patients, self._quiet))

    def patient(self, outcome: PatientScores | Failure, taken_over: bool) -> None:
        """Say what became of a patient."""
        from a2fseg_cli.evaluation.cohort import Failure

        if isinstance(outcome, Failure):
            self._advance(f"{outcome.case} failed: {outcome.reason}")
            if self._quiet:
                say(f"{outcome.case}: {outcome.reason}")
            return
        seconds = outcome.seconds.get("total", 0.0)
        how = "scored before" if taken_over else f"scored ({seconds:.1f} s)"
        left_out = f", {len(outcome.left_out)} subsets left out (modality missing)" if outcome.left_out else ""
        notes = [note for note in outcome.notes if note not in self._said]
        self._said.update(notes)
        line = "".join([f"{outcome.case} {how}{left_out}", *(f"\n    {note}" for note in notes)])
        self._advance(line)
        if self._quiet and notes:
            say(line)


def _show(result: EvaluationResult, json_: bool) -> None:
    """Print the tables or the summary; everything is written by then, so that no stream can lose it."""
    for warning in result.warnings:
        say(f"Warning: {warning}")
    for note in result.notes:
        say(note)
    if not result.tables:
        return
    if json_:
        print_json(result.summary)
        return
    said: set[str] = set()  # several tables of a comparison share notes
    for table in result.tables:
        print(table.title)
        print_table(table.columns, table.rows, bold=table.bold, underlined=table.underlined)
        for note in (note for note in table.notes if note not in said):
            print(note)
        said.update(table.notes)
    print(result.definition)
