"""Weights to start from: those of the same network, or of one with other modalities or classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import parameter_shapes, parameters_of_classes
from a2fseg_cli.errors import WeightsError
from a2fseg_cli.training.widening import can_widen, widened
from a2fseg_cli.weights.card import STAGE
from a2fseg_cli.weights.file_format import load_weights


@dataclass(frozen=True)
class Initial:
    """What a training takes over from weights that exist.

    Attributes:
        tensors: By parameter name.
        note: What was taken over and what starts at random, in one line.
        provenance: For the new weights' card: the file's hash, and what its own card says of its training.
    """

    tensors: Mapping[str, Tensor]
    note: str
    provenance: Mapping[str, Any]


def initial_weights(path: Path, config: ModelConfig) -> Initial:
    """Return what of a weights file fits a network: the parameters of the modalities both have, and of all of them.

    The heads fit where the classes are the same. Architecture and attention kernel must be the same; modalities,
    classes, working spacing and crops may differ. An a2fseg may be wider than the one it starts from (`widening.py`).
    A network of blocks (`sub_voxels`) may start from one without them: it then reads the mean of each block, and all
    voxels of a block get the same logits.

    Raises:
        WeightsError: the file is not acceptable, or nothing in it fits.
    """
    weights, tensors = load_weights(path, parameter_shapes)
    source = weights.config
    wider = source.features_per_stage != config.features_per_stage and can_widen(source, config)
    same = {"architecture", "attention_kernel_size"} | (set() if wider else {"features_per_stage"})
    for name in sorted(same):
        if getattr(source, name) != getattr(config, name):
            raise WeightsError(
                f"{path}: {name} is {getattr(source, name)}, the network to train has {getattr(config, name)}. "
                "Take the same (of a2fseg, a wider network may start from a narrower one), or start without initial "
                "weights."
            )
    shared = [m for m in config.modalities if m in source.modalities]
    if not shared:
        raise WeightsError(
            f"{path}: made for {', '.join(source.modalities)}; none of them is among {', '.join(config.modalities)}."
        )
    if source.sub_voxels not in (1, config.sub_voxels):
        raise WeightsError(
            f"{path}: sub_voxels is {source.sub_voxels}, the network to train has {config.sub_voxels}. "
            "Take the same, or weights without blocks."
        )
    if wider:
        tensors = widened(tensors, source, config.features_per_stage)
    if source.sub_voxels < config.sub_voxels:
        tensors = in_blocks(tensors, config.sub_voxels)
    heads = source.classes == config.classes
    shapes, of_classes = parameter_shapes(config), parameters_of_classes(config)
    fitting = {
        name: value
        for name, value in tensors.items()
        if shapes.get(name) == tuple(value.shape) and (heads or name not in of_classes)
    }
    return Initial(fitting, _note(path, source, config, shared, heads), _provenance(weights.card, weights.sha256))


def in_blocks(tensors: Mapping[str, Tensor], edge: int) -> dict[str, Tensor]:
    """Return the parameters of an a2fseg for blocks of voxels, from those of one that works voxel by voxel.

    Args:
        tensors: By parameter name.
        edge: Of a block.
    """
    count = edge**3
    changed = dict(tensors)
    for name, value in tensors.items():
        if name.startswith("encoders.") and name.endswith(".down.0.0.0.weight"):  # (width, 1, 3, 3, 3)
            changed[name] = value.expand(-1, count, -1, -1, -1) / count
        elif "head" in name.split(".")[0]:
            changed[name] = value.repeat_interleave(count, dim=0)
    return changed


def _note(path: Path, source: ModelConfig, config: ModelConfig, shared: list[str], heads: bool) -> str:
    parts = [f"{path}: taken over for {', '.join(shared)}"]
    if new := [m for m in config.modalities if m not in shared]:
        parts.append(f"new: {', '.join(new)}")
    if unused := [m for m in source.modalities if m not in shared]:
        parts.append(f"not used: {', '.join(unused)}")
    if not heads:
        parts.append(f"new heads for {', '.join(config.classes)}")
    if source.features_per_stage != config.features_per_stage:
        old, now = (",".join(map(str, c.features_per_stage)) for c in (source, config))
        parts.append(f"widened to {now} channels, were {old}")
    if source.sub_voxels != config.sub_voxels:
        parts.append(f"blocks of {config.sub_voxels} voxels an edge, were {source.sub_voxels}")
    if source.spacing_mm != config.spacing_mm:
        old, now = (" x ".join(f"{mm:g}" for mm in c.spacing_mm) for c in (source, config))
        parts.append(f"working spacing {now} mm, was {old}")
    return "; ".join(parts)


def _provenance(card: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    told = {key: card[key] for key in (*STAGE, "initial") if key in card}
    return {"sha256": sha256} | told
