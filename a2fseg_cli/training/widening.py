"""A wider network that starts as the same function as a narrower one.

The channels that come new compute something random, and nobody reads them yet: their weights in the next layer are 0.
So training goes on where it stood, with room to learn more (after Chen et al., ICLR 2016,
https://arxiv.org/abs/1511.05641, who repeat channels instead).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import build_network


def can_widen(narrow: ModelConfig, wide: ModelConfig) -> bool:
    """Return whether an a2fseg can get the channels of another: as many stages, none of them narrower."""
    before, after = narrow.features_per_stage, wide.features_per_stage
    return (
        narrow.architecture == wide.architecture == "a2fseg"
        and len(before) == len(after)
        and all(old <= new for old, new in zip(before, after, strict=True))
    )


def widened(tensors: Mapping[str, Tensor], config: ModelConfig, features_per_stage: Sequence[int]) -> dict[str, Tensor]:
    """Return the parameters of the same a2fseg with more channels; the same function.

    Args:
        tensors: By parameter name.
        config: Of the network they are of.
        features_per_stage: Channels of each resolution level, at least those of `config`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process of a training draws the same
        fresh = build_network(replace(config, features_per_stage=tuple(features_per_stage))).state_dict()
    return {name: _grown(name, value, fresh[name]) for name, value in tensors.items()}


def _grown(name: str, old: Tensor, fresh: Tensor) -> Tensor:
    """Return a parameter in its new shape.

    Args:
        name: Of the parameter, such as `encoders.t1.merge.0.1.0.weight` or `fusion.f.t1.weight`.
        old: Biases and norms (channels,), kernels (out, in, D, H, W), of transposed convolutions (in, out, D, H, W).
        fresh: Random values in the new shape.
    """
    grown = fresh.clone()
    if old.ndim == 1:
        grown[: len(old)] = old
        return grown
    part, _, layer, _, block = f"{name}....".split(".")[:5]  # a modality may be called anything
    transposed = part == "encoders" and layer == "up"
    concatenated = part == "fusion" or (part == "encoders" and layer == "merge" and block == "0")
    by_output, old = (grown.transpose(0, 1), old.transpose(0, 1)) if transposed else (grown, old)
    outputs, inputs = by_output.shape[:2]
    read = _places(old.shape[1], inputs, groups=inputs // outputs if concatenated else 1)
    by_output[: len(old)] = 0
    by_output[: len(old), read] = old
    return grown


def _places(old: int, new: int, groups: int) -> Sequence[int]:
    """Return where the old inputs lie among the new ones, where the inputs are so many maps, concatenated."""
    each, wide = old // groups, new // groups
    return [group * wide + channel for group in range(groups) for channel in range(each)]
