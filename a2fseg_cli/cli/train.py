"""`a2fseg train`: the paper's recipe, or a preset for a CPU, in a run folder that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from a2fseg_cli.cli.console import percentage, progress, say
from a2fseg_cli.cli.options import PATH, Device, Precision, Quiet, Threads
from a2fseg_cli.cli.runtime import prepare_process, three, three_numbers
from a2fseg_cli.core.config import PRESETS, ModelConfig, subset_name
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.training.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case

RECIPE, NETWORK = "Recipe", "Network"


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder with one patient a sub-folder, truth beside the images.", **PATH)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Run folder.", **PATH)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    split: Annotated[
        Path | None,
        typer.Option(help="JSON with train, validation, test (default: 70/10/20 by --seed)", metavar="FILE", **PATH),
    ] = None,
    preset: Annotated[str, typer.Option(help="paper, small or tiny", rich_help_panel=NETWORK)] = "paper",
    modalities: Annotated[
        str | None, typer.Option(help="Names, e.g. t1,flair (default: the four)", rich_help_panel=NETWORK)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Classes and their voxel values, e.g. core=1,oedema=2", rich_help_panel=NETWORK),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(help="Unions to score, e.g. all=core+oedema (default: each class)", rich_help_panel=NETWORK),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Working voxel in mm, e.g. 2 or 3,2,2 (z,y,x)", rich_help_panel=NETWORK)
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Channels a stage, e.g. 8,16,32,64,96", rich_help_panel=NETWORK)
    ] = None,
    init_weights: Annotated[
        Path | None, typer.Option(help="Start from these weights", metavar="FILE", rich_help_panel=NETWORK, **PATH)
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Train and validate no longer than this, e.g. 2h; the schedule follows", rich_help_panel=RECIPE
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="(default: the preset's)", rich_help_panel=RECIPE)] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps an epoch", rich_help_panel=RECIPE)] = None,
    patch_size: Annotated[str | None, typer.Option(help="Crop, e.g. 96 or 96,112,96", rich_help_panel=RECIPE)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops a step", rich_help_panel=RECIPE)] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or muon", rich_help_panel=RECIPE)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At the start", rich_help_panel=RECIPE)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of adamw and muon", rich_help_panel=RECIPE)] = None,
    random_subsets: Annotated[
        int | None, typer.Option(help="Random subsets a step, beside the full set", rich_help_panel=RECIPE)
    ] = None,
    foreground_share: Annotated[
        float | None, typer.Option(help="Share of crops centred on tumour", rich_help_panel=RECIPE)
    ] = None,
    foreground_weight: Annotated[
        float | None, typer.Option(help="Of a tumour voxel in the cross-entropy", rich_help_panel=RECIPE)
    ] = None,
    dice_over: Annotated[
        str | None, typer.Option(help="Dice loss over classes or regions", rich_help_panel=RECIPE)
    ] = None,
    draw: Annotated[
        str | None,
        typer.Option(
            help="How often patients with different sequences are drawn: case, kind, or shares as flair=1,t1+flair=2",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    augment: Annotated[bool | None, typer.Option("--augment/--no-augment", rich_help_panel=RECIPE)] = None,
    mix_share: Annotated[
        float | None, typer.Option(help="Share of crops that get another patient's tumour", rich_help_panel=RECIPE)
    ] = None,
    gradient_clip: Annotated[float | None, typer.Option(help="Largest gradient norm", rich_help_panel=RECIPE)] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Running mean of the weights", rich_help_panel=RECIPE)] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice", rich_help_panel=RECIPE)] = None,
    name: Annotated[str | None, typer.Option(help="Of the weights (default: the preset)")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, for their card and manifest entry")] = "not stated",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where preprocessed patients lie (default: in the run folder)", metavar="FOLDER", **PATH),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that draw crops ahead (default: 0 on a CPU, 4 on a GPU)")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a network on your patients; `best.safetensors` is what `predict --weights` takes.

    Beside it lie its sha256 and weights_manifest.json: put the three on any static server to share the weights.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: expected {', '.join(PRESETS)}.")
    given: dict[str, Any] = {
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "iterations_per_epoch": iterations,
        "batch_size": batch_size,
        "random_subsets": random_subsets,
        "foreground_share": foreground_share,
        "foreground_weight": foreground_weight,
        "dice_over": dice_over,
        "draw": draw,
        "augment": augment,
        "mix_share": mix_share,
        "gradient_clip": gradient_clip,
        "ema_decay": ema_decay,
        "seed": seed,
    }
    network: dict[str, Any] = {
        "modalities": tuple(modalities.split(",")) if modalities else None,
        **_classes(labels, regions),
        "patch_size": three(patch_size, "--patch-size"),
        "spacing_mm": three_numbers(spacing, "--spacing"),
        "features_per_stage": _widths(features),
    }
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: expected 0 or more.")
    from a2fseg_cli.weights.manifest import FILE_NAME, check_words, manifest_entry_for, write_manifest

    try:
        check_words(name or preset, licence)
        recipe = Recipe(**RECIPES[preset] | {name: value for name, value in given.items() if value is not None})
        config = replace(PRESETS[preset], **{name: value for name, value in network.items() if value is not None})
    except ValueError as error:
        raise UsageError(f"{error}.") from error

    prepare_process(threads, autotune=True)
    from a2fseg_cli.cases.case_lists import read_split
    from a2fseg_cli.cases.selection import select_cases
    from a2fseg_cli.core.device import choose_compute
    from a2fseg_cli.training.initial import initial_weights
    from a2fseg_cli.training.processes import device_of_process, join_processes
    from a2fseg_cli.training.run import SPLIT, parse_duration_s, random_split, start_run

    if time_budget is not None:
        recipe = replace(recipe, time_budget_s=parse_duration_s(time_budget))
    processes = join_processes()
    quiet = quiet or processes.rank > 0
    device = device_of_process(device)
    compute = choose_compute(device, precision)
    if compute.precision == "fp16":  # its gradients would need scaling, which the loop does not do
        if precision == "fp16":
            raise UsageError("--precision fp16: training runs in bf16 or fp32.")
        compute = choose_compute(device, "fp32")
    cases = select_cases(data, modalities=config.modalities, with_truth=True)
    with_truth = [case.name for case in cases if case.truth and not case.problem]
    if not with_truth:
        raise InputError(f"{data}: no patient has a segmentation beside its images (a file that ends in seg).")
    began_with = output / SPLIT if resume and (output / SPLIT).is_file() else None
    parts = read_split(file) if (file := split or began_with) else random_split(with_truth, recipe.seed)
    if not parts.get("train"):
        raise InputError(f"{split or data}: no patients to train on: expected a list `train` of names.")
    if processes.rank == 0:
        _warn(cases, parts)
    together = f", {processes.size} processes" if processes.size > 1 else ""
    say(f"{compute.device} ({compute.reason}), {compute.precision}{together}; " + _sizes(parts), quiet)
    initial = initial_weights(init_weights, config) if init_weights else None
    if initial:
        say(initial.note, quiet)
    if workers is None:
        workers = 0 if compute.device.type == "cpu" else 4
    count = sum(len(parts.get(part, [])) for part in ("train", "validation"))
    card = {"name": name or preset, "licence": licence}
    with progress("preprocessing", count, quiet) as advance:
        trainer = start_run(
            cases, parts, config, recipe, output, compute, resume, initial, card,
            lambda case, *_: advance(case), cache, processes, workers,
        )  # fmt: skip
    with percentage("training", quiet) as stepped:
        trainer.run(lambda row: say(_line(row, trainer.progress, config), quiet), stepped)
    if processes.rank:
        return
    if parts.get("validation"):
        best = output / "best.safetensors"
        say(f"best mean Dice on validation {trainer.state.best_score:.4f}: {best}", quiet)
    else:
        best = output / "last.safetensors"
        say(f"no validation patients to choose the best weights by; the last: {best}", quiet)
    description = f"A2FSeg trained on {len(parts['train'])} patients, {trainer.state.step} steps"
    entry = manifest_entry_for(
        best, name=card["name"], licence=licence, description=description, preset=preset, default=True
    )
    write_manifest(output / FILE_NAME, [entry])


def _warn(cases: Sequence[Case], parts: Mapping[str, Sequence[str]]) -> None:
    """Say what is left out, and what the names of those to be trained on leave open."""
    chosen = {name for part in ("train", "validation") for name in parts.get(part, ())}
    for case in cases:
        for warning in case.warnings if case.name in chosen else ():
            say(f"Warning: {warning}")
        if case.problem and case.name not in chosen:
            say(f"Warning: left out: {case.problem}")


def _classes(labels: str | None, regions: str | None) -> dict[str, Any]:
    """Return the fields of the configuration that `--labels` and `--regions` set."""
    fields: dict[str, Any] = {}
    if labels is not None:
        try:
            pairs = [(name.strip(), int(value)) for name, value in (item.split("=") for item in labels.split(","))]
            values = dict(pairs)
            if len(values) < len(pairs):
                raise ValueError("a class is named twice")
        except ValueError as error:
            raise UsageError(f"--labels {labels}: expected name=value, ..., e.g. core=1,oedema=2.") from error
        fields["classes"] = ("background", *values)
        fields["label_values"] = (0, *values.values())
        fields["regions"] = tuple((name, (name,)) for name in values)
    if regions is not None:
        parts = [item.split("=") for item in regions.split(",")]
        if any(len(part) != 2 for part in parts):
            raise UsageError(f"--regions {regions}: expected name=class+class, ..., e.g. all=core+oedema.")
        fields["regions"] = tuple((name.strip(), tuple(members.split("+"))) for name, members in parts)
    return fields


def _widths(text: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(int(width) for width in text.split(",")) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--features {text}: expected channels a stage, e.g. 8,16,32,64,96.") from error


def _sizes(parts: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(names)} {part}" for part, names in parts.items())


def _line(row: dict[str, float], done: float, config: ModelConfig) -> str:
    """Return an epoch in one line: loss, learning rate, time left, Dice of the regions from all modalities."""
    left_min = row["hours"] * 60 * (1 - done) / max(done, 1e-9)
    everything = subset_name(config.modalities, config.modalities)
    found = {region: row.get(f"{region} {everything}") for region, _ in config.regions}
    dice = " ".join(f"{region} {value:.3f}" for region, value in found.items() if value is not None)
    score = f"; validation {row['score']:.4f} (all modalities: {dice})" if "score" in row else ""
    return (
        f"epoch {row['epoch']:.0f} step {row['step']:.0f} loss {row['loss']:.3f} lr {row['learning_rate']:.2g} "
        f"{100 * done:.0f} %, {left_min:.0f} min left{score}"
    )
