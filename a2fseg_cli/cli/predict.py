"""`a2fseg predict`: one patient or a cohort, any subset of modalities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cases.selection import cases_of, share_of
from a2fseg_cli.cli.console import progress, say
from a2fseg_cli.cli.dry_run import show_found
from a2fseg_cli.cli.options import (
    LEAST_OVERLAP,
    PATH,
    RUN,
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
from a2fseg_cli.cli.summaries import show_cohort, show_result
from a2fseg_cli.errors import CohortError, InputError, UsageError, WeightsError
from a2fseg_cli.files import check_place
from a2fseg_cli.modalities import BRATS_MODALITIES

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case
    from a2fseg_cli.inference.cohort import Cohort, Status
    from a2fseg_cli.inference.exports import PatientResult
    from a2fseg_cli.inference.patient import OutputOptions
    from a2fseg_cli.inference.predictor import Segmenter

IMAGES, MORE, BATCH = "Images", "Further outputs", "Cohorts"


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
    t1: Annotated[
        list[Path] | None, typer.Option("--t1", "--t1n", metavar="FILE", rich_help_panel=IMAGES, **PATH)
    ] = None,
    t1c: Annotated[
        list[Path] | None, typer.Option("--t1c", "--t1ce", "--t1gd", metavar="FILE", rich_help_panel=IMAGES, **PATH)
    ] = None,
    t2: Annotated[
        list[Path] | None, typer.Option("--t2", "--t2w", metavar="FILE", rich_help_panel=IMAGES, **PATH)
    ] = None,
    flair: Annotated[
        list[Path] | None, typer.Option("--flair", "--t2f", "--fla", metavar="FILE", rich_help_panel=IMAGES, **PATH)
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="NAME=FILE",
            help="An image of a modality that only your own weights know.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    on_mismatch: Annotated[
        str, typer.Option(help="error, or resample: put all images on the reference's grid.", rich_help_panel=IMAGES)
    ] = "error",
    reference: Annotated[
        str | None, typer.Option(help="Modality whose grid the output has (default: the first)", rich_help_panel=IMAGES)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what was found and stop.")] = False,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    window: Window = None,
    overlap: Overlap = LEAST_OVERLAP,
    tta: Tta = False,
    threads: Threads = None,
    deterministic: Annotated[bool, typer.Option(help="Same bytes every time", rich_help_panel=RUN)] = False,
    labels: Annotated[
        str, typer.Option(help="brats2023 writes 3 for ET, brats2018 writes 4", rich_help_panel=MORE)
    ] = "brats2023",
    regions: Annotated[bool, typer.Option(help="A mask per region", rich_help_panel=MORE)] = False,
    probabilities: Annotated[bool, typer.Option(help="A probability map per region", rich_help_panel=MORE)] = False,
    uncertainty: Annotated[
        bool, typer.Option(help="Entropy of the classes, 0 (sure) to 1", rich_help_panel=MORE)
    ] = False,
    attention: Annotated[bool, typer.Option(help="Each modality's attention weight", rich_help_panel=MORE)] = False,
    agreement: Annotated[
        bool, typer.Option(help="Agreement with every smaller subset of the modalities", rich_help_panel=MORE)
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
    stats: Annotated[
        Path | None,
        typer.Option(
            help=".json or .csv with volumes, diameters, device, versions; of a cohort one record a patient",
            metavar="FILE",
            rich_help_panel=MORE,
            **PATH,
        ),
    ] = None,
    fail_on_empty: Annotated[bool, typer.Option(help="Count an empty mask as a failure", rich_help_panel=MORE)] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Redo only what is missing or outdated.", rich_help_panel=BATCH)
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over results that exist.")] = False,
    num_parts: NumParts = None,
    part_id: PartId = None,
    json_: Json = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also windows and timings.")] = False,
) -> None:
    """Segment a patient or a cohort from whichever sequences are there.

    a2fseg predict --t1c a.nii.gz --flair b.nii.gz -o seg.nii.gz

    a2fseg predict PATIENT_FOLDER -o seg.nii.gz

    a2fseg predict COHORT_FOLDER -o OUT_FOLDER
    """
    given = _given({"t1": t1, "t1c": t1c, "t2": t2, "flair": flair}, image or [], list(context.params))
    if on_mismatch not in ("error", "resample"):
        raise UsageError(f"--on-mismatch {on_mismatch}: expected error or resample.")
    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite exclude each other.")
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap}: expected 0 up to, but not including, 1.")
    if stats is not None and stats.suffix not in (".json", ".csv"):
        raise UsageError(f"--stats {stats}: expected a name ending in .json or .csv.")
    if (source is None) == (not given):
        raise UsageError("Give images by flag (--t1c FILE --flair FILE) or one folder or CSV, not both or neither.")

    if dry_run:
        show_found(cases_of(source, given, _modalities(weights)), on_mismatch == "resample", reference, json_)
        return
    if output is None:
        raise UsageError("Say where the segmentation goes: -o seg.nii.gz, or -o FOLDER for a cohort.")

    prepare_process(threads, deterministic)
    from a2fseg_cli.core.device import choose_compute
    from a2fseg_cli.inference.cohort import FAILED, Cohort, part_name
    from a2fseg_cli.inference.exports import label_values
    from a2fseg_cli.inference.patient import OutputOptions
    from a2fseg_cli.inference.predictor import WindowOptions
    from a2fseg_cli.inference.stats_file import StatsFile, write_stats

    settings = OutputOptions(labels, regions, probabilities, uncertainty, attention, agreement, on_mismatch, reference)
    compute = choose_compute(device, precision)
    segmenter = load_segmenter(weights, compute, WindowOptions(three(window, "--window"), overlap, tta))
    if unknown := [m for m in given if m in BRATS_MODALITIES and m not in segmenter.config.modalities]:
        takes = ", ".join(segmenter.config.modalities)
        raise WeightsError(f"{segmenter.weights.path}: made for {takes}, not for {', '.join(unknown)}. Take others.")
    label_values(segmenter.config, settings)  # refuses an unknown scheme before any work is done
    cases = cases_of(source, given, segmenter.config.modalities)
    single = source is None or (len(cases) == 1 and _is_image_name(output))
    if not single and _is_image_name(output):
        raise UsageError(f"-o {output}: {len(cases)} patients were found in {source}; give a folder.")
    if single and cases[0].problem:
        raise InputError(cases[0].problem)

    for option, path, suffix in (("--preview", preview, ".png"), ("--report", report, ".html")):
        if path is not None and single != (path.suffix.lower() == suffix):
            expected = f"a name ending in {suffix}" if single else f"a folder, for {output} is one"
            raise UsageError(f"{option} {path}: expected {expected}.")

    say(f"{compute.device} ({compute.reason}), {compute.precision}; {segmenter.weights.path.stem}", quiet)
    if single:
        if skip_existing:
            raise UsageError("--skip-existing is for a cohort, whose status table says what is finished.")
        beside = [path for path in (preview, report, stats) if path is not None]
        _refuse_to_overwrite(segmenter, settings, cases[0], output, beside, overwrite)
        say(", ".join(f"{m}: {path}" for m, path in cases[0].images.items()), quiet)
        result = _one(segmenter, settings, cases[0], output, preview, report, stats is not None or json_, verbose)
        if stats is not None:
            write_stats(stats, result.stats)
        show_result(result, json_)
        empty = [result.name] if result.empty else []
    else:
        if agreement and report is None and (stats is None or stats.suffix != ".json"):
            raise UsageError("--agreement of a cohort goes to --report FOLDER or --stats FILE.json: give one.")
        mine, part = share_of(cases, num_parts, part_id, quiet)
        table = part_name(output / "status.csv", *part)
        stats = part_name(stats, *part) if stats else None
        for path in (table, stats, preview and preview / "preview.png", report and report / "report.html"):
            if path is not None:
                check_place(path)
        existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
        numbers = StatsFile(stats) if stats else None
        cohort = Cohort(segmenter, settings, output, preview, report, existing, table.name, numbers)
        statuses = _many(cohort, mine, quiet, verbose)
        show_cohort(statuses, output, json_)
        if failed := sum(status.status == FAILED for status in statuses):
            raise CohortError(f"{failed} of {len(statuses)} patients failed; see the reasons above and in {output}.")
        empty = [status.case for status in statuses if not any((status.volumes_ml or {}).values())]
    if fail_on_empty and empty:
        raise CohortError(f"no tumour was found in {', '.join(empty)} (--fail-on-empty).")


def _given(flags: Mapping[str, list[Path] | None], named: Sequence[str], order: Sequence[str]) -> dict[str, Path]:
    """Return the images given by flag, the first of the command line first.

    Args:
        flags: Files by modality.
        named: NAME=FILE of other modalities.
        order: Names of the parameters, in the order of the command line; `image` is that of `named`.

    Raises:
        UsageError: a modality is given twice, or a pair is none.
    """
    given: dict[str, Path] = {}
    for option in order:
        pairs = _named_images(named) if option == "image" else [(option, path) for path in flags.get(option) or []]
        for name, path in pairs:
            if name in given:
                raise UsageError(f"two images for {name}: {given[name]} and {path}. Keep one.")
            given[name] = path
    return given


def _named_images(pairs: Sequence[str]) -> list[tuple[str, Path]]:
    images = []
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--image {pair}: expected NAME=FILE.")
        images.append((name.lower(), Path(path)))
    return images


def _modalities(weights: str | None) -> tuple[str, ...]:
    """Return the modalities that the weights know, from their header."""
    from a2fseg_cli.weights.cache import resolve_weights
    from a2fseg_cli.weights.file_format import inspect_weights

    return inspect_weights(resolve_weights(weights)).config.modalities


def _is_image_name(path: Path) -> bool:
    from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS

    return path.name.lower().endswith(EXTENSIONS) and not os.path.isdir(path)


def _refuse_to_overwrite(
    segmenter: Segmenter, settings: OutputOptions, case: Case, output: Path, beside: Sequence[Path], overwrite: bool
) -> None:
    from a2fseg_cli.inference.exports import check_outputs, planned_outputs

    planned = [*planned_outputs(output, segmenter.config, case.images, settings), *beside]
    for path in planned:
        check_place(path)
    check_outputs(planned, [case])
    existing = [path for path in planned if os.path.exists(path)]  # false where writing will say why not
    if existing and not overwrite:
        raise UsageError(f"{existing[0]} exists. Give --overwrite or another name.")


def _one(
    segmenter: Segmenter,
    settings: OutputOptions,
    case: Case,
    output: Path,
    preview: Path | None,
    report: Path | None,
    with_stats: bool,
    verbose: bool,
) -> PatientResult:
    from a2fseg_cli.inference.exports import finish_patient
    from a2fseg_cli.inference.patient import load_patient, segment_patient

    patient = load_patient(case.name, case.images, segmenter.config, settings, case.warnings)
    found = segment_patient(patient, segmenter, settings, report is not None)
    result = finish_patient(patient, found, segmenter, settings, output, preview, report, with_stats)
    if verbose:
        plan = found.segmentation.plan
        spacing = " x ".join(f"{mm:g}" for mm in segmenter.config.spacing_mm)
        say(f"{len(plan.starts)} window(s) of {plan.window} over {plan.shape} voxels of {spacing} mm")
        say(_timings(result))
    return result


def _timings(result: PatientResult) -> str:
    return ", ".join(f"{step} {value:.2f} s" for step, value in result.seconds.items())


def _many(cohort: Cohort, cases: Sequence[Case], quiet: bool, verbose: bool) -> list[Status]:
    """Segment the cases and return what became of each."""
    from a2fseg_cli.inference.cohort import FAILED

    statuses: list[Status] = []
    notes: set[str] = set()  # what absent modalities cost is said once for each set of them
    with progress("patients", len(cases), quiet) as advance:

        def report(status: Status, result: PatientResult | None) -> None:
            statuses.append(status)
            line = f"{status.case} {status.modalities} {status.status}"
            line += (f": {status.reason}" if status.reason else "") + f" ({status.seconds:.1f} s)"
            told: list[str] = []
            if result is not None:
                told += result.warnings
                if result.note and result.note not in notes:
                    notes.add(result.note)
                    told.append(result.note)
            more = [*told, *([_timings(result)] if verbose and result is not None else [])]
            line += "".join(f"\n    {text}" for text in more)
            advance(line)
            if quiet and (status.status == FAILED or told):
                say(line)

        cohort.run(cases, report)
    return statuses
