"""`a2fseg evaluate`: scores of subsets of modalities, or of label maps that exist, against the expert's truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cases.selection import select_cases
from a2fseg_cli.cases.shares import share_of
from a2fseg_cli.cli.console import progress, say
from a2fseg_cli.cli.options import (
    LEAST_OVERLAP,
    PATH,
    Device,
    Json,
    NumParts,
    Overlap,
    PartId,
    Precision,
    Quiet,
    Threads,
    Tta,
    Weights,
    Window,
)
from a2fseg_cli.cli.runtime import load_segmenter, prepare_process, three
from a2fseg_cli.cli.scored import draw_progression, show_scores, write_scored_weights
from a2fseg_cli.core.config import ModelConfig, all_subsets
from a2fseg_cli.errors import CohortError, InputError, UsageError
from a2fseg_cli.files import check_place

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case
    from a2fseg_cli.evaluation.cohort import Evaluation, Failure
    from a2fseg_cli.evaluation.patient_scores import PatientScores

WHAT, SCORES, OUTPUT = "What is scored", "Scores", "Output"
POLICY, METRICS, NSD_TOLERANCE_MM = "brats2020", "dice,hd95", 1.0
MOST_MODALITIES = 8  # of which all subsets, 255, are still computed


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="A cohort's folder (BIDS too), a patient's, or a CSV (case,t1,t1c,t2,flair,seg).", **PATH),
    ],
    all_subsets_: Annotated[
        bool, typer.Option("--all-subsets", help="Every subset, from one pass a patient.", rich_help_panel=WHAT)
    ] = False,
    subset: Annotated[
        list[str] | None,
        typer.Option(
            "--subset", metavar="A+B", help="Such as t1c+flair; repeatable (default: all present)", rich_help_panel=WHAT
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Score these files, of any tool, instead.", rich_help_panel=WHAT, **PATH),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="FILE[:NAME]", help="JSON, name to list of cases; only these.", rich_help_panel=WHAT),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(help="dice, hd95, nsd, lesionwise, sensitivity, precision, volume", rich_help_panel=SCORES),
    ] = METRICS,
    policy: Annotated[
        str,
        typer.Option(help="HD95 and empty masks as brats2020 or brats2023; nan: undefined", rich_help_panel=SCORES),
    ] = POLICY,
    nsd_tolerance: Annotated[
        float, typer.Option(help="Distance up to which surfaces agree, mm", rich_help_panel=SCORES)
    ] = NSD_TOLERANCE_MM,
    labels: Annotated[
        str, typer.Option(help="Of the truth: auto, brats2018 (ET 4), brats2023 (ET 3)", rich_help_panel=SCORES)
    ] = "auto",
    prediction_labels: Annotated[str, typer.Option(help="The same of --predictions", rich_help_panel=SCORES)] = "auto",
    compare: Annotated[
        str | None, typer.Option(metavar="paper", help="Put the paper's Dice beside ours.", rich_help_panel=SCORES)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="Tables, CSV, JSON, PNG.", rich_help_panel=OUTPUT, **PATH
        ),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(metavar="CASE", help="Draw this patient from FLAIR to all (needs -o).", rich_help_panel=OUTPUT),
    ] = None,
    write_card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Copy the weights with these scores in their card.", rich_help_panel=OUTPUT, **PATH
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over scores of other settings.", rich_help_panel=OUTPUT)
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    window: Window = None,
    overlap: Overlap = LEAST_OVERLAP,
    tta: Tta = False,
    threads: Threads = None,
    num_parts: NumParts = None,
    part_id: PartId = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score subsets of modalities, or files that exist, against the expert's masks beside the images.

    a2fseg evaluate data/ --all-subsets -o scores/

    a2fseg evaluate data/ --subset t1c+flair

    a2fseg evaluate data/ --predictions OUT_FOLDER
    """
    if all_subsets_ and subset:
        raise UsageError("--all-subsets and --subset exclude each other.")
    of_the_network = {
        "--all-subsets": all_subsets_, "--subset": subset, "--figure": figure, "--write-card": write_card,
        "--device": device != "auto", "--precision": precision != "auto", "--window": window, "--tta": tta,
        "--overlap": overlap != LEAST_OVERLAP,
    }  # fmt: skip
    if predictions is not None and (clash := [name for name, given in of_the_network.items() if given]):
        raise UsageError(f"--predictions scores files; {', '.join(clash)} would run the network.")
    if predictions is None and prediction_labels != "auto":
        raise UsageError("--prediction-labels needs --predictions.")
    chosen = tuple(dict.fromkeys(metrics.replace(" ", "").split(",")))
    if nsd_tolerance != NSD_TOLERANCE_MM and "nsd" not in chosen:
        raise UsageError("--nsd-tolerance needs --metrics nsd.")
    if compare not in (None, "paper"):
        raise UsageError(f"--compare {compare}: expected paper.")
    if figure and output is None:
        raise UsageError("--figure needs a folder: -o FOLDER.")
    if write_card and not all_subsets_:
        raise UsageError("--write-card stores the scores of all subsets: give --all-subsets.")
    if write_card:
        check_place(write_card)
        if write_card.exists() and not overwrite:
            raise UsageError(f"{write_card} exists. Give --overwrite or another name.")
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap}: expected 0 up to, but not including, 1.")

    prepare_process(threads)
    from a2fseg_cli.core.device import choose_compute
    from a2fseg_cli.evaluation.cohort import Evaluation, ScoringOptions
    from a2fseg_cli.evaluation.predictions import find_predictions
    from a2fseg_cli.inference.predictor import WindowOptions

    segmenter = None
    config = ModelConfig()
    if predictions is None:
        compute = choose_compute(device, precision)
        segmenter = load_segmenter(weights, compute, WindowOptions(three(window, "--window"), overlap, tta))
        config = segmenter.config
    elif weights is not None:
        config = _config_of(weights)
    if all_subsets_ and len(config.modalities) > MOST_MODALITIES:
        raise UsageError(f"--all-subsets: 2^{len(config.modalities)} - 1 subsets; name those you want with --subset.")
    subsets = tuple(all_subsets(config.modalities)) if all_subsets_ else _subsets(subset, config.modalities)
    task = ScoringOptions(
        subsets,
        chosen,
        policy,
        labels,
        prediction_labels,
        attention=output is not None and predictions is None,
        nsd_tolerance_mm=nsd_tolerance,
    )
    cases = select_cases(data, modalities=config.modalities, split=split, with_truth=True)
    if figure and figure not in [case.name for case in cases]:
        raise UsageError(f"--figure {figure}: no such patient among {', '.join(case.name for case in cases)}.")
    if segmenter is not None:
        compute = segmenter.compute
        say(f"{compute.device} ({compute.reason}), {compute.precision}; {segmenter.weights.path.stem}", quiet)
    found = find_predictions(predictions, cases) if predictions else None
    evaluation = Evaluation(task, config, segmenter, found, output, overwrite)
    share = share_of(cases, num_parts, part_id)
    mine = share.cases
    if share.words:
        say(share.words)
    results, failed = _run(evaluation, mine, quiet)
    if len(mine) < len(cases):  # what other parts have finished goes into the tables as well
        mine_by_name = {result.case: result for result in results}
        known = [mine_by_name.get(case.name) or evaluation.finished(case) for case in cases]
        results = [result for result in known if result is not None]
    if results:
        show_scores(evaluation, results, failed, compare is not None, output, json_)
        if figure and figure in failed:
            say(f"Warning: {figure} could not be scored; --figure was not drawn.")
        elif figure and output and segmenter:
            draw_progression(evaluation, segmenter, next(case for case in cases if case.name == figure), output)
        if write_card and len(results) < len(cases):
            say(f"Warning: {len(results)} of {len(cases)} patients are scored; --write-card was not written.")
        elif write_card and segmenter:
            write_scored_weights(segmenter, results, policy, write_card)
    if failed and len(mine) == 1:
        raise InputError(next(iter(failed.values())))
    if failed:
        raise CohortError(f"{len(failed)} of {len(mine)} patients could not be scored; see the reasons above.")


