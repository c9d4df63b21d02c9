"""Equations (1) to (3) for many subsets at once: what does not depend on the subset is computed once.

All 15 subsets of four modalities cost twenty half-width convolutions here, against thirty-two full ones one by one.
`A2FSeg.equations` is the same as the paper writes it, and what this is tested against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Fused:
    """The fusion of one subset.

    Attributes:
        features: Fhat, (B, C, D, H, W).
        average: F_avg, same shape; None unless asked for.
        weights: What_m of each present modality, same shape; empty unless asked for.
    """

    features: Tensor
    average: Tensor | None
    weights: dict[str, Tensor]


class AdaptiveFusion(nn.Module):
    """The convolutions f_m of equation (1), taken apart so that subsets can share the work.

    f_m is one convolution on [F_avg ; F_m]. It is linear before the sigmoid, so it splits into its two
    halves: f_m([F_avg ; F_m]) = A_m(F_avg) + B_m(F_m), with the bias in B_m. B_m(F_m) is the same for every
    subset, and since F_avg is a mean, A_m(F_avg) is the mean of A_m(F_k) over the present k. No concatenation
    is ever made.

    Args:
        modalities: All there are.
        channels: C.
        kernel_size: Edge of the kernel of f_m.
        context: Whether f_m sees F_avg; without it there is no A_m (an ablation).
    """

    def __init__(self, modalities: Sequence[str], channels: int, kernel_size: int, context: bool = True) -> None:
        super().__init__()
        before = 2 * channels if context else channels
        self.f = nn.ModuleDict(
            {m: nn.Conv3d(before, channels, kernel_size, padding=kernel_size // 2) for m in modalities}
        )
        self.channels, self.context = channels, context

    def _halves(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kernels of A_m and B_m (C, C, k, k, k) and the bias of f_m (C,)."""
        f = self.f[name]
        assert isinstance(f, nn.Conv3d)
        assert f.bias is not None
        return f.weight[:, : -self.channels], f.weight[:, -self.channels :], f.bias

    def fuse_subsets(
        self,
        features: Mapping[str, Tensor],
        subsets: Sequence[Sequence[str]],
        averages: bool = False,
        attention: Sequence[bool] | None = None,
    ) -> Iterator[Fused]:
        """Yield the fusion of each subset in turn.

        B_m(F_m) is computed once a modality. A_m(F_avg) costs one half-convolution per present m and subset, or, as the
        mean of A_m(F_k), one per pair (m, k) for all subsets together: the cheaper way is taken (4 modalities:
        16 pairs against 32 for all 15 subsets, 4 for one subset of all).

        Args:
            features: F_m (B, C, D, H, W) of at least the modalities in the subsets.
            subsets: Names of the present modalities.
            averages: Also return F_avg.
            attention: Of which subsets to return the attention weights, one flag a subset; of none by default.
        """
        used = [m for m in self.f if any(len(names) > 1 and m in names for names in subsets)]
        by_pairs = self.context and len(used) ** 2 < sum(len(names) for names in subsets if len(names) > 1)
        own: dict[str, Tensor] = {}
        pairs: dict[str, dict[str, Tensor]] = {}
        for k in used:
            b, pairs[k] = self.maps(features[k], own=[k], context=used if by_pairs else [])
            own |= b
        for names, with_attention in zip(subsets, attention or [False] * len(subsets), strict=True):
            present = {m: features[m] for m in names}
            mean = average(list(present.values())) if averages or (self.context and not by_pairs) else None
            context: dict[str, list[Tensor]] = {}
            if by_pairs:
                context = {m: [pairs[k][m] for k in names] for m in names if len(names) > 1}
            elif self.context and len(names) > 1 and mean is not None:
                context = {m: [one] for m, one in self.maps(mean, context=names)[1].items()}
            fused, weights = self.fuse(present, own, context, with_attention)
            yield Fused(fused, mean if averages else None, weights)

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
                of every present k. Empty where f_m sees no average.
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
            if context:
                w = torch.add(own[m], sum_of(context[m]), alpha=1 / len(context[m])).sigmoid_()
            else:
                w = own[m].sigmoid()
            exponentials[m] = w.exp_() if in_place else w.exp()  # (1): exp(W_m)
        total = sum_of(list(exponentials.values()))
        weights = {m: e / total for m, e in exponentials.items()} if attention else {}  # (2): What_m
        first, *others = features
        e = exponentials[first]
        fused = e.mul_(features[first]) if in_place else e * features[first]
        for m in others:
            fused.addcmul_(exponentials[m], features[m])
        return (fused.div_(total) if in_place else fused / total), weights  # (3): Fhat, divided once
