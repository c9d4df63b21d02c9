"""A wider network that starts as the same function as a narrower one.

The channels that come new compute something random, and nobody reads them yet: their weights in the next layer are 0.
So training goes on where it stood, with room to learn more (after Chen et al., ICLR 2016,
https://arxiv.org/abs/1511.05641, who repeat channels instead).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import build_network


def can_widen(narrow: ModelConfig, wide: ModelConfig) -> bool:
    """Return whether all a network lacks to be the wider one are channels; only a2fseg is widened."""
    before, after = narrow.features_per_stage, wide.features_per_stage
    return (
        narrow.architecture == wide.architecture == "a2fseg"
        and len(before) == len(after)
        and all(old <= new for old, new in zip(before, after, strict=True))
    )


def widened(tensors: Mapping[str, Tensor], wide: ModelConfig) -> dict[str, Tensor]:
    """Return the parameters of an a2fseg with more channels, from those of one with fewer; the same function.

    Args:
        tensors: By parameter name; what the wider network has not stays as it is.
        wide: Configuration of the wider network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process of a training draws the same
        fresh = build_network(wide).state_dict()
    return {name: _grown(name, value, fresh[name]) if name in fresh else value for name, value in tensors.items()}


def _grown(name: str, old: Tensor, fresh: Tensor) -> Tensor:
    """Return a parameter in its new shape.

    Args:
        name: Of the parameter.
        old: Biases and norms (channels,), kernels (out, in, ...), of transposed convolutions (in, out, ...).
        fresh: Random values in the new shape.
    """
    grown = fresh.clone()
    if old.ndim == 1:
        grown[: len(old)] = old
        return grown
    if ".up." in name:
        grown, old = grown.transpose(0, 1), old.transpose(0, 1)
    inputs, outputs = grown.shape[1], grown.shape[0]
    concatenated = (name.endswith(".0.0.weight") and ".merge." in name) or name.startswith("fusion.f.")
    read = _places(old.shape[1], inputs, groups=inputs // outputs if concatenated else 1)
    kept = grown[: len(old)]
    kept.zero_()
    kept[:, read] = old
    return grown.transpose(0, 1).contiguous() if ".up." in name else grown


def _places(old: int, new: int, groups: int) -> Sequence[int]:
    """Return where the old inputs lie among the new ones, where the inputs are so many maps, concatenated."""
    each, wide = old // groups, new // groups
    return [group * wide + channel for group in range(groups) for channel in range(each)]
