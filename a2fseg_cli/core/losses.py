"""The paper's loss: cross-entropy plus soft Dice on every head (equations 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# s of the soft Dice, in voxels; the paper gives none. An absent class has loss 0 when nothing is predicted.
SMOOTH = 1.0


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    foreground_weight: float = 1.0,
    groups: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return equation (4), cross-entropy + soft Dice loss, of each head: (heads,).

    The Dice term is 1 minus the mean over groups of classes of (2 sum(p g) + s) / (sum(p) + sum(g) + s), with p and
    g summed within the group, sums over the voxels of the batch, and s = SMOOTH.

    Args:
        logits: (heads, B, classes, D, H, W), any floating type; computed in float32.
        target: Class indices (B, D, H, W).
        foreground_weight: Weight of a foreground voxel in the mean of the cross-entropy, a background voxel's is 1
            (as in the paper).
        groups: Class indices of each group; None makes each foreground class its own (as in the paper). The nested
            regions that a task is scored by count a core as found whichever of its classes is taken for which.
    """
    log_p = torch.log_softmax(logits.float(), dim=2).flatten(3)
    onehot = torch.stack([target == index for index in range(logits.shape[2])], dim=1).to(log_p.dtype).flatten(2)
    voxels = onehot.sum(dim=(0, 2))
    weights = torch.full_like(voxels, foreground_weight)
    weights[0] = 1
    log_likelihood = torch.einsum("hbcv,bcv->hc", log_p, onehot)
    cross_entropy = -(log_likelihood * weights).sum(dim=1) / (voxels * weights).sum()
    # How much of each class is taken for which; every overlap of groups is a sum of its entries.
    confusion = torch.einsum("hbcv,bkv->hck", log_p.exp(), onehot)
    predicted = confusion.sum(dim=2)
    dice = []
    for group in map(list, groups or [[index] for index in range(1, logits.shape[2])]):
        overlap = confusion[:, group][:, :, group].sum(dim=(1, 2))
        sizes = predicted[:, group].sum(dim=1) + voxels[group].sum()
        dice.append((2 * overlap + SMOOTH) / (sizes + SMOOTH))
    return cross_entropy + 1 - torch.stack(dice).mean(dim=0)


def total_loss(
    heads: Sequence[Tensor],
    target: Tensor,
    foreground_weight: float = 1.0,
    groups: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return equation (5), the sum of the losses of all heads.

    Args:
        heads: Logits (B, classes, D, H, W) of the head on each F_m, and on F_avg and Fhat of every subset that
            shares the step.
        target: Class indices (B, D, H, W).
        foreground_weight: As of `segmentation_loss`.
        groups: As of `segmentation_loss`.
    """
    return segmentation_loss(torch.stack(list(heads)), target, foreground_weight, groups).sum()
