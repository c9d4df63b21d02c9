"""The paper's loss: cross-entropy plus soft Dice on every head (equations 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segmentation_loss(logits: Tensor, target: Tensor, foreground_weight: float = 1.0, smooth: float = 1.0) -> Tensor:
    """Return equation (4), cross-entropy + soft Dice loss, of each head: (heads,).

    The Dice term is 1 minus the mean over the foreground classes of (2 sum(p g) + s) / (sum(p) + sum(g) + s),
    sums over the voxels of the batch. The paper does not give s; 1 voxel keeps an absent class at loss 0 when
    nothing is predicted.

    Args:
        logits: (heads, B, classes, D, H, W), any floating type; computed in float32.
        target: Class indices (B, D, H, W).
        foreground_weight: Weight of a foreground voxel in the mean of the cross-entropy, a background voxel's is 1
            (as in the paper).
        smooth: s, in voxels.
    """
    log_p = torch.log_softmax(logits.float(), dim=2)
    onehot = torch.stack([target == index for index in range(logits.shape[2])], dim=1).to(log_p.dtype)
    axes = (1, 3, 4, 5)
    voxels = onehot.sum(dim=(0, 2, 3, 4))
    log_likelihood = (log_p * onehot).sum(dim=axes)
    weights = torch.full_like(voxels, foreground_weight)
    weights[0] = 1
    cross_entropy = -(log_likelihood * weights).sum(dim=1) / (voxels * weights).sum()
    p = log_p.exp()
    overlap = (p * onehot).sum(dim=axes)
    sizes = p.sum(dim=axes) + voxels
    dice = (2 * overlap + smooth) / (sizes + smooth)
    return cross_entropy + 1 - dice[:, 1:].mean(dim=1)


def total_loss(heads: Sequence[Tensor], target: Tensor, foreground_weight: float = 1.0) -> Tensor:
    """Return equation (5), the sum of the losses of all heads.

    Args:
        heads: Logits (B, classes, D, H, W) of the head on each F_m, and on F_avg and Fhat of every subset that
            shares the step.
        target: Class indices (B, D, H, W).
        foreground_weight: As of `segmentation_loss`.
    """
    return segmentation_loss(torch.stack(list(heads)), target, foreground_weight).sum()
