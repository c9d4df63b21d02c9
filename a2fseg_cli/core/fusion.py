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

    def _halves(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kernels of A_m and B_m (C, C, k, k, k) and the bias of f_m (C,)."""
        f = self.f[name]
        assert isinstance(f, nn.Conv3d)
        assert f.bias is not None
        return f.weight[:, : self.channels], f.weight[:, self.channels :], f.bias

    def maps(
        self, features: Tensor, own: Sequence[str] = (), context: Sequence[str] = ()
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return B_m(features) of the modalities in `own` and A_m(features) of those in `context`, by one convolution.

        B_m(F_m) is what F_m itself adds to its attention, in every subset. A_m(F_avg) is what the average adds;
        A_m(F_k) of one modality is a map whose mean over the k of a subset is the same thing.

        Args:
            features: F_m, F_k or F_avg, (B, C, D, H, W), as each map is.
            own: Whose B_m, with the bias of f_m.
            context: Whose A_m.
        """
        mine, others = [self._halves(name) for name in own], [self._halves(name) for name in context]
        kernels = torch.cat([*(b for _, b, _ in mine), *(a for a, _, _ in others)])
        biases = torch.cat([*(bias for _, _, bias in mine), *(torch.zeros_like(bias) for _, _, bias in others)])
        wide = F.conv3d(features, kernels, biases, padding=kernels.shape[-1] // 2)
        # A slice of a wide channels_last map has gaps between its voxels; what is done to it voxel by voxel is
        # several times faster without.
        parts = [
            part.contiguous(memory_format=torch.channels_last_3d) for part in torch.split(wide, self.channels, dim=1)
        ]
        count = len(own)
        return dict(zip(own, parts[:count], strict=True)), dict(zip(context, parts[count:], strict=True))

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
        first, *others = features
        e = exponentials[first]
        fused = e.mul_(features[first]) if in_place else e * features[first]
        for m in others:
            fused.addcmul_(exponentials[m], features[m])
        return (fused.div_(total) if in_place else fused / total), weights  # (3): Fhat, divided once
