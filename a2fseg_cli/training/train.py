"""Train a network on patients with a truth: one call from folders to weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import Split
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.core.device import Compute, choose_compute
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.crops import draw_weights
from a2fseg_cli.training.data import Sample, load_samples
from a2fseg_cli.training.data_by_workers import cache_by_workers
from a2fseg_cli.training.initial import initial_weights
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.patients import choose_patients
from a2fseg_cli.training.processes import Processes, device_of_process, join_processes, restarted
from a2fseg_cli.training.run_folder import BEST, LAST, RunFolder, settings_text
from a2fseg_cli.training.settings import Fields, network_and_recipe
from a2fseg_cli.weights.cache import resolve_weights
from a2fseg_cli.weights.manifest import check_words
from a2fseg_cli.weights.registry import check_own_name

_GPU_WORKERS = 4  # a step is then faster than the drawing of its crops


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        number: From 1.
        step: Steps done in all.
        loss: Mean of its steps.
        learning_rate: Of the next step.
        hours: Trained and validated in all.
        done: Share of the training that is done, 0 to 1.
        score: Mean Dice on validation, 0 to 1; None where it was not validated.
        dice: Region to mean Dice on validation from all modalities.
    """

    number: int
    step: int
    loss: float
    learning_rate: float
    hours: float
    done: float
    score: float | None
    dice: Mapping[str, float]


def _nothing(*_: Any) -> None:
    """Take what is told, and do nothing."""


@dataclass(frozen=True)
class Listener:
    """Who is told how a training goes; of several processes only the first tells.

    Attributes:
        note: Told where it trains, on whom, and what it starts from, a line each.
        warn: Told each warning.
        preprocessed: Told (case, number of cases done, number of all).
        stepped: Told the share of the training that is done, after each step.
        report: Told each epoch.
    """

    note: Callable[[str], None] = _nothing
    warn: Callable[[str], None] = _nothing
    preprocessed: Callable[[str, int, int], None] = _nothing
    stepped: Callable[[float], None] = _nothing
    report: Callable[[Epoch], None] = _nothing


@dataclass(frozen=True)
class TrainingResult:
    """What a training made.

    Attributes:
        weights: The best by validation, or the last where there are no patients to validate with.
        score: Mean Dice on validation of those, over regions, subsets and patients; None without validation.
        steps: Done in all.
        hours: Trained and validated in all.
        split: Case names by part.
        warnings: What the user should know of the patients.
        first: Whether this process wrote the files; of several that train together one does.
    """

    weights: Path
    score: float | None
    steps: int
    hours: float
    split: Split
    warnings: tuple[str, ...] = field(default=())
    first: bool = True


def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    preset: str = "paper",
    split: str | Path | None = None,
    fold: tuple[int, int] | None = None,
    resume: bool = False,
    init_weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache: str | Path | None = None,
    workers: int | None = None,
    name: str | None = None,
    licence: str = "not stated",
    crew: Crew | None = None,
    listener: Listener | None = None,
    **fields: Unpack[Fields],
) -> TrainingResult:
    """Train a network and return where its weights are; the run folder can be resumed after a kill.

    Args:
        data: One or several folders with a patient a sub-folder, or CSV tables; the truth lies beside the images.
        output: The run folder.
        preset: Values that are not given: paper, small or tiny.
        split: JSON with lists of case names: train, validation, test. By default what the run began with, or
            70, 10 and 20 % drawn by the seed.
        fold: (K, N) in place of `split`: cross-validation, fold K of N (from 0) is kept aside as `test`.
        resume: Go on from the run folder's last checkpoint; processes that torchrun starts again do so by themselves.
        init_weights: Weights to start from, a name or a file.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.
        cache: Where preprocessed patients lie; runs may share it. In the run folder by default.
        workers: Threads that draw crops before they are needed; by default 0 on a CPU, 4 on a GPU.
        name: Of the weights; by default of the preset and the run folder, such as `tiny-first`.
        licence: Of the weights.
        crew: Workers that share the preprocessing of the patients (`connected`).
        listener: Told how it goes.
        **fields: Of the network and the recipe, see `Fields`.

    Raises:
        UsageError: options that are not acceptable, contradict each other or would be ignored; the folder holds a
            run already, or resuming with other settings.
        InputError: no patients to train on, or one that cannot be read.
        WeightsError: weights or a checkpoint to start from that are not acceptable.
        ResourceError: the device is not there; memory or disk ran out.
        DivergenceError: the loss is no longer a number.
    """
    config, recipe = network_and_recipe(preset, fields)
    if fold is not None and split is not None:
        raise UsageError("fold and split both say who is trained on. Keep one.")
    card = _card(name or own_name(preset, Path(output)), licence)
    processes = join_processes()
    told = (listener if processes.rank == 0 else None) or Listener()
    compute = _compute(device, precision)
    threads = _workers(workers, compute)
    folder = RunFolder(Path(output), processes.rank == 0)
    resume = folder.has_checkpoint if restarted() else resume
    given = Path(split) if split is not None else folder.split if resume and fold is None else None
    places = _paths(data) if crew is None else [path.absolute() for path in _paths(data)]
    patients = choose_patients(places, config.modalities, given, recipe.seed, fold)
    for warning in patients.warnings:
        told.warn(warning)
    told.note(_where(compute, processes, patients.split))
    draw_weights([_present(case, config) for case in patients.train], config, recipe)  # refused before it takes time
    initial = initial_weights(resolve_weights(init_weights), config) if init_weights is not None else None
    if initial:
        told.note(initial.note)
    settings = settings_text(config, recipe, initial)
    folder.check(settings, patients.split, config, resume)
    place = Path(cache) if cache is not None else folder.path / "cache"
    place = place if crew is None else place.absolute()  # workers have working folders of their own
    samples = _samples([*patients.train, *patients.validation], config, place, processes, told, crew)
    folder.begin(settings, patients.split, place)
    parts = samples[: len(patients.train)], samples[len(patients.train) :]
    origin = {"data": patients.split} | ({"initial": initial.provenance} if initial else {})
    values = initial.tensors if initial else {}
    trainer = Trainer(Setup(config, recipe, *parts, folder, compute, card | origin, values, processes, threads))
    if resume:
        trainer.resume()
    of_images = [_named(sample.name, warning) for sample in samples for warning in sample.warnings]
    for warning in of_images:
        told.warn(warning)
    trainer.run(lambda row: told.report(_epoch(row, trainer.progress, config)), told.stepped)
    return _result(trainer, preset, patients.split, (*patients.warnings, *of_images))


