"""HeMIS: hetero-modal image segmentation (Havaei et al., MICCAI 2016), in its U-Net form U-HeMIS (Dorent et al. 2019).

A subset becomes a fixed number of maps by statistics over its modalities: their mean and their variance. HeMIS does
so once, behind a short stack of convolutions on 2D slices; Dorent et al. (MICCAI 2019, code and weights:
https://github.com/ReubenDo/U-HVED) do it at each level of a 3D U-Net. The latter is what later papers compare with,
those of A2FSeg's Table 1 among them, and what is built here. It has no losses of its own. What differs in the training
of every network: `network.py`.

Differences from it:
- The variance is that of the modalities present (divided by their number), as in that code; HeMIS divides by one less.
- All subsets are drawn from the start; HeMIS trains on all modalities first (pseudo-curriculum).
- The decoder's maps are enlarged with the corners' centres kept; that code's (TensorFlow 1) lie half a voxel off.
- The loss is this tool's cross-entropy + Dice (`losses.py`); that code's Dice counts the background too, and it adds
  1e-5 of the squared kernels. These start out as PyTorch draws them.
- The head has a bias, and starts out saying background (`sub_voxels.BACKGROUND_PRIOR`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.layers import NormConv, resized
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.sub_voxels import Head
from a2fseg_cli.errors import UsageError

# Of LeakyReLU, NiftyNet's, which that code is written in.
_SLOPE = 0.02


def _block(before: int, middle: int, after: int) -> nn.Sequential:
    parts = [NormConv(a, b, slope=_SLOPE, affine=True, bias=False) for a, b in ((before, middle), (middle, after))]
    return nn.Sequential(*parts)


class Encoder(nn.Module):
    """One modality in, a map of each level out; max pooling between them.

    Args:
        widths: Channels inside each level, finest first.
        outputs: Channels of each level's map.
    """

    def __init__(self, widths: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.enter = nn.Conv3d(1, widths[0], 1, bias=False)
        before = [widths[0], *outputs[:-1]]
        self.blocks = nn.ModuleList(
            _block(b, width, after) for b, width, after in zip(before, widths, outputs, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of all levels, finest first, for x (B, 1, D, H, W)."""
        x = F.leaky_relu(self.enter(x), _SLOPE)
        levels: list[Tensor] = []
        for block in self.blocks:
            # An odd edge is halved upwards: no plane is left out.
            x = block(F.max_pool3d(x, 2, ceil_mode=True) if levels else x)
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """From one map a level to one of the finest level, of half its width.

    Args:
        widths: Channels inside each level, finest first.
        skips: Channels of the map that each level gets.
        head: The last layer.
    """

    def __init__(self, widths: Sequence[int], skips: Sequence[int], head: nn.Module) -> None:
        super().__init__()
        halves = [width // 2 for width in widths]
        deep = [*halves[1:-1], skips[-1]]
        self.blocks = nn.ModuleList(
            _block(below + skip, width, half)
            for below, skip, width, half in zip(deep, skips[:-1], widths[:-1], halves[:-1], strict=True)
        )
        self.head = head

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        """Return what the head gives (B, channels, D, H, W), of one map a level, finest first."""
        x = skips[-1]
        for block, skip in zip(reversed(self.blocks), skips[-2::-1], strict=True):
            x = block(torch.cat([resized(x, skip), skip], dim=1))
        result: Tensor = self.head(x)
        return result


def halved(config: ModelConfig) -> list[int]:
    """Return half of each width. Raises: UsageError where it is none."""
    if min(config.features_per_stage) < 2:
        raise UsageError(
            f"features_per_stage {config.features_per_stage}: {config.architecture} halves them; give 2 or more."
        )
    return [width // 2 for width in config.features_per_stage]


class HeMIS(PyramidNetwork):
    """The network of the paper, as a U-Net."""

    working_maps = (6, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, halves = config.features_per_stage, halved(config)
        self.encoders = nn.ModuleDict({m: Encoder(widths, halves) for m in config.modalities})
        self.decoder = Decoder(widths, [2 * half for half in halves], Head(halves[0], len(config.classes)))

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits of a subset."""
        logits: Tensor = self.decoder([moments(list(maps.values())) for maps in levels])
        return logits

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the prediction of each subset."""
        features = self.encode(images, union(subsets))
        return TrainingOutputs([self.decode(self.levels(features, present)) for present in subsets])


def moments(maps: Sequence[Tensor]) -> Tensor:
    """Return mean and variance over the modalities, (B, 2 C, D, H, W), of maps (B, C, D, H, W); of one, variance 0.

    E[C] = 1/N sum of C_k, Var[C] = 1/N sum of (C_k - E[C])^2.
    """
    stacked = torch.stack(list(maps))
    mean = stacked.mean(dim=0)
    return torch.cat([mean, (stacked - mean).square().mean(dim=0)], dim=1)
