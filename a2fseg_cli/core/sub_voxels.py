"""Blocks of voxels as channels: a network that works on a coarse grid reads and writes a fine one.

The images' voxels are taken in blocks of n x n x n, each of them n^3 channels of one voxel of the features; a head
writes the logits of all n^3 (Shi et al., CVPR 2016, https://arxiv.org/abs/1609.05158, in three dimensions). At n = 2
and 1 mm the convolutions cost what they cost at 2 mm, and thin rims are neither averaged away on the way in nor rounded
on the way out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Bias of the background's logit in every head of a new network: tumour has 5 % of four classes. Undecided heads
# (0) soon settle on features that are silent in the tumour, where LeakyReLU passes a hundredth of the gradient;
# 700 steps then do not tell the classes of the tumour apart, that is every one has p = 1/4 there.
BACKGROUND_PRIOR = 4.0


def blocks(images: Tensor, edge: int) -> Tensor:
    """Return images (B, 1, D, H, W) as (B, edge^3, D / edge, H / edge, W / edge): each block's voxels as channels."""
    if edge == 1:
        return images
    b, _, d, h, w = images.shape
    split = images.reshape(b, d // edge, edge, h // edge, edge, w // edge, edge)
    return split.permute(0, 2, 4, 6, 1, 3, 5).reshape(b, edge**3, d // edge, h // edge, w // edge)


def unfolded(maps: Tensor, edge: int) -> Tensor:
    """Return maps (B, C, edge^3, d, h, w) of blocks as (B, C, d * edge, h * edge, w * edge), the way back."""
    b, c, _, d, h, w = maps.shape
    split = maps.reshape(b, c, edge, edge, edge, d, h, w)
    return split.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c, d * edge, h * edge, w * edge)


class Head(nn.Conv3d):
    """A 1x1x1 convolution from features to the classes; a new one says background.

    Args:
        channels: C.
        classes: How many.
        edge: Of the blocks whose voxels it writes; 1: no blocks.
    """

    def __init__(self, channels: int, classes: int, edge: int = 1) -> None:
        super().__init__(channels, classes * edge**3, 1)
        self.edge = edge
        assert self.bias is not None
        with torch.no_grad():
            self.bias.zero_()
            self.bias[: edge**3] = BACKGROUND_PRIOR

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, classes, d * edge, h * edge, w * edge) of features (B, C, d, h, w)."""
        logits = super().forward(features)
        return (
            logits
            if self.edge == 1
            else unfolded(logits.reshape(len(logits), -1, self.edge**3, *logits.shape[2:]), self.edge)
        )

    def of_one(self, features: Tensor, index: int) -> Tensor:
        """Return the logits (B, classes, d, h, w) of one voxel of each block, the `index`-th in the order (z, y, x)."""
        assert self.bias is not None
        count = self.edge**3
        return nn.functional.conv3d(features, self.weight[index::count], self.bias[index::count])


def repeated(maps: Tensor, edge: int) -> Tensor:
    """Return maps (B, 1, d, h, w) of blocks as (B, 1, d * edge, h * edge, w * edge), each value for its whole block."""
    if edge == 1:
        return maps
    return unfolded(maps.unsqueeze(2).expand(-1, -1, edge**3, -1, -1, -1), edge)


def offset(index: int, edge: int) -> tuple[int, int, int]:
    """Return where in its block (z, y, x) the `index`-th voxel lies."""
    return index // edge**2, index // edge % edge, index % edge
