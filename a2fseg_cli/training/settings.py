"""The network and the recipe of a training from a preset and what was given instead. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypedDict

from a2fseg_cli.core.config import PRESETS, ModelConfig
from a2fseg_cli.core.presets import NETWORKS, preset_config
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.recipe import RECIPES, RECIPES_OF_PAPERS, Recipe


class Fields(TypedDict, total=False):
    """What may be given instead of the preset's values; None, or left out: the preset's.

    `network` is one of `core.presets.NETWORKS`, whose preset it then is; `ablation` parts of a2fseg to leave out,
    `sub_voxels` the edge of its blocks.
    `labels` are the classes beside the background with their voxel values, `regions` the unions of classes that are
    scored (each class, where only `labels` are given). One number for `spacing_mm` or `patch_size` stands for all
    three axes. The others are the fields of `ModelConfig` and of `Recipe`, and are explained there.
    """

    network: str | None
    ablation: Sequence[str] | None
    sub_voxels: int | None
    modalities: Sequence[str] | None
    labels: Mapping[str, int] | None
    regions: Mapping[str, Sequence[str]] | None
    features_per_stage: Sequence[int] | None
    spacing_mm: float | Sequence[float] | None
    patch_size: int | Sequence[int] | None
    optimizer: str | None
    learning_rate: float | None
    weight_decay: float | None
    epochs: int | None
    iterations_per_epoch: int | None
    batch_size: int | None
    random_subsets: int | None
    foreground_share: float | None
    foreground_weight: float | None
    dice_over: str | None
    draw: str | None
    augment: bool | None
    mix_share: float | None
    scanner_share: float | None
    gradient_clip: float | None
    ema_decay: float | None
    seed: int | None
    time_budget_s: float | None


def network_and_recipe(preset: str, given: Mapping[str, Any]) -> tuple[ModelConfig, Recipe]:
    """Return what to train and how: the preset's values, with those of `Fields` that were given in their place.

    Raises:
        UsageError: an unknown preset or field, a value that is not acceptable, or one that would be ignored.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset}: expected {', '.join(PRESETS)}.")
    if unknown := sorted(set(given) - set(Fields.__annotations__)):
        raise UsageError(
            f"{unknown[0]}: no setting of a training. Expected some of {', '.join(Fields.__annotations__)}."
        )
    chosen = {name: value for name, value in given.items() if value is not None}
    network = chosen.pop("network", None)
    if network is not None and network not in NETWORKS:
        raise UsageError(f"network {network}: expected {', '.join(NETWORKS)}.")
    of_recipe = {field.name for field in fields(Recipe)}
    values = RECIPES[preset] | (RECIPES_OF_PAPERS.get(network, {}) if preset == "paper" else {})
    try:
        recipe = Recipe(**values | {name: value for name, value in chosen.items() if name in of_recipe})
        of_network = {name: value for name, value in chosen.items() if name not in of_recipe}
        config = replace(preset_config(preset, network), **_network_fields(of_network))
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    _check_all_used(chosen, recipe)
    return config, recipe


def _network_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of the configuration, as tuples."""
    network = {name: value for name, value in given.items() if name not in ("labels", "regions")}
    for name in ("spacing_mm", "patch_size"):
        if isinstance(network.get(name), int | float):
            network[name] = (network[name],) * 3
    for name in ("ablation", "modalities", "features_per_stage", "spacing_mm", "patch_size"):
        if name in network:
            network[name] = tuple(network[name])
    if (labels := given.get("labels")) is not None:
        network["classes"] = ("background", *labels)
        network["label_values"] = (0, *labels.values())
        network["regions"] = tuple((name, (name,)) for name in labels)
    if (regions := given.get("regions")) is not None:
        network["regions"] = tuple((name, tuple(members)) for name, members in regions.items())
    return network


def _check_all_used(chosen: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse what was given and would change nothing. Raises: UsageError."""
    if "weight_decay" in chosen and recipe.optimizer == "adam":
        raise UsageError("weight_decay is for adamw and muon; the optimizer is adam.")
    if "epochs" in chosen and recipe.time_budget_s:
        raise UsageError("epochs and time_budget_s: a training ends by one of them; give one.")
