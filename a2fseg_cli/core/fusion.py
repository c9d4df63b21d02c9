"""Average fusion and attention-based adaptive fusion (equations 1 to 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors of one shape; of a single one, itself."""
    if len(tensors) == 1:
        return tensors[0]
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total += tensor
    return total


def average(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of the tensors, nothing else (average fusion)."""
    return sum_of(tensors).div_(len(tensors)) if len(tensors) > 1 else tensors[0]


class AdaptiveFusion(nn.Module):
    """Equations (1) to (3), with f_m taken apart so that subsets can share the work.

    f_m is one convolution on [F_avg ; F_m]. It is linear before the sigmoid, so it splits into its two
    halves: f_m([F_avg ; F_m]) = A_m(F_avg) + B_m(F_m), with the bias in B_m. B_m(F_m) is the same for every
    subset, and since F_avg is a mean, A_m(F_avg) is the mean of A_m(F_k) over the present k. No concatenation
    is ever made.
    """

    def __init__(self, modalities: Sequence[str], channels: int, kernel_size: int) -> None:
        super().__init__()
        self.f = nn.ModuleDict(
            {m: nn.Conv3d(2 * channels, channels, kernel_size, padding=kernel_size // 2) for m in modalities}
        )
        self.channels = channels

    def _convolution(self, name: str) -> nn.Conv3d:
        convolution = self.f[name]
        assert isinstance(convolution, nn.Conv3d)
        return convolution

    def own(self, name: str, features: Tensor) -> Tensor:
        """Return B_m(F_m) (B, C, D, H, W): what F_m itself adds to its attention, in every subset."""
        f = self._convolution(name)
        return F.conv3d(features, f.weight[:, self.channels :], f.bias, padding=f.padding)

    def context(self, names: Sequence[str], features: Tensor) -> dict[str, Tensor]:
        """Return A_m(features) for each named m, by one wide convolution.

        Given F_avg, this is what the average adds to each attention. Given F_k of one modality, it is a map
        whose mean over the k of a subset is the same thing.
        """
        f = [self._convolution(name) for name in names]
        weight = torch.cat([one.weight[:, : self.channels] for one in f])
        maps = F.conv3d(features, weight, padding=f[0].padding)
        # A slice of a wide channels_last map has gaps between its voxels; what is done to it voxel by voxel is
        # several times faster without.
        parts = [
            part.contiguous(memory_format=torch.channels_last_3d) for part in torch.split(maps, self.channels, dim=1)
        ]
        return dict(zip(names, parts, strict=True))

    def fuse(
        self,
        features: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        context: Mapping[str, Sequence[Tensor]],
        attention: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return Fhat (B, C, D, H, W) and, if asked for, the weights What_m of each present modality.

        Args:
            features: F_m of the present modalities, each (B, C, D, H, W).
            own: B_m(F_m) of at least these modalities.
            context: Maps whose mean is A_m(F_avg), of at least these modalities: A_m(F_avg) itself, or A_m(F_k)
                of every present k.
            attention: Also return What_m.
        """
        if len(features) == 1:
            ((name, only),) = features.items()
            return only, {name: torch.ones_like(only)} if attention else {}
        # Autograd needs the earlier values; without it everything happens in place, since a fresh map costs more
        # than the arithmetic on it.
        in_place = not torch.is_grad_enabled()
        exponentials = {}
        for m in features:
            w = torch.add(own[m], sum_of(context[m]), alpha=1 / len(context[m])).sigmoid_()
            exponentials[m] = w.exp_() if in_place else w.exp()  # (1): exp(W_m)
        total = sum_of(list(exponentials.values()))
        weights = {m: e / total for m, e in exponentials.items()} if attention else {}  # (2): What_m
        weighted = [e.mul_(features[m]) if in_place else e * features[m] for m, e in exponentials.items()]
        fused = sum_of(weighted)
        return (fused.div_(total) if in_place else fused / total), weights  # (3): Fhat, divided once
