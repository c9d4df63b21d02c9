"""`a2fseg predict`: one patient or a cohort, any subset of modalities."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cli.cohorts import CohortError, cases_of, parts_of
from a2fseg_cli.cli.console import print_json, print_table, progress, say
from a2fseg_cli.cli.found import show_found
from a2fseg_cli.cli.options import (
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
from a2fseg_cli.core.config import BRATS_MODALITIES, ModelConfig
from a2fseg_cli.errors import InputError, UsageError, WeightsError
from a2fseg_cli.files import atomic_write_text, check_place, json_text

if TYPE_CHECKING:
    from a2fseg_cli.imaging.discovery import Case
    from a2fseg_cli.prediction.cohort import Cohort, Status
    from a2fseg_cli.prediction.patient import Settings
    from a2fseg_cli.prediction.results import Result
    from a2fseg_cli.prediction.segmenter import Segmenter

IMAGES, MORE, BATCH = "Images", "Further outputs", "Cohorts"


def predict(
    source: Annotated[
        Path | None,
        typer.Argument(help="A patient's folder, a cohort's folder, or a CSV (case,t1,t1c,t2,flair).", **PATH),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Segmentation file, or folder for a cohort.", metavar="PATH", **PATH),
    ] = None,
    t1: Annotated[Path | None, typer.Option("--t1", "--t1n", metavar="FILE", rich_help_panel=IMAGES, **PATH)] = None,
    t1c: Annotated[
        Path | None, typer.Option("--t1c", "--t1ce", "--t1gd", metavar="FILE", rich_help_panel=IMAGES, **PATH)
    ] = None,
    t2: Annotated[Path | None, typer.Option("--t2", "--t2w", metavar="FILE", rich_help_panel=IMAGES, **PATH)] = None,
    flair: Annotated[
        Path | None, typer.Option("--flair", "--t2f", "--fla", metavar="FILE", rich_help_panel=IMAGES, **PATH)
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
    overlap: Overlap = 0.5,
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
    sensitivity: Annotated[
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
            help=".json or .csv with volumes, settings, versions, of the patients done now",
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also device, windows and timings.")] = False,
) -> None:
    """Segment a patient or a cohort from whichever sequences are there.

    a2fseg predict --t1c a.nii.gz --flair b.nii.gz -o seg.nii.gz

    a2fseg predict PATIENT_FOLDER -o seg.nii.gz

    a2fseg predict COHORT_FOLDER -o OUT_FOLDER
    """
    flags = {"t1": t1, "t1c": t1c, "t2": t2, "flair": flair} | _named_images(image or [])
    given = {name: path for name, path in flags.items() if path is not None}
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
        show_found(cases_of(source, given, _modalities(weights)), json_)
        return
    if output is None:
        raise UsageError("Say where the segmentation goes: -o seg.nii.gz, or -o FOLDER for a cohort.")

    prepare_process(threads, deterministic)
    from a2fseg_cli.core.device import choose_compute
    from a2fseg_cli.prediction.cohort import FAILED, Cohort, status_name
    from a2fseg_cli.prediction.patient import Settings
    from a2fseg_cli.prediction.segmenter import Inference

    settings = Settings(labels, regions, probabilities, uncertainty, attention, sensitivity, on_mismatch, reference)
    compute = choose_compute(device, precision)
    segmenter = load_segmenter(weights, compute, Inference(three(window, "--window"), overlap, tta))
    if unknown := [m for m in given if m in BRATS_MODALITIES and m not in segmenter.config.modalities]:
        takes = ", ".join(segmenter.config.modalities)
        raise WeightsError(f"{segmenter.weights.path}: made for {takes}, not for {', '.join(unknown)}. Take others.")
    cases = cases_of(source, given, segmenter.config.modalities)
    single = source is None or (len(cases) == 1 and _is_image_name(output))
    if not single and _is_image_name(output):
        raise UsageError(f"-o {output}: {len(cases)} patients were found in {source}; give a folder.")
    if single and cases[0].problem:
        raise InputError(cases[0].problem)

    say(f"{compute.device} ({compute.reason}), {compute.precision}; {segmenter.weights.path.stem}", quiet)
    statuses: list[Status] = []
    if single:
        beside = [path for path in (preview, report, stats) if path is not None]
        _refuse_to_overwrite(segmenter, settings, cases[0], output, beside, overwrite)
        say(", ".join(f"{m}: {path}" for m, path in cases[0].images.items()), quiet)
        results = [_one(segmenter, settings, cases[0], output, preview, report, stats is not None or json_, verbose)]
    else:
        part = parts_of(num_parts, part_id)
        for path in (stats, preview and preview / "preview.png", report and report / "report.html"):
            if path is not None:
                check_place(path)
        cohort = Cohort(
            segmenter,
            settings,
            output,
            preview,
            report,
            "overwrite" if overwrite else "skip" if skip_existing else "refuse",
            status_name(*part),
            with_stats=stats is not None,
        )
        results = _many(cohort, cases, part, statuses, quiet, verbose)
    failed = sum(status.status == FAILED for status in statuses)
    if stats is not None:
        _write_stats(stats, results, single)
    empty = [result.name for result in results if result.empty]
    if single:
        _show_result(results[0], json_)
    else:
        _show_cohort(statuses, output, json_)
    if failed:
        raise CohortError(f"{failed} of {len(statuses)} patients failed; see the reasons above and in {output}.")
    if fail_on_empty and empty:
        raise CohortError(f"no tumour was found in {', '.join(empty)} (--fail-on-empty).")


def _named_images(pairs: Sequence[str]) -> dict[str, Path | None]:
    images: dict[str, Path | None] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--image {pair}: expected NAME=FILE.")
        images[name.lower()] = Path(path)
    return images


def _modalities(weights: str | None) -> tuple[str, ...]:
    """Return the modalities that the weights know, from their header."""
    from a2fseg_cli.weights.cache import resolve_weights
    from a2fseg_cli.weights.file_format import inspect_weights

    return inspect_weights(resolve_weights(weights)).config.modalities


def _is_image_name(path: Path) -> bool:
    from a2fseg_cli.imaging.discovery import EXTENSIONS

    return path.name.lower().endswith(EXTENSIONS) and not os.path.isdir(path)


def _refuse_to_overwrite(
    segmenter: Segmenter, settings: Settings, case: Case, output: Path, beside: Sequence[Path], overwrite: bool
) -> None:
    from a2fseg_cli.prediction.results import planned_outputs

    planned = [*planned_outputs(output, segmenter.config, case.images, settings), *beside]
    for path in planned:
        check_place(path)
    inputs = {path.resolve() for path in case.images.values()}
    if clash := [path for path in planned if path.resolve() in inputs]:
        raise UsageError(f"{clash[0]} is one of the images, which are never written over. Give another name.")
    existing = [path for path in planned if os.path.exists(path)]  # false where writing will say why not
    if existing and not overwrite:
        raise UsageError(f"{existing[0]} exists. Give --overwrite or another name.")


def _one(
    segmenter: Segmenter,
    settings: Settings,
    case: Case,
    output: Path,
    preview: Path | None,
    report: Path | None,
    with_stats: bool,
    verbose: bool,
) -> Result:
    from a2fseg_cli.prediction.patient import load_patient, segment_patient
    from a2fseg_cli.prediction.results import finish_patient

    patient = load_patient(case.name, case.images, segmenter.config, settings, case.warnings)
    found = segment_patient(patient, segmenter, settings, report is not None)
    result = finish_patient(patient, found, segmenter, settings, output, preview, report, with_stats)
    if verbose:
        plan = found.segmentation.plan
        spacing = " x ".join(f"{mm:g}" for mm in segmenter.config.spacing_mm)
        say(f"{len(plan.starts)} window(s) of {plan.window} over {plan.shape} voxels of {spacing} mm")
        say(_timings(result))
    return result


def _timings(result: Result) -> str:
    return ", ".join(f"{step} {value:.2f} s" for step, value in result.seconds.items())


def _many(
    cohort: Cohort, cases: Sequence[Case], part: tuple[int, int], statuses: list[Status], quiet: bool, verbose: bool
) -> list[Result]:
    """Segment this process's part of the cases; append what became of each to `statuses`."""
    from a2fseg_cli.prediction.cohort import FAILED, share

    chosen = share(cases, *part)
    with progress("patients", len(chosen), quiet) as advance:

        def report(status: Status, result: Result | None) -> None:
            statuses.append(status)
            line = f"{status.case} {status.modalities} {status.status}"
            line += (f": {status.reason}" if status.reason else "") + f" ({status.seconds:.1f} s)"
            if result is not None:
                more = [*result.warnings, *([_timings(result)] if verbose else [])]
                line += "".join(f"\n    {text}" for text in more)
            advance(line)
            if quiet and (status.status == FAILED or (result is not None and result.warnings)):
                say(line)

        return cohort.run(chosen, report)


