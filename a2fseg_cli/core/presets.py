"""The presets of every network. Free of torch, so that commands and messages can name the choices.

`tiny` and `small` have the working grid and the crops of A2FSeg's (`config.PRESETS`), so that networks are compared
on the same images, and widths of about its cost; `paper` has what the network's own paper or code says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from a2fseg_cli.core.config import PRESETS, ModelConfig

_FOUR = {"tiny": (8, 16, 32, 64), "small": (16, 32, 64, 128), "paper": (16, 32, 64, 128)}
# U-HVED's and U-HeMIS's own widths are small; with those of the others they would take 1.3 and 1.6 times A2FSeg's
# arithmetic.
_HETERO = {"tiny": (12, 24, 48, 96), "small": (12, 24, 48, 96), "paper": (8, 16, 32, 64)}
# Of each network but A2FSeg the widths of its presets, and the crop of its `paper`.
_WIDTHS: Mapping[str, tuple[Mapping[str, tuple[int, ...]], int]] = {
    "hemis": (_HETERO, 112),
    "uhved": (_HETERO, 112),
    "robustseg": (_FOUR, 80),
    "rfnet": (_FOUR, 80),
    "mmformer": (
        {"tiny": (8, 16, 32, 64, 64), "small": (8, 16, 32, 64, 96), "paper": (8, 16, 32, 64, 128)},
        128,
    ),
    "mfi": (_FOUR, 128),
}
NETWORKS = ("a2fseg", *_WIDTHS)


def preset_config(preset: str, network: str | None = None) -> ModelConfig:
    """Return the configuration of a network at a preset.

    Args:
        preset: paper, small or tiny.
        network: One of `NETWORKS`; None is whatever the preset itself says, A2FSeg.

    Raises:
        KeyError: there is no such preset or network.
    """
    config = PRESETS[preset]
    if network is None or network == config.architecture:
        return config
    if network == "a2fseg":
        return replace(config, architecture=network)
    widths, crop = _WIDTHS[network]
    changes: dict[str, Any] = {"architecture": network, "features_per_stage": widths[preset]}
    if preset == "paper":
        changes["patch_size"] = (crop,) * 3
    return replace(config, **changes)
