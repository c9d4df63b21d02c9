"""A2FSeg: one network for any non-empty subset of its modalities (Wang and Hong, MICCAI 2023).

`A2FSeg.equations` is the paper; `fuse_subsets` gives the same for many subsets at a fraction of the work, by
`shared_fusion.py`, and is what training and inference run.

Where the paper leaves a choice, it is made here:
- The four U-Nets have nnU-Net's blocks; their widths are configuration (the paper: "reduced UNet", C = 32).
- f_m of equation (1) is one convolution with a 3x3x3 kernel (configuration); the paper gives no kernel size.
- A new network's heads start out saying background (`sub_voxels.BACKGROUND_PRIOR`).
- Every F_m, the average and the fused features have a 1x1x1 head of their own; classes are label values
  with a softmax, as equation (4) reads. The authors' code, which does not run as published, differs: regions
  with sigmoids, deep supervision, attention without the sigmoid.

With `config.sub_voxels` above 1 all of it happens on a grid that many times coarser than the images': what a U-Net
reads and a head writes are blocks of voxels (`sub_voxels.py`).

`config.ablation` leaves parts out, as Table 2 of the paper does: `average-only` everything behind F_avg, whose head
then predicts; `no-context` the average in equation (1); `no-modality-heads` the heads on each F_m.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.network import Network, Output, Present, TrainingOutputs, union
from a2fseg_cli.core.shared_fusion import AdaptiveFusion, average
from a2fseg_cli.core.sub_voxels import Head, blocks, offset, repeated
from a2fseg_cli.core.unet import UNet


@dataclass(frozen=True)
class Equations:
    """What equations (1) to (3) give for one subset, each (B, C, D, H, W).

    Attributes:
        average: F_avg.
        weights: What_m of each present modality; they sum to 1.
        fused: Fhat.
    """

    average: Tensor
    weights: dict[str, Tensor]
    fused: Tensor


class A2FSeg(Network):
    """The network of the paper."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        channels = config.features_per_stage[0]
        classes, without = len(config.classes), config.ablation
        self.has_attention = "average-only" not in without
        self.block = config.sub_voxels
        self.encoders = nn.ModuleDict(
            {m: UNet(config.features_per_stage, channels=self.block**3) for m in config.modalities}
        )
        if self.has_attention:
            self.fusion = AdaptiveFusion(
                config.modalities, channels, config.attention_kernel_size, "no-context" not in without
            )
        with_heads = config.modalities if "no-modality-heads" not in without else ()
        self.modality_heads = nn.ModuleDict({m: Head(channels, classes, self.block) for m in with_heads})
        self.average_head = Head(channels, classes, self.block)
        if self.has_attention:
            self.head = Head(channels, classes, self.block)
        if self.block == 1:  # else the features have not the images' grid
            self.fusion_reach = config.attention_kernel_size // 2 if self.has_attention else 0

    def forward(self, images: Tensor, present: Present) -> Tensor:
        """Return the logits (B, classes, D, H, W) of images (B, M, D, H, W), step by step as the paper writes it.

        Args:
            images: z-scored; whatever fills an absent modality's slot has no influence.
            present: (M,) or (B, M) flags, the missing-modality mask; samples may differ.
        """
        flags = torch.as_tensor(present)
        if flags.ndim == 1:
            features = self.encode(images, flags)  # F_m, (B, C, D, H, W) of each present m
            if not self.has_attention:
                return self.average_head(average(list(features.values())))  # type: ignore[no-any-return]
            return self.head(self.equations(features).fused)  # type: ignore[no-any-return]
        if len(flags) != len(images):
            raise ValueError(f"masks for {len(flags)} samples, images of {len(images)}")
        return torch.cat([self.forward(image[None], flag) for image, flag in zip(images, flags, strict=True)])

    def encode(self, images: Tensor, present: Present) -> dict[str, Tensor]:
        """Return F_m (B, C, D, H, W) of every present modality, of blocks where the configuration has them.

        Absent modalities are never read.

        Args:
            images: (B, M, D, H, W), z-scored; edges at least the config's `smallest_edge`.
            present: (M,) flags.
        """
        self.check_images(images)
        names = self.present_names(present)
        index = self.config.modalities.index
        return {m: self.encoders[m](blocks(images[:, index(m) : index(m) + 1], self.block)) for m in names}

    def equations(self, features: Mapping[str, Tensor]) -> Equations:
        """Return the average and the fused features, equations (1) to (3) word for word.

        The oracle of `fuse_subsets`: slower, and the same but for rounding.

        Args:
            features: F_m (B, C, D, H, W) of the N present modalities, and of no other.
        """
        f = self.fusion.f
        stacked = torch.stack(list(features.values()))  # (N, B, C, D, H, W)
        f_avg = stacked.mean(dim=0)  # (B, C, D, H, W)
        seen = {m: torch.cat([f_avg, f_m], dim=1) if self.fusion.context else f_m for m, f_m in features.items()}
        w = [torch.sigmoid(f[m](x)) for m, x in seen.items()]  # (1), 2C to C
        w_hat = torch.softmax(torch.stack(w), dim=0)  # (2), exp(W_m) / sum of exp(W_k): (N, B, C, D, H, W)
        f_hat = (w_hat * stacked).sum(dim=0)  # (3), (B, C, D, H, W)
        return Equations(f_avg, dict(zip(features, w_hat, strict=True)), f_hat)

    def fuse_subsets(
        self, features: Mapping[str, Tensor], subsets: Sequence[Present], attention: Sequence[bool] | None = None
    ) -> Iterator[Output]:
        """Yield the output of each subset in turn; `shared_fusion.py` tells how the work is shared.

        Args:
            features: F_m of at least the modalities in the subsets, from `encode`.
            subsets: Missing-modality masks (M,).
            attention: Of which subsets to return the mean over the channels of What_m, one flag a subset.
        """
        chosen = [self.present_names(present) for present in subsets]
        if not self.has_attention:
            for names in chosen:
                yield Output(self.average_head(average([features[m] for m in names])))
            return
        for fused in self.fusion.fuse_subsets(features, chosen, attention=attention):
            shares = {m: w.mean(dim=1, keepdim=True, dtype=torch.float32) for m, w in fused.weights.items()}
            yield Output(self.head(fused.features), {m: repeated(share, self.block) for m, share in shares.items()})

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the heads of equation (5): on each F_m, then on F_avg and Fhat of each subset.

        Of each block one voxel, the same of all, drawn anew at every call: the loss then costs what it costs on the
        coarse grid. `voxels` says which.
        """
        features = self.encode(images, union(subsets))
        index = int(torch.randint(self.block**3, ())) if self.block > 1 else 0
        of_subsets = []
        if self.has_attention:
            chosen = [self.present_names(present) for present in subsets]
            for fused in self.fusion.fuse_subsets(features, chosen, averages=True):
                assert fused.average is not None
                logits = self.head.of_one(fused.features, index)
                of_subsets += [self.average_head.of_one(fused.average, index), logits]
        else:
            averages = [average([features[m] for m in self.present_names(present)]) for present in subsets]
            of_subsets += [self.average_head.of_one(f_avg, index) for f_avg in averages]
        heads = cast(Mapping[str, Head], self.modality_heads)
        of_modalities = [heads[m].of_one(f_m, index) for m, f_m in features.items() if m in heads]
        z, y, x = (slice(start, None, self.block) for start in offset(index, self.block))
        return TrainingOutputs([*of_modalities, *of_subsets], voxels=(z, y, x))

    def bytes_per_voxel(self, modalities: int, subsets: int, itemsize: int) -> int:
        """Return about how much memory a voxel of a window takes at the peak.

        The features of each modality, then the last stage of one U-Net or, when it is done, the logits of all
        subsets, and those of one in float32. So 15 subsets get the windows of one, and its masks. Measured on brains
        of 3.3 million voxels, 16 and 32 features.
        """
        classes = len(self.config.classes)
        features = math.ceil(self.config.features_per_stage[0] / self.block**3)
        working = max(9 * features, subsets * classes) * itemsize
        return features * modalities * itemsize + working + 12 * classes
