"""The convolutional encoder and decoder that RobustSeg introduced, and RFNet and mmFormer took over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from a2fseg_cli.core.layers import resized

# Makes a block: (channels before, channels after, edge of the kernel, stride).
Block = Callable[[int, int, int, int], nn.Module]


class ResidualEncoder(nn.Module):
    """One modality in, a map of each level out: three blocks a level, the last two around a residual connection.

    Args:
        widths: Channels of each level, finest first.
        block: Makes a block; the first of a level but the finest has stride 2.
        first: Makes the very first block, where it differs.
    """

    def __init__(self, widths: Sequence[int], block: Block, first: Block | None = None) -> None:
        super().__init__()
        self.enter = nn.ModuleList(
            (first or block)(1, width, 3, 1) if level == 0 else block(before, width, 3, 2)
            for level, (before, width) in enumerate(zip([1, *widths[:-1]], widths, strict=True))
        )
        self.refine = nn.ModuleList(
            nn.Sequential(block(width, width, 3, 1), block(width, width, 3, 1)) for width in widths
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of all levels, finest first, for x (B, 1, D, H, W)."""
        levels = []
        for enter, refine in zip(self.enter, self.refine, strict=True):
            x = enter(x)
            x = x + refine(x)
            levels.append(x)
        return levels


class ResidualDecoder(nn.Module):
    """The steps of a decoder: upwards from a level to the next finer one, then together with what was fused there.

    Args:
        widths: Channels of each level, finest first.
        block: Makes a block.
        mode: How a map is brought to the finer grid.
    """

    def __init__(self, widths: Sequence[int], block: Block, mode: str = "trilinear") -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(block(deep, width, 3, 1) for width, deep in pairs)
        self.merge = nn.ModuleList(
            nn.Sequential(block(2 * width, width, 3, 1), block(width, width, 1, 1)) for width, _ in pairs
        )
        self.mode = mode

    def raised(self, deep: Tensor, level: int, like: Tensor) -> Tensor:
        """Return the map of the level below, brought to this level's grid and width."""
        raised: Tensor = self.up[level](resized(deep, like, self.mode))
        return raised

    def merged(self, level: int, maps: Iterable[Tensor]) -> Tensor:
        """Return two maps of a level as one."""
        merged: Tensor = self.merge[level](torch.cat(list(maps), dim=1))
        return merged

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the finest map, of one map a level, finest first."""
        x = levels[-1]
        for level in reversed(range(len(levels) - 1)):
            x = self.merged(level, (self.raised(x, level, levels[level]), levels[level]))
        return x