def own_name(preset: str, folder: Path) -> str:
    """Return the name of weights that were given none: the preset and the run folder, such as `tiny-first`."""
    return f"{preset}-{re.sub('[^A-Za-z0-9]+', '-', folder.resolve().name).strip('-') or 'run'}"


def _card(name: str, licence: str) -> dict[str, Any]:
    try:
        check_words(name, licence)
        check_own_name(name)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    return {"name": name, "licence": licence}


def _compute(device: str, precision: str) -> Compute:
    """Return where to train. fp16 is not for it: gradients would need scaling, which the loop does not do."""
    if precision == "fp16":
        raise UsageError("precision fp16: training runs in bf16 or fp32.")
    mine = device_of_process(device)
    compute = choose_compute(mine, precision)
    return choose_compute(mine, "fp32") if compute.precision == "fp16" else compute


def _workers(workers: int | None, compute: Compute) -> int:
    if workers is None:
        return 0 if compute.device.type == "cpu" else _GPU_WORKERS
    if workers < 0:
        raise UsageError(f"workers {workers}: expected 0 or more.")
    return workers


def _paths(data: str | Path | Sequence[str | Path]) -> list[Path]:
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(path) for path in data]
    if not paths:
        raise UsageError("data: no folder. Expected at least one with patients.")
    return paths


def _named(case: str, warning: str) -> str:
    """Return a warning with its patient's name before it, once."""
    return warning if warning.startswith(f"{case}: ") else f"{case}: {warning}"


def _present(case: Case, config: ModelConfig) -> tuple[bool, ...]:
    return tuple(modality in case.images for modality in config.modalities)


def _where(compute: Compute, processes: Processes, split: Split) -> str:
    together = f", {processes.size} processes" if processes.size > 1 else ""
    sizes = ", ".join(f"{len(names)} {part}" for part, names in split.items())
    return f"{compute.device} ({compute.reason}), {compute.precision}{together}; {sizes}"


def _samples(
    cases: Sequence[Case],
    config: ModelConfig,
    cache: Path,
    processes: Processes,
    told: Listener,
    crew: Crew | None = None,
) -> list[Sample]:
    """Return the patients, preprocessed; workers, or each process, do their share of those not in the cache."""
    if crew is not None:
        if processes.rank == 0:
            cache_by_workers(crew, cases, config, cache, told.preprocessed)
            crew.end()  # processes of this machine would keep memory that the training can use
        if processes.size > 1:
            processes.wait()
        return load_samples(cases, config, cache, _nothing)
    if processes.size > 1:
        load_samples(processes.share(cases), config, cache, told.preprocessed)
        processes.wait()
    return load_samples(cases, config, cache, told.preprocessed if processes.size == 1 else _nothing)


def _epoch(row: Mapping[str, float], done: float, config: ModelConfig) -> Epoch:
    full = subset_name(config.modalities, config.modalities)
    dice = {region: row[f"{region} {full}"] for region, _ in config.regions if f"{region} {full}" in row}
    counts = int(row["epoch"]), int(row["step"])
    return Epoch(*counts, row["loss"], row["learning_rate"], row["hours"], done, row.get("score"), dice)


def _result(trainer: Trainer, preset: str, split: Split, warnings: tuple[str, ...]) -> TrainingResult:
    """Write the manifest of the weights, and return what the training made."""
    setup, state = trainer.setup, trainer.state
    validated = bool(setup.validation)
    weights = setup.folder.path / (BEST if validated else LAST)
    description = f"{setup.config.architecture} trained on {len(setup.train)} patients, {state.step} steps"
    setup.folder.write_manifest(weights, setup.card, preset, description)
    return TrainingResult(
        weights,
        state.best_score if validated else None,
        state.step,
        state.elapsed_s / 3600,
        split,
        warnings,
        setup.folder.writes,
    )
