"""A run folder: resolved configuration, split, preprocessed patients, then the loop."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.case_lists import Split, read_split
from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write_text, remove_abandoned
from a2fseg_cli.training.data import load_samples
from a2fseg_cli.training.initial import Initial
from a2fseg_cli.training.loop import CHECKPOINT, Trainer, read_checkpoint
from a2fseg_cli.training.processes import Processes
from a2fseg_cli.training.recipe import Recipe

SPLIT = "split.json"


def parse_duration_s(text: str) -> float:
    """Return the seconds of `90m`, `2h`, `1h30m` or `45s`. Raises: UsageError."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if not 0 < seconds < math.inf:
        raise UsageError(f"--time-budget {text}: expected a time such as 2h, 90m or 1h30m.")
    return seconds


def random_split(names: Sequence[str], seed: int) -> Split:
    """Return 70 % of the cases for training, 10 % for validation, 20 % for testing (the paper's shares)."""
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = [sorted(names)[index] for index in order]
    validation, test = round(0.1 * len(names)), round(0.2 * len(names))
    return {
        "train": sorted(shuffled[validation + test :]),
        "validation": sorted(shuffled[:validation]),
        "test": sorted(shuffled[validation : validation + test]),
    }


def start_run(
    cases: Sequence[Case],
    split: Split,
    config: ModelConfig,
    recipe: Recipe,
    folder: Path,
    compute: Compute,
    resume: bool,
    initial: Initial | None,
    card: dict[str, str],
    report: Callable[[str, int, int], None],
    cache: Path | None = None,
    processes: Processes | None = None,
    workers: int = 0,
) -> Trainer:
    """Return a trainer at the start of a run, or where its last checkpoint left it.

    Writes `config.json` and `split.json`, and preprocesses the patients.

    Args:
        cases: All patients found.
        split: Case names by part; only those of `train` and `validation` are read.
        config: The network.
        recipe: How to train.
        folder: The run folder.
        compute: Device and precision.
        resume: Go on from `last.ckpt`.
        initial: What to start from.
        card: What the weights' card says beside the split, the recipe, hours and scores.
        report: Told (case, number preprocessed, number of all).
        cache: Where preprocessed patients lie; runs may share it. In the run folder by default.
        processes: Those that train together; they share the run folder.
        workers: Threads that draw crops ahead.

    Raises:
        UsageError: the folder holds a run already, or resuming with other settings.
        WeightsError: there is no checkpoint to resume from, or a damaged one.
        InputError: no patients to train on, a case of the split that was not found, or one that cannot be read.
    """
    settings = {
        "model": json.loads(config.to_json()),
        "recipe": recipe.to_dict(),
        "initial_weights_sha256": initial.provenance["sha256"] if initial else None,
    }
    text = json.dumps(settings, indent=1)
    if (folder / CHECKPOINT).exists() and not resume:
        raise UsageError(f"{folder} holds a run already. Give --resume, or another -o.")
    if resume and (folder / "config.json").is_file() and (folder / "config.json").read_text() != text:
        raise UsageError(f"{folder}/config.json differs from these options; resume with those the run began with.")
    if resume:
        read_checkpoint(folder, config)
        if (folder / SPLIT).is_file() and read_split(folder / SPLIT) != split:
            raise UsageError(f"{folder / SPLIT} differs from this split; resume with the patients the run began with.")
    if not split.get("train"):
        raise InputError("The split has no patients to train on: expected a list `train`.")
    by_name = {case.name: case for case in cases}
    missing = [name for part in ("train", "validation") for name in split.get(part, []) if name not in by_name]
    if missing:
        raise InputError(f"{missing[0]}: named in the split but not found ({len(missing)} such cases).")
    broken = [by_name[n].problem for part in ("train", "validation") for n in split.get(part, []) if by_name[n].problem]
    if broken:
        raise InputError(str(broken[0]))
    together = processes or Processes()
    chosen = [by_name[name] for part in ("train", "validation") for name in split.get(part, [])]
    cache = cache or folder / "cache"
    if together.size > 1:  # each preprocesses its share into the folder, then all find everything there
        load_samples(together.share(chosen), config, cache, report)
        together.wait()
    samples = load_samples(chosen, config, cache, report if together.size == 1 else lambda *_: None)
    if together.rank == 0:
        for place in (folder, cache):
            remove_abandoned(place)
        atomic_write_text(folder / "config.json", text)
        atomic_write_text(folder / SPLIT, json.dumps(split, indent=1))
    count = len(split["train"])
    told = {**card, "data": split} | ({"initial": initial.provenance} if initial else {})
    trainer = Trainer(
        config,
        recipe,
        samples[:count],
        samples[count:],
        folder,
        compute,
        told,
        initial.tensors if initial else None,
        together,
        workers,
    )
    if resume:
        trainer.resume()
    return trainer