def _show_result(result: Result, json_: bool) -> None:
    from a2fseg_cli.prediction.sensitivity import agreement_rows

    for warning in result.warnings:
        say(f"Warning: {warning}")
    if result.note:
        say(f"Note: {result.note}")
    if json_:
        print_json(result.stats)
        return
    print_table(
        ("label", "name", "voxels", "mL"),
        [("" if row.label is None else row.label, row.name, row.voxels, f"{row.volume_ml:.2f}") for row in result.rows],
        title=f"{result.segmentation} ({result.modalities})",
    )
    if result.agreement:
        regions = list(result.volumes_ml)
        print_table(
            ("from only", *(f"{region} Dice %" for region in regions)),
            agreement_rows(result.agreement, regions),
            title="Agreement of fewer modalities with this result (no truth involved)",
        )


def _show_cohort(statuses: Sequence[Status], folder: Path, json_: bool) -> None:
    counts = {kind: sum(status.status == kind for status in statuses) for kind in ("ok", "skipped", "failed")}
    if json_:
        print_json({"folder": str(folder), **counts, "patients": [vars(status) for status in statuses]})
        return
    regions = [region for region, _ in ModelConfig().regions]
    names = next((list(status.volumes_ml) for status in statuses if status.volumes_ml), regions)
    print_table(
        ("case", "modalities", "status", *(f"{name} mL" for name in names), "s"),
        [
            (
                s.case,
                s.modalities,
                s.status,
                *(f"{(s.volumes_ml or {}).get(n, float('nan')):.1f}" for n in names),
                s.seconds,
            )
            for s in sorted(statuses, key=lambda status: status.case)
        ],
        title=", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" in {folder}",
    )


def _write_stats(path: Path, results: Sequence[Result], single: bool) -> None:
    if path.suffix == ".json":
        stats = [result.stats for result in results]
        atomic_write_text(path, json_text(stats[0] if single else stats))
        return
    text = io.StringIO(newline="")
    rows = [_flat(result) for result in results]
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(path, text.getvalue())


def _flat(result: Result) -> dict[str, object]:
    stats = result.stats
    volumes = {f"{region}_ml": round(volume, 3) for region, volume in result.volumes_ml.items()}
    row: dict[str, object] = {"case": result.name, "modalities": result.modalities, **volumes}
    return row | {
        "seconds": round(sum(stats["seconds"].values()), 2),
        "device": stats["device"]["name"],
        "precision": stats["device"]["precision"],
        "weights_sha256": stats["weights"]["sha256"],
        "a2fseg": stats["versions"]["a2fseg"],
        "warnings": "; ".join(result.warnings),
    }
