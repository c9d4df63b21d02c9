"""Layers that several of the paper's networks are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.shared_fusion import sum_of
from a2fseg_cli.core.unet import InstanceNorm

# Least probability whose logarithm is taken; below it the cross-entropy of a wrong voxel would no longer grow.
LEAST_PROBABILITY = 1e-7


class ConvNorm(nn.Sequential):
    """Convolution with a bias, instance norm, LeakyReLU(0.2): the block of RobustSeg, and of RFNet without `affine`."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1, affine: bool = False) -> None:
        super().__init__(
            nn.Conv3d(before, after, kernel, stride, padding=kernel // 2),
            InstanceNorm(after, affine),
            nn.LeakyReLU(0.2, inplace=True),
        )


class NormConv(nn.Sequential):
    """Instance norm, LeakyReLU, convolution: the block of mmFormer, and of U-HVED (slope 0.02, affine, no bias)."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 3,
        stride: int = 1,
        slope: float = 0.2,
        affine: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(
            InstanceNorm(before, affine),
            nn.LeakyReLU(slope, inplace=True),
            nn.Conv3d(before, after, kernel, stride, padding=kernel // 2, bias=bias),
        )


class ConcatConv(nn.Module):
    """A convolution of the modalities' maps, concatenated, with zeros for those that are absent.

    It is linear, so it is the sum of a convolution of each present map, and nothing stands for an absent one. Each
    modality's kernel goes by its name.

    Args:
        modalities: All there are.
        before: Channels of one modality's map.
        after: Channels of the result.
        kernel: Edge of the kernel.
    """

    def __init__(self, modalities: Sequence[str], before: int, after: int, kernel: int = 1) -> None:
        super().__init__()
        self.of = nn.ModuleDict(
            {m: nn.Conv3d(before, after, kernel, padding=kernel // 2, bias=False) for m in modalities}
        )
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return (B, after, D, H, W) of the maps (B, before, D, H, W) of the present modalities."""
        return sum_of([self.of[m](x) for m, x in maps.items()]) + self.bias.view(1, -1, 1, 1, 1)


class ConcatNorm(nn.Sequential):
    """`ConcatConv`, instance norm, LeakyReLU(0.2); of the present modalities' maps."""

    def __init__(
        self, modalities: Sequence[str], before: int, after: int, kernel: int = 1, affine: bool = False
    ) -> None:
        super().__init__(
            ConcatConv(modalities, before, after, kernel), InstanceNorm(after, affine), nn.LeakyReLU(0.2, inplace=True)
        )


def resized(x: Tensor, like: Tensor, mode: str = "trilinear") -> Tensor:
    """Return x (B, C, D, H, W) on the grid of another map; the corners' centres meet where it is trilinear."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=True if mode == "trilinear" else None)


def upsampled_head(logits: Tensor, like: Tensor) -> Tensor:
    """Return logits whose softmax is the softmax of `logits`, resized to the grid of another map.

    So a head at a coarse stage has its loss at full resolution, over probabilities that were resized.
    """
    return resized(logits.float().softmax(dim=1), like).clamp_min(LEAST_PROBABILITY).log()


def kaiming(module: nn.Module) -> None:
    """Draw the kernels of all 3D convolutions anew, with the variance 2 / (inputs of a value) (He et al. 2015)."""
    for part in module.modules():
        # A meta tensor has no values, and torch would load its kernels in Python for it: 0.8 s of every start.
        if isinstance(part, nn.Conv3d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight)
