"""RobustSeg: feature disentanglement and gated fusion (Chen et al., MICCAI 2019, https://arxiv.org/abs/2002.09708).

Code: https://github.com/cchen-cc/Robust-Mseg. Each modality's image is taken apart into an appearance code, a few
numbers, and a content code, maps of each level. The content of a subset, weighted by gates, gives the segmentation;
with an appearance code it gives the image of that modality back. What differs in the training of every network:
`network.py`.

Differences from the paper and its code:
- Zeros pad the convolutions where the code reflects the image.
- The images are reconstructed once a step, from the content of its last subset; a modality that a patient does not
  have is no target.
- Every modality's image has a last convolution of its own; in the code it stands outside the modality's scope and is
  one for all. Kernels start out as PyTorch draws them, in the code with a standard deviation of 0.01.
- The appearance encoder has as many strided convolutions as there are stages (four in the paper).
- The losses of the segmentation are this tool's cross-entropy + Dice (`losses.py`); the code weights the
  cross-entropy by how rare a class is, and its Dice counts the background and squares the probabilities. Its L2 penalty
  (0.0001) is the optimiser's weight decay, which adam, the optimiser of `paper`, has none of.
- The head starts out saying background (`sub_voxels.BACKGROUND_PRIOR`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.layers import ConcatConv, ConcatNorm, ConvNorm
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.residual import ResidualDecoder, ResidualEncoder
from a2fseg_cli.core.sub_voxels import Head
from a2fseg_cli.core.unet import InstanceNorm

# Weights in the loss, and the length of the appearance code: the code's.
RECONSTRUCTION_WEIGHT = 0.1
KL_WEIGHT = 0.1
APPEARANCE = 8
_LEAST_VARIANCE = 1e-8

_block = partial(ConvNorm, affine=True)


class AppearanceEncoder(nn.Module):
    """An image in, its appearance code out: convolutions without norms, which would take the appearance away."""

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        widths = [2 * width * min(2**stage, 4) for stage in range(stages + 1)]
        self.enter = nn.Conv3d(1, widths[0], 7, padding=3)
        self.down = nn.ModuleList(nn.Conv3d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.code = nn.Linear(widths[-1], APPEARANCE)

    def forward(self, x: Tensor) -> Tensor:
        """Return the code (B, 8) of x (B, 1, D, H, W)."""
        x = F.relu(self.enter(x))
        for convolution in self.down:
            x = F.relu(convolution(x))
        code: Tensor = self.code(x.mean(dim=(2, 3, 4)))
        return code


class AdaptiveBlock(nn.Module):
    """A residual block whose instance norms are scaled and shifted by the appearance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        self.norm = InstanceNorm(width, affine=False)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the map (B, C, d, h, w). Args: scale, shift: (B, C)."""
        scale, shift = scale[:, :, None, None, None], shift[:, :, None, None, None]
        y = F.relu(scale * self.norm(self.first(x)) + shift)
        result: Tensor = x + scale * self.norm(self.second(y)) + shift
        return result


class ImageDecoder(nn.Module):
    """One modality's image from its appearance code and the deepest content.

    Args:
        width: Channels of the deepest content.
        steps: How often the grid is doubled.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(APPEARANCE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.scale, self.shift = nn.Linear(width, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList(AdaptiveBlock(width) for _ in range(4))
        widths = [max(1, width // 2**step) for step in range(steps + 1)]
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv3d(a, b, 5, padding=2), nn.GroupNorm(1, b), nn.ReLU()) for a, b in pairwise(widths)
        )
        self.image = nn.Conv3d(widths[-1], 1, 7, padding=3)

    def forward(self, code: Tensor, content: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the image (B, 1, D, H, W) and KL(N(scale, shift^2) || N(0, 1)) of what the code became.

        Args:
            code: (B, 8).
            content: The fused maps of all levels, finest first; the deepest is decoded, the others give their grid.
        """
        hidden = self.mlp(code)
        scale, shift = self.scale(hidden), self.shift(hidden)
        x = content[-1]
        for block in self.blocks:
            x = block(x, scale, shift)
        for up, like in zip(self.up, content[-2::-1], strict=True):
            x = up(F.interpolate(x, size=like.shape[2:], mode="nearest"))
        mean, variance = scale.float(), shift.float().square() + _LEAST_VARIANCE
        kl = 0.5 * (mean.square() + variance - 1 - variance.log()).sum(dim=1).mean()
        return self.image(x), kl


class GatedFusion(nn.Module):
    """The fusion of a level: each modality's content times its gate, a map between 0 and 1, then one convolution."""

    def __init__(self, modalities: Sequence[str], width: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.gates = ConcatConv(modalities, width, len(modalities), kernel=3)
        self.join = ConcatNorm(modalities, width, width, affine=True)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return the fused content (B, C, d, h, w) of the present modalities' (B, C, d, h, w)."""
        gates = self.gates(maps).sigmoid()
        index = self.modalities.index
        fused: Tensor = self.join({m: gates[:, index(m) : index(m) + 1] * x for m, x in maps.items()})
        return fused


class RobustSeg(PyramidNetwork):
    """The network of the paper."""

    working_maps = (16, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, modalities = config.features_per_stage, config.modalities
        stages = len(widths)
        self.encoders = nn.ModuleDict({m: ResidualEncoder(widths, _block) for m in modalities})  # of the content
        self.appearance = nn.ModuleDict({m: AppearanceEncoder(widths[0], stages) for m in modalities})
        self.fusions = nn.ModuleList(GatedFusion(modalities, width) for width in widths)
        self.decoder = ResidualDecoder(widths, _block, mode="nearest")
        self.head = Head(widths[0], len(config.classes))
        self.image_decoders = nn.ModuleDict({m: ImageDecoder(widths[-1], stages - 1) for m in modalities})

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits of a subset."""
        return self._segment(self._content(levels))

    def _content(self, levels: Levels) -> list[Tensor]:
        return [fusion(maps) for fusion, maps in zip(self.fusions, levels, strict=True)]

    def _segment(self, content: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder(content))
        return logits

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the prediction of each subset, and the losses of the reconstructions and of the appearance codes."""
        features = self.encode(images, union(subsets))
        contents = [self._content(self.levels(features, present)) for present in subsets]
        index = self.config.modalities.index
        losses = []
        for m in self.present_names(union(subsets)):
            image = images[:, index(m) : index(m) + 1]
            decoded, kl = self.image_decoders[m](self.appearance[m](image), contents[-1])
            losses.append(RECONSTRUCTION_WEIGHT * (decoded.float() - image).abs().mean() + KL_WEIGHT * kl)
        return TrainingOutputs([self._segment(content) for content in contents], torch.stack(losses).sum())
