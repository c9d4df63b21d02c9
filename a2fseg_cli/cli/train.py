"""`a2fseg train`: the paper's recipe, or a preset for a CPU, in a run folder that can be resumed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from a2fseg_cli.cli.console import say
from a2fseg_cli.cli.options import PATH, Device, Precision, Quiet, Scheduler, Threads
from a2fseg_cli.cli.runtime import prepare_process, three, three_numbers
from a2fseg_cli.cli.training_screen import TrainingScreen
from a2fseg_cli.cli.workers import crew_of
from a2fseg_cli.errors import UsageError

if TYPE_CHECKING:
    from a2fseg_cli.training.settings import Fields

RECIPE, NETWORK = "Recipe", "Network"


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folders with one sub-folder per patient, or CSV tables; the expert's masks beside the images.",
            **PATH,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Run folder.", **PATH)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    split: Annotated[
        Path | None,
        typer.Option(help="JSON with train, validation, test (default: 70/10/20 by --seed)", metavar="FILE", **PATH),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Cross-validation: keep fold K of N (from 0) aside as test, e.g. 0/5; the same --seed for all of them",
            metavar="K/N",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="paper, small or tiny", rich_help_panel=NETWORK)] = "paper",
    network: Annotated[
        str | None,
        typer.Option(help="a2fseg (default), hemis, uhved, robustseg, rfnet, mmformer or mfi", rich_help_panel=NETWORK),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            help="Parts of a2fseg to leave out: average-only, no-context, no-modality-heads", rich_help_panel=NETWORK
        ),
    ] = None,
    sub_voxels: Annotated[
        int | None,
        typer.Option(
            help="a2fseg reads and writes blocks of so many voxels an edge as one, e.g. 2 (default: 1)",
            rich_help_panel=NETWORK,
        ),
    ] = None,
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
        str | None, typer.Option(help="Channels per stage, e.g. 8,16,32,64,96", rich_help_panel=NETWORK)
    ] = None,
    init_weights: Annotated[
        str | None,
        typer.Option(help="Start from these weights, a name or a file", metavar="NAME|FILE", rich_help_panel=NETWORK),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Train and validate no longer than this, e.g. 2h; the schedule follows", rich_help_panel=RECIPE
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs (this and what follows: default is the preset's)", rich_help_panel=RECIPE)
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps per epoch", rich_help_panel=RECIPE)] = None,
    patch_size: Annotated[
        str | None, typer.Option(help="Size of a crop in voxels, e.g. 96 or 96,112,96", rich_help_panel=RECIPE)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops per step", rich_help_panel=RECIPE)] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or muon", rich_help_panel=RECIPE)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate at the start", rich_help_panel=RECIPE)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay of adamw and muon", rich_help_panel=RECIPE)
    ] = None,
    random_subsets: Annotated[
        int | None,
        typer.Option(help="Random subsets of sequences per step, beside the full set", rich_help_panel=RECIPE),
    ] = None,
    foreground_share: Annotated[
        float | None, typer.Option(help="Share of crops centred on tumour", rich_help_panel=RECIPE)
    ] = None,
    foreground_weight: Annotated[
        float | None, typer.Option(help="Weight of a tumour voxel in the cross-entropy", rich_help_panel=RECIPE)
    ] = None,
    dice_over: Annotated[
        str | None, typer.Option(help="classes or regions: what the Dice loss is computed over", rich_help_panel=RECIPE)
    ] = None,
    draw: Annotated[
        str | None,
        typer.Option(
            help="How often patients of each set of sequences are drawn: case, kind, or shares: flair=1,t1+flair=2",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="Random changes of the crops", rich_help_panel=RECIPE)
    ] = None,
    mix_share: Annotated[
        float | None, typer.Option(help="Share of crops that get another patient's tumour", rich_help_panel=RECIPE)
    ] = None,
    scanner_share: Annotated[
        float | None, typer.Option(help="Share of crops changed as if from other scanners", rich_help_panel=RECIPE)
    ] = None,
    gradient_clip: Annotated[float | None, typer.Option(help="Largest gradient norm", rich_help_panel=RECIPE)] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Decay of the running mean of the weights", rich_help_panel=RECIPE)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice", rich_help_panel=RECIPE)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the weights (default: preset and run folder)")] = None,
    licence: Annotated[
        str, typer.Option(help="Licence of the weights, for their card and manifest entry")
    ] = "not stated",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Where preprocessed patients are kept (default: in the run folder)", metavar="FOLDER", **PATH
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that prepare crops in advance (default: 0 on a CPU, 4 on a GPU)")
    ] = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Train a network on your patients; `best.safetensors` is what `predict --weights` takes.

    Beside it lie its sha256 and weights_manifest.json: put the three on any static server to share the weights.
    """
    fields: Fields = {
        "network": network,
        "ablation": ablation.split(",") if ablation else None,
        "sub_voxels": sub_voxels,
        "modalities": modalities.split(",") if modalities else None,
        "labels": _labels(labels),
        "regions": _regions(regions),
        "features_per_stage": _widths(features),
        "spacing_mm": three_numbers(spacing, "--spacing"),
        "patch_size": three(patch_size, "--patch-size"),
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
        "scanner_share": scanner_share,
        "gradient_clip": gradient_clip,
        "ema_decay": ema_decay,
        "seed": seed,
        "time_budget_s": _seconds(time_budget),
    }
    prepare_process(threads, autotune=True)
    from a2fseg_cli.training.train import train as train_network

    with crew_of(scheduler, threads) as crew, TrainingScreen(quiet) as screen:
        result = train_network(
            data, output, preset=preset, split=split, fold=_fold(fold), resume=resume, init_weights=init_weights,
            device=device, precision=precision, cache=cache, workers=workers, name=name, licence=licence,
            crew=crew, listener=screen.listener(), **fields,
        )  # fmt: skip
    if not result.first:
        return
    if result.score is None:
        say(f"no validation patients to choose the best weights by; the last: {result.weights}", quiet)
    else:
        say(f"best mean Dice on validation {result.score:.4f}: {result.weights}", quiet)


def _fold(text: str | None) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip()) if text is not None else None
    if text is not None and match is None:
        raise UsageError(f"--fold {text}: expected K/N, such as 0/5.")
    return (int(match[1]), int(match[2])) if match else None


def _labels(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    try:
        pairs = [(name.strip(), int(value)) for name, value in (item.split("=") for item in text.split(","))]
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a class is named twice")
    except ValueError as error:
        raise UsageError(f"--labels {text}: expected name=value, ..., e.g. core=1,oedema=2.") from error
    return dict(pairs)


def _regions(text: str | None) -> dict[str, list[str]] | None:
    if text is None:
        return None
    pairs = [item.split("=") for item in text.split(",")]
    if any(len(pair) != 2 for pair in pairs) or len({pair[0].strip() for pair in pairs}) < len(pairs):
        raise UsageError(f"--regions {text}: expected name=class+class, ..., e.g. all=core+oedema.")
    return {name.strip(): members.split("+") for name, members in pairs}


def _widths(text: str | None) -> list[int] | None:
    try:
        return [int(width) for width in text.split(",")] if text is not None else None
    except ValueError as error:
        raise UsageError(f"--features {text}: expected channels per stage, e.g. 8,16,32,64,96.") from error


def _seconds(text: str | None) -> float | None:
    """Return the seconds of `90m`, `2h`, `1h30m` or `45s`."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if not 0 < seconds < math.inf:
        raise UsageError(f"--time-budget {text}: expected a time such as 2h, 90m or 1h30m.")
    return float(seconds)
