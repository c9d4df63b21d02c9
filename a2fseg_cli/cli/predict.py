"""`a2fseg predict`: one patient or a cohort, any subset of modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from a2fseg_cli.cli.console import Bar, say
from a2fseg_cli.cli.dry_run import show_overview
from a2fseg_cli.cli.options import (
    BATCH,
    IMAGES,
    LEAST_OVERLAP,
    PATH,
    RUN,
    BrainMask,
    CaseName,
    Device,
    DropUnregistered,
    FillHoles,
    IgnoreUnknown,
    Json,
    KeepTiny,
    NumParts,
    Overlap,
    PartId,
    Precision,
    Prefer,
    Quiet,
    Reference,
    RemoveSmall,
    Scheduler,
    Select,
    Series,
    Split,
    Study,
    Threads,
    Tta,
    Weights,
    Window,
    by_series,
    with_modality_options,
)
from a2fseg_cli.cli.pairs import given_images, listed
from a2fseg_cli.cli.runtime import prepare_process, region_sizes, three
from a2fseg_cli.cli.summaries import PatientLines, device_line, show_run
from a2fseg_cli.cli.workers import crew_of
from a2fseg_cli.errors import CohortError, UsageError

MORE = "Further outputs"


@with_modality_options
def predict(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(help="A patient's folder, a cohort's folder, or a CSV (case,t1,t1c,t2,flair).", **PATH),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Segmentation file, or folder for a cohort.", metavar="PATH", **PATH),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="NAME=FILE",
            help="An image of a modality that only your own weights know; repeatable.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    on_mismatch: Annotated[
        str,
        typer.Option(
            help="error, or resample: put all images on one grid, that of --reference.", rich_help_panel=IMAGES
        ),
    ] = "error",
    reference: Reference = None,
    brain_mask: BrainMask = None,
    allow_skull: Annotated[
        bool, typer.Option("--allow-skull", help="Segment although the skull is still there.", rich_help_panel=IMAGES)
    ] = False,
    channels: Annotated[
        str | None,
        typer.Option(
            help="Sequences in a 4-D file, in order, e.g. flair,t1,t1c,t2; - for one not used",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Images as the scanner exports them: skull on, each on its own grid.", rich_help_panel=IMAGES
        ),
    ] = False,
    drop_unregistered: DropUnregistered = False,
    keep_prepared: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --raw: write the registered images, the brain's mask and the transforms.",
            rich_help_panel=MORE,
            **PATH,
        ),
    ] = None,
    select: Select = None,
    series: Series = None,
    study: Study = None,
    prefer: Prefer = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="A sequence that every patient must have, e.g. t1c; repeatable", rich_help_panel=IMAGES),
    ] = None,
    ignore_unknown: IgnoreUnknown = False,
    case: CaseName = None,
    split: Split = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what was found and stop.")] = False,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    window: Window = None,
    overlap: Overlap = LEAST_OVERLAP,
    tta: Tta = None,
    threads: Threads = None,
    deterministic: Annotated[bool, typer.Option(help="The same bytes every time", rich_help_panel=RUN)] = False,
    labels: Annotated[
        str | None,
        typer.Option(help="brats2023 (default) writes 3 for ET, brats2018 writes 4", rich_help_panel=MORE),
    ] = None,
    regions: Annotated[bool, typer.Option(help="A mask per region", rich_help_panel=MORE)] = False,
    probabilities: Annotated[bool, typer.Option(help="A probability map per region", rich_help_panel=MORE)] = False,
    uncertainty: Annotated[
        bool, typer.Option(help="Entropy of the classes, 0 (sure) to 1", rich_help_panel=MORE)
    ] = False,
    attention: Annotated[bool, typer.Option(help="Each modality's attention weight", rich_help_panel=MORE)] = False,
    agreement: Annotated[
        bool,
        typer.Option(help="Agreement (Dice) with the result from every smaller set of sequences", rich_help_panel=MORE),
    ] = False,
    preview: Annotated[
        Path | None,
        typer.Option(help="PNG with overlays; a folder for a cohort", metavar="PATH", rich_help_panel=MORE, **PATH),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML page with volumes, contributions, warnings; a folder for a cohort",
            metavar="PATH",
            rich_help_panel=MORE,
            **PATH,
        ),
    ] = None,
    viewer: Annotated[
        Path | None,
        typer.Option(
            help="HTML page to look at images and mask in, slices and 3D; it holds the images; a folder for a cohort",
            metavar="PATH",
            rich_help_panel=MORE,
            **PATH,
        ),
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option(
            help=".json or .csv with volumes, diameters, device, versions; for a cohort one record per patient",
            metavar="FILE",
            rich_help_panel=MORE,
            **PATH,
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="plain, or bids: the folder becomes a BIDS derivative.", rich_help_panel=MORE)
    ] = "plain",
    label_file: Annotated[
        bool, typer.Option("--label-file", help="Names and colours of the labels for ITK-SNAP", rich_help_panel=MORE)
    ] = False,
    longitudinal: Annotated[
        Path | None,
        typer.Option(
            help="Volumes and diameters of each person over time: table, plots, pages",
            metavar="FOLDER",
            rich_help_panel=BATCH,
            **PATH,
        ),
    ] = None,
    colours: Annotated[
        str,
        typer.Option(
            help="ours (the colour-blind tell them apart), or paper: those of its Figure 2", rich_help_panel=MORE
        ),
    ] = "ours",
    remove_small: RemoveSmall = None,
    fill_holes: FillHoles = False,
    keep_tiny: KeepTiny = False,
    fail_on_empty: Annotated[bool, typer.Option(help="Count an empty mask as a failure", rich_help_panel=MORE)] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Redo only what is missing or outdated.", rich_help_panel=BATCH)
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over results that exist.")] = False,
    num_parts: NumParts = None,
    part_id: PartId = None,
    scheduler: Scheduler = None,
    json_: Json = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also windows and timings.")] = False,
    **flags: Path | None,
) -> None:
    """Segment a patient or a cohort from whichever sequences are there.

    a2fseg predict --t1c a.nii.gz --flair b.nii.gz -o seg.nii.gz

    a2fseg predict PATIENT_FOLDER -o seg.nii.gz

    a2fseg predict COHORT_FOLDER -o OUT_FOLDER
    """
    given = given_images(flags, image or [], list(context.params))
    if (source is None) == (not given):
        raise UsageError("Give images by flag (--t1c FILE --flair FILE) or one folder or CSV, not both or neither.")
    if not dry_run and output is None:
        raise UsageError("Say where the segmentation goes: -o seg.nii.gz, or -o FOLDER for a cohort.")
    prepare_process(threads, deterministic)
    from a2fseg_cli import api

    selection = api.Selection(
        split,
        tuple(require or ()),
        ignore_unknown,
        tuple(select or ()),
        listed(channels),
        case,
        by_series(series),
        study,
        prefer,
    )
    reading = api.ReadingOptions(on_mismatch, reference, brain_mask, allow_skull, raw, drop_unregistered)
    if dry_run or output is None:
        found = api.overview(source, images=given, weights=weights, selection=selection, reading=reading)
        show_overview(found, context.command.params, json_)
        return
    options = api.OutputOptions(
        labels=labels,
        regions=regions,
        probabilities=probabilities,
        uncertainty=uncertainty,
        attention=attention,
        agreement=agreement,
        colours=colours,
        remove_small=region_sizes(remove_small or []),
        fill_holes=fill_holes,
        keep_tiny=keep_tiny,
    )
    with crew_of(scheduler, threads) as crew, Bar("patients", quiet) as bar:
        network = api.load_network(
            weights,
            device=device,
            precision=precision,
            window=three(window, "--window"),
            overlap=overlap,
            tta=tta,
            crew=crew,
        )
        say(device_line(network), quiet)
        lines = PatientLines(bar, quiet, verbose)
        run = api.predict(
            source,
            output=output,
            images=given,
            network=network,
            options=options,
            reading=reading,
            selection=selection,
            preview=preview,
            report=report,
            viewer=viewer,
            stats=stats,
            existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
            with_stats=json_,
            layout=layout,
            label_file=label_file,
            keep_prepared=keep_prepared,
            longitudinal=longitudinal,
            num_parts=num_parts,
            part_id=part_id,
            started=lines.started,
            progress=lines,
        )
    show_run(run, json_)
    if run.failed:
        failed = f"{len(run.failed)} of {len(run.outcomes)} patients failed"
        raise CohortError(f"{failed}; see the reasons above and in {output}.")
    if fail_on_empty and run.empty:
        raise CohortError(f"no tumour was found in {', '.join(run.empty)} (--fail-on-empty).")
