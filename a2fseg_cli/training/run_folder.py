"""The files of a run: settings, split, checkpoint, table and curves of its epochs, and the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from a2fseg_cli.cases.case_lists import Split, read_split
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError, WeightsError
from a2fseg_cli.files import atomic_write_text, csv_text, parse_json, remove_abandoned
from a2fseg_cli.reporting.charts import write_learning_curves
from a2fseg_cli.training.checkpoint import load_checkpoint, save_checkpoint
from a2fseg_cli.training.initial import Initial
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.training.state import State
from a2fseg_cli.weights.file_format import save_weights
from a2fseg_cli.weights.folders import MANIFEST_NAME
from a2fseg_cli.weights.manifest import manifest_entry_for, write_manifest

BEST, LAST = "best.safetensors", "last.safetensors"
CHECKPOINT, SETTINGS, SPLIT, METRICS, CURVES = "last.ckpt", "config.json", "split.json", "metrics.csv", "curves.png"


def settings_text(config: ModelConfig, recipe: Recipe, initial: Initial | None) -> str:
    """Return what `config.json` holds: all that the weights follow from, beside the patients."""
    settings = {
        "model": json.loads(config.to_json()),
        "recipe": recipe.to_dict(),
        "initial_weights_sha256": initial.provenance["sha256"] if initial else None,
    }
    return json.dumps(settings, indent=1)


def _differences(begun: str, settings: str) -> str:
    """Return which settings differ, with their values, as the end of a message; nothing where that cannot be told."""
    try:
        before, now = (_flat(parse_json(text)) for text in (begun, settings))
    except ValueError:
        return ""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    texts = [f"{name} was {json.dumps(before.get(name))}, is {json.dumps(now.get(name))}" for name in names]
    return f" {'; '.join(texts)}." if texts else ""


def _flat(settings: Any) -> dict[str, Any]:
    """Return the fields of the network and the recipe beside those that are neither."""
    if not isinstance(settings, dict):
        raise ValueError("no settings of a run")
    parts = [value if isinstance(value, dict) else {name: value} for name, value in settings.items()]
    return {name: value for part in parts for name, value in part.items()}


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder, made when the first file is written.
        writes: Whether this process writes; of several that train together only the first does.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @property
    def split(self) -> Path | None:
        """The file of the split that the run began with; None where there is no run."""
        return self.path / SPLIT if (self.path / SPLIT).is_file() else None

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to resume from."""
        return (self.path / CHECKPOINT).exists()

    def check(self, settings: str, split: Split, config: ModelConfig, resume: bool) -> None:
        """Return if a run may start here, or go on with these settings and patients.

        Raises:
            UsageError: the folder holds a run already, or resuming with other settings or patients.
            WeightsError: there is no checkpoint to resume from, or a damaged one.
        """
        if not resume:
            if self.has_checkpoint:
                raise UsageError(f"{self.path} holds a run already. Give resume, or another output folder.")
            return
        begun = self.path / SETTINGS
        if begun.is_file() and begun.read_text() != settings:
            which = _differences(begun.read_text(), settings)
            raise UsageError(f"{begun} differs from these options; resume with those the run began with.{which}")
        self.read_checkpoint(config)
        if self.split is not None and read_split(self.split) != split:
            raise UsageError(f"{self.split} differs from this split; resume with the patients the run began with.")

    def begin(self, settings: str, split: Split, cache: Path) -> None:
        """Write settings and split, and remove what killed writers left behind, also in the cache."""
        if not self.writes:
            return
        for place in (self.path, cache):
            remove_abandoned(place)
        atomic_write_text(self.path / SETTINGS, settings)
        atomic_write_text(self.path / SPLIT, json.dumps(split, indent=1))

    def read_checkpoint(self, config: ModelConfig) -> dict[str, Any]:
        """Return the last checkpoint. Raises: WeightsError, UsageError when it is of another network."""
        file = self.path / CHECKPOINT
        saved = load_checkpoint(file)
        if saved.keys() != {"config", "model", "optimizer", "mean", "state"}:
            raise WeightsError(f"{file}: not a checkpoint of this tool.")
        if saved["config"] != config.to_json():
            raise UsageError(f"{self.path}: the checkpoint is of another network; resume with the same options.")
        return saved

    def save_checkpoint(self, config: ModelConfig, tensors: Mapping[str, Any], state: State) -> None:
        """Write the checkpoint; the tensors are `model`, `optimizer` and `mean`. Raises: ResourceError."""
        if self.writes:
            saved = {"config": config.to_json(), **tensors, "state": state.to_dict()}
            save_checkpoint(self.path / CHECKPOINT, saved)

    def write_rows(self, rows: list[dict[str, float]]) -> None:
        """Write `metrics.csv` and `curves.png`. Raises: ResourceError."""
        if self.writes:
            atomic_write_text(self.path / METRICS, csv_text(rows))
            write_learning_curves(self.path / CURVES, rows)

    def write_weights(
        self, name: str, tensors: Mapping[str, Tensor], config: ModelConfig, card: Mapping[str, Any]
    ) -> None:
        """Write one file of weights with their card. Raises: ResourceError."""
        if self.writes:
            save_weights(self.path / name, tensors, config, dict(card))

    def write_manifest(self, weights: Path, card: Mapping[str, Any], preset: str, description: str) -> None:
        """Write the weights' sha256 and a manifest of them alone, to be put on a server. Raises: ResourceError."""
        if self.writes:
            words = {"name": card["name"], "licence": card["licence"], "description": description}
            entry = manifest_entry_for(weights, **words, preset=preset, default=True)
            write_manifest(self.path / MANIFEST_NAME, [entry])