def _config_of(weights: str) -> ModelConfig:
    from a2fseg_cli.weights.cache import resolve_weights
    from a2fseg_cli.weights.file_format import inspect_weights

    return inspect_weights(resolve_weights(weights)).config


def _subsets(names: Sequence[str] | None, modalities: Sequence[str]) -> tuple[tuple[str, ...], ...] | None:
    """Return the subsets asked for, each in the model's order. Raises: UsageError for an unknown modality."""
    if not names:
        return None
    subsets = []
    for name in names:
        parts = [part.strip().lower() for part in name.split("+")]
        if not set(parts) <= set(modalities) or len(set(parts)) != len(parts):
            raise UsageError(f"--subset {name}: expected some of {', '.join(modalities)}, joined by +.")
        subsets.append(tuple(m for m in modalities if m in parts))
    return tuple(dict.fromkeys(subsets))


def _run(evaluation: Evaluation, cases: Sequence[Case], quiet: bool) -> tuple[list[PatientScores], dict[str, str]]:
    from a2fseg_cli.evaluation.patient_scores import PatientScores

    failed: dict[str, str] = {}
    with progress("patients", len(cases), quiet) as advance:

        def report(outcome: PatientScores | Failure, taken_over: bool) -> None:
            if not isinstance(outcome, PatientScores):
                failed[outcome.case] = outcome.reason
                advance(f"{outcome.case} failed: {outcome.reason}")
                if quiet:
                    say(f"{outcome.case}: {outcome.reason}")
                return
            seconds = outcome.seconds.get("total", 0.0)
            how = "scored before" if taken_over else f"scored ({seconds:.1f} s)"
            left_out = f", {len(outcome.left_out)} subsets left out (modality missing)" if outcome.left_out else ""
            line = "".join([f"{outcome.case} {how}{left_out}", *(f"\n    {note}" for note in outcome.notes)])
            advance(line)
            if quiet and outcome.notes:
                say(line)

        results = evaluation.run(cases, report)
    return results, failed
