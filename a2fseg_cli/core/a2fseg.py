"""A2FSeg: one network for any non-empty subset of its modalities (Wang and Hong, MICCAI 2023).

Where the paper leaves a choice, it is made here:
- The four U-Nets have nnU-Net's blocks; their widths are configuration (the paper: "reduced UNet", C = 32).
- f_m of equation (1) is one convolution with a 3x3x3 kernel (configuration); the paper gives no kernel size.
- A new network's heads start out saying background (`BACKGROUND_PRIOR`).
- Every F_m, the average and the fused features have a 1x1x1 head of their own; classes are label values
  with a softmax, as equation (4) reads. The authors' code, which does not run as published, differs: regions
  with sigmoids, deep supervision, attention without the sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.fusion import AdaptiveFusion, average
from a2fseg_cli.core.unet import UNet

# Bias of the background's logit in every head of a new network: tumour has 5 % of four classes. Undecided heads
# (0) soon settle on features that are silent in the tumour, where LeakyReLU passes a hundredth of the gradient;
# 700 steps then do not tell the classes of the tumour apart, that is every one has p = 1/4 there.
BACKGROUND_PRIOR = 4.0


@dataclass(frozen=True)
class Output:
    """What the fusion of one subset gives.

    Attributes:
        logits: Head on Fhat, the prediction, (B, classes, D, H, W).
        average_logits: Head on F_avg, same shape; None unless asked for.
        attention: Mean over the channels of What_m of each present modality, (B, 1, D, H, W) float32; these sum to 1.
            Empty unless asked for.
    """

    logits: Tensor
    average_logits: Tensor | None
    attention: dict[str, Tensor]


class A2FSeg(nn.Module):
    """The network. `forward(images, present)` is `fuse(encode(images, present))`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.features_per_stage[0]
        classes = len(config.classes)
        self.encoders = nn.ModuleDict({m: UNet(config.features_per_stage) for m in config.modalities})
        self.fusion = AdaptiveFusion(config.modalities, channels, config.attention_kernel_size)
        self.modality_heads = nn.ModuleDict({m: _new_head(channels, classes) for m in config.modalities})
        self.average_head = _new_head(channels, classes)
        self.head = _new_head(channels, classes)

    def present_names(self, present: Tensor | Sequence[bool]) -> tuple[str, ...]:
        """Return the names of the modalities that a mask (M,) calls present. Raises: ValueError if none."""
        flags = [bool(flag) for flag in present]
        if len(flags) != len(self.config.modalities) or not any(flags):
            raise ValueError(f"present needs {len(self.config.modalities)} flags, at least one true; got {flags}")
        return tuple(m for m, flag in zip(self.config.modalities, flags, strict=True) if flag)

    def encode(self, images: Tensor, present: Tensor | Sequence[bool]) -> dict[str, Tensor]:
        """Return F_m (B, C, D, H, W) of every present modality. Absent modalities are never read.

        Args:
            images: (B, M, D, H, W), z-scored; edges at least the config's `smallest_edge`.
            present: (M,) flags.
        """
        least = self.config.smallest_edge
        if images.ndim != 5 or images.shape[1] != len(self.config.modalities):
            raise ValueError(f"images must be (B, {len(self.config.modalities)}, D, H, W); got {tuple(images.shape)}")
        if any(edge < least for edge in images.shape[2:]):
            raise ValueError(f"edges must be at least {least}; got {tuple(images.shape)}")
        names = self.present_names(present)
        index = self.config.modalities.index
        return {m: self.encoders[m](images[:, index(m) : index(m) + 1]) for m in names}

    def fuse(
        self,
        features: Mapping[str, Tensor],
        present: Tensor | Sequence[bool],
        training: bool = False,
        attention: bool = False,
    ) -> Output:
        """Return the prediction from the features of the present modalities.

        Args:
            features: F_m of at least the present modalities, from `encode`.
            present: (M,) flags.
            training: Also compute the logits of the average.
            attention: Also return the attention weights.
        """
        return next(self.fuse_subsets(features, [present], training, [attention]))

    def fuse_subsets(
        self,
        features: Mapping[str, Tensor],
        subsets: Sequence[Tensor | Sequence[bool]],
        training: bool = False,
        attention: Sequence[bool] | None = None,
    ) -> Iterator[Output]:
        """Yield the output of each subset in turn, sharing everything that does not depend on the subset.

        B_m(F_m) is computed once a modality. A_m(F_avg) costs one half-convolution per present m and subset, or, as the
        mean of A_m(F_k), one per pair (m, k) for all subsets together: the cheaper way is taken (4 modalities:
        16 pairs against 32 for all 15 subsets, 4 for one subset of all).

        Args:
            features: F_m of at least the modalities in the subsets, from `encode`.
            subsets: Missing-modality masks (M,).
            training: Also compute the logits of the averages.
            attention: Of which subsets to return the attention weights, one flag a subset; of none by default.
        """
        chosen = [self.present_names(present) for present in subsets]
        used = [m for m in self.config.modalities if any(len(names) > 1 and m in names for names in chosen)]
        by_pairs = len(used) ** 2 < sum(len(names) for names in chosen if len(names) > 1)
        own: dict[str, Tensor] = {}
        pairs: dict[str, dict[str, Tensor]] = {}
        for k in used:
            b, pairs[k] = self.fusion.maps(features[k], own=[k], context=used if by_pairs else [])
            own |= b
        for names, with_attention in zip(chosen, attention or [False] * len(chosen), strict=True):
            f = {m: features[m] for m in names}
            mean = average(list(f.values())) if training or not by_pairs else None
            context: dict[str, list[Tensor]] = {}
            if by_pairs:
                context = {m: [pairs[k][m] for k in names] for m in names if len(names) > 1}
            elif len(names) > 1 and mean is not None:
                context = {m: [one] for m, one in self.fusion.maps(mean, context=names)[1].items()}
            fused, what = self.fusion.fuse(f, own, context, with_attention)
            yield Output(
                self.head(fused),
                self.average_head(mean) if training else None,
                {m: weight.mean(dim=1, keepdim=True, dtype=torch.float32) for m, weight in what.items()},
            )

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits (B, classes, D, H, W) of the head on each F_m, for the loss."""
        return {m: self.modality_heads[m](feature) for m, feature in features.items()}

    def forward(self, images: Tensor, present: Tensor | Sequence[bool]) -> Tensor:
        """Return the logits (B, classes, D, H, W) of images (B, M, D, H, W).

        Args:
            images: z-scored; whatever fills an absent modality's slot has no influence.
            present: (M,) or (B, M) flags, the missing-modality mask; samples may differ.
        """
        flags = torch.as_tensor(present)
        if flags.ndim == 1:
            return self.fuse(self.encode(images, flags), flags).logits
        if len(flags) != len(images):
            raise ValueError(f"masks for {len(flags)} samples, images of {len(images)}")
        if bool((flags == flags[0]).all()):
            return self.forward(images, flags[0])
        return torch.cat([self.forward(image[None], flag) for image, flag in zip(images, flags, strict=True)])


def _new_head(channels: int, classes: int) -> nn.Conv3d:
    """Return a 1x1x1 convolution to the classes that starts out saying background."""
    head = nn.Conv3d(channels, classes, 1)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.zero_()
        head.bias[0] = BACKGROUND_PRIOR
    return head


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the network, without allocating any of them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in A2FSeg(config).state_dict().items()}
