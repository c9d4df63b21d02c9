"""`a2fseg info`: versions, devices, memory, cache, and what the weights were trained on and score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from a2fseg_cli.cli.console import print_json, print_table
from a2fseg_cli.cli.options import Json, Weights
from a2fseg_cli.cli.runtime import prepare_process
from a2fseg_cli.core.config import ModelConfig, all_subsets, subset_name
from a2fseg_cli.weights.card import DIRECTIONS, absent_below_ml, hours_in_all, interval_text, mirrored_axes, stages


def info(
    weights: Weights = None,
    json_: Json = False,
) -> None:
    """Show versions, devices, memory, where weights lie, and the card of the weights."""
    prepare_process()
    from a2fseg_cli.core.device import choose_compute, has_native_bf16
    from a2fseg_cli.core.memory import available_memory_bytes
    from a2fseg_cli.versions import versions
    from a2fseg_cli.weights.cache import resolve_weights
    from a2fseg_cli.weights.file_format import inspect_weights
    from a2fseg_cli.weights.folders import cache_folder

    compute = choose_compute()
    described = inspect_weights(resolve_weights(weights))
    config = described.config
    machine: dict[str, Any] = {
        **versions(),
        "device": f"{compute.device} ({compute.reason})",
        "precision": compute.precision,
        "native bf16 on the CPU": has_native_bf16(),
        "free memory GiB": round(available_memory_bytes(compute.device) / 2**30, 1),
        "weights cache": str(cache_folder()),
        "weights": str(described.path),
        "sha256": described.sha256,
        "network": f"{config.architecture} {', '.join(config.ablation)}".strip(),
        "modalities": ", ".join(config.modalities),
        "regions": ", ".join(f"{name} = {' + '.join(members)}" for name, members in config.regions),
        "features per stage": ", ".join(map(str, config.features_per_stage)),
        "trained on crops of": " x ".join(map(str, config.patch_size)),
        "working spacing mm": ", ".join(f"{mm:g}" for mm in config.spacing_mm),
        "reads blocks of": " x ".join(3 * [str(config.sub_voxels)]) + " voxels",
    }
    if json_:
        print_json(machine | {"card": dict(described.card)})
        return
    print_table(("", "a2fseg info"), machine.items())
    card = dict(described.card)
    scores = _mapping(card.pop("scores", None))
    if data := card.pop("data", {}):
        print_table(("patients", "names"), [(f"{len(v)} {k}", ", ".join(v)) for k, v in data.items()])
    told = [(key, value) for key, value in card.items() if not isinstance(value, dict | list)]
    print_table(("card", ""), [*told, *_what_predict_does(described.card, config)])
    print_table(("training", "spacing mm", "crop", "steps", "hours", "optimizer", "rate"), _stages(described.card))
    if scores:
        _show_scores(scores, config)


def _what_predict_does(card: Mapping[str, Any], config: ModelConfig) -> list[tuple[str, str]]:
    """Return what these weights have `predict` do beside the network: mirror images, and regions taken as absent."""
    axes = mirrored_axes(card)
    views = ", ".join(name for name, axis in DIRECTIONS.items() if axis in axes)
    tiny = [
        f"{region} below {ml:g} mL where {m} is given"
        for m in config.modalities
        for region, ml in absent_below_ml(card, config, (m,)).items()
    ]
    rows = [("averaged over mirror images", views), ("counted as absent", ", ".join(tiny))]
    return [row for row in rows if row[1]]


def _show_scores(scores: Mapping[str, Any], config: ModelConfig) -> None:
    """Print a table of all patients that were scored, and one of each kind."""
    columns = ("subset", *(f"{region} Dice %" for region, _ in config.regions))
    title = f"{scores.get('patients', '?')} test patients, policy {scores.get('policy', '?')}"
    print_table(columns, _dice(scores, config), title=title)
    for kind, of_kind in _mapping(scores.get("kinds")).items():
        title = f"{kind}, n = {_mapping(of_kind).get('patients', '?')}"
        print_table(columns, _dice(_mapping(of_kind), config), title=title)


def _dice(scores: Mapping[str, Any], config: ModelConfig) -> list[tuple[str, ...]]:
    """Return a row of each subset that was scored, with the 95 % intervals, in the row order of the literature."""
    subsets, intervals = _mapping(scores.get("subsets")), _mapping(scores.get("intervals_95"))
    names = [subset_name(subset, config.modalities) for subset in all_subsets(config.modalities)]
    regions = [region for region, _ in config.regions]
    rows = {n: _mapping(subsets[n]) for n in names if n in subsets}
    return [
        (n, *(_percent(row.get(r)) + interval_text(_mapping(intervals.get(n)).get(r)) for r in regions))
        for n, row in rows.items()
    ]


def _stages(card: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return a row of each training that led to the weights, and of all together."""
    rows: list[tuple[object, ...]] = []
    for number, stage in enumerate(stages(card), start=1):
        network, recipe = _mapping(stage.get("network")), _mapping(stage.get("recipe"))
        sizes = [network.get("spacing_mm"), network.get("patch_size", network.get("window"))]
        grid = [" x ".join(map(str, size)) if isinstance(size, list) else "" for size in sizes]
        told = [
            stage.get("steps", ""),
            stage.get("hours", ""),
            *(recipe.get(k, "") for k in ("optimizer", "learning_rate")),
        ]
        rows.append((number, *grid, *told))
    return [*rows, ("all", "", "", "", round(hours_in_all(card), 2), "", "")]


def _percent(share: Any) -> str:
    return f"{100 * share:.1f}" if isinstance(share, int | float) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
