"""RFNet: region-aware fusion (Ding, Yu and Yang, ICCV 2021; code: https://github.com/dyh127/RFNet).

The region of each class is first guessed at each level (a region probability map), and the modalities are weighted
anew in each region: FLAIR may lead in the oedema while T1c leads in the enhancing tumour. With the code's weights, and
zeros for padding in both, the probabilities of all heads are the code's (to 3e-6, crops of 24 x 16 x 16 voxels). What
differs in the training of every network: `network.py`.

Differences from the paper and its code:
- Zeros pad the convolutions where the code reflects the image, which is slower and changes a window's outermost
  voxels only.
- The losses are this tool's cross-entropy + Dice (`losses.py`) for every network, so that networks can be compared;
  the code weights the cross-entropy by how rare a class is and counts the background's Dice.
- The MLPs that weigh the modalities start out as PyTorch draws linear layers, in the code as it draws convolutions.
- Heads start out saying background (`sub_voxels.BACKGROUND_PRIOR`).
- An absent modality has no term in a sum, where the code multiplies zeros: the same, for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.layers import ConcatNorm, ConvNorm, kaiming, upsampled_head
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.residual import ResidualDecoder, ResidualEncoder
from a2fseg_cli.core.shared_fusion import sum_of
from a2fseg_cli.core.sub_voxels import Head
from a2fseg_cli.errors import UsageError

# Share of the training in which the fused prediction has no loss yet, and the heads on the modalities and the region
# probability maps learn alone: 20 of 300 epochs (the code's job.sh).
FUSION_STARTS = 20 / 300
_LEAST_MEAN = 1e-7  # of a region's probability, by which features are divided; the code's


class RegionMaps(nn.Module):
    """The region probability map of a level: from its modalities and, but for the deepest level, from the decoder.

    Args:
        modalities: All there are.
        width: Channels of the level.
        narrow: Channels in front of the classes.
        classes: How many there are.
        decoder: Whether the decoder's map of this level is there too.
    """

    def __init__(self, modalities: Sequence[str], width: int, narrow: int, classes: int, decoder: bool) -> None:
        super().__init__()
        inner = max(1, width // 4)
        self.join = ConcatNorm(modalities, width, inner)
        self.embed = nn.Sequential(ConvNorm(inner, inner), ConvNorm(inner, width, 1))
        self.classify = nn.Sequential(ConvNorm(2 * width if decoder else width, narrow, 1), Head(narrow, classes))

    def forward(self, maps: Mapping[str, Tensor], decoded: Tensor | None) -> Tensor:
        """Return the logits (B, classes, d, h, w)."""
        joint = self.embed(self.join(maps))
        logits: Tensor = self.classify(joint if decoded is None else torch.cat([decoded, joint], dim=1))
        return logits


class ModalityWeights(nn.Module):
    """The weight of each modality in one region: an MLP on the region's mean features, then a sigmoid."""

    def __init__(self, modalities: Sequence[str], width: int, hidden: int) -> None:
        super().__init__()
        self.of = nn.ModuleDict({m: nn.Linear(width, hidden, bias=False) for m in modalities})
        self.of_size = nn.Linear(1, hidden)
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.weigh = nn.ModuleDict({m: nn.Linear(hidden, 1) for m in modalities})

    def forward(self, means: Mapping[str, Tensor], size: Tensor) -> dict[str, Tensor]:
        """Return the weight (B, 1) of each present modality.

        Args:
            means: Mean features of the region, (B, C), of each present modality.
            size: Mean probability of the region, (B, 1).
        """
        hidden = self.act(self.of_size(size) + sum_of([self.of[m](mean) for m, mean in means.items()]))
        return {m: self.weigh[m](hidden).sigmoid() for m in means}


class RegionAwareFusion(nn.Module):
    """The fusion of a level: by region, beside a shortcut that knows of no regions; half of the channels each."""

    def __init__(self, modalities: Sequence[str], width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(ModalityWeights(modalities, width, hidden) for _ in range(classes))
        self.of_regions = nn.Sequential(
            ConvNorm(width * classes, width, 1), ConvNorm(width, width), ConvNorm(width, width // 2, 1)
        )
        self.join = ConcatNorm(modalities, width, width)
        self.shortcut = nn.Sequential(ConvNorm(width, width), ConvNorm(width, width - width // 2, 1))

    def forward(self, maps: Mapping[str, Tensor], regions: Tensor) -> Tensor:
        """Return the fused map (B, C, d, h, w).

        Args:
            maps: F_m (B, C, d, h, w) of the present modalities.
            regions: The region probability map P (B, classes, d, h, w).
        """
        voxels = regions[0, 0].numel()
        flat = regions.flatten(2)
        sizes = flat.mean(dim=2) + _LEAST_MEAN  # (B, classes)
        # Mean of F_m * P_r over the voxels, divided by the mean of P_r: region-based average pooling, (B, classes, C).
        means = {m: flat @ x.flatten(2).mT / voxels / sizes[:, :, None] for m, x in maps.items()}
        fused = []
        for r, weights in enumerate(self.weights):
            w = weights({m: mean[:, r] for m, mean in means.items()}, sizes[:, r : r + 1])
            # Sum over m of w_mr * (F_m * P_r), the region's features.
            features = sum_of([w[m][:, :, None, None, None] * x for m, x in maps.items()])
            fused.append(features * regions[:, r : r + 1])
        return torch.cat([self.of_regions(torch.cat(fused, dim=1)), self.shortcut(self.join(maps))], dim=1)


class RFNet(PyramidNetwork):
    """The network of the paper."""

    working_maps = (20, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, classes, modalities = config.features_per_stage, len(config.classes), config.modalities
        if min(widths) < 2:
            raise UsageError(f"features_per_stage {widths}: rfnet halves the channels of each stage, give 2 or more.")
        last = len(widths) - 1
        self.encoders = nn.ModuleDict({m: ResidualEncoder(widths, ConvNorm) for m in modalities})
        self.region_maps = nn.ModuleList(
            RegionMaps(modalities, width, widths[0], classes, level < last) for level, width in enumerate(widths)
        )
        self.fusions = nn.ModuleList(RegionAwareFusion(modalities, width, widths[-1], classes) for width in widths)
        self.decoder = ResidualDecoder(widths, ConvNorm)
        self.head = Head(widths[0], classes)
        self.modality_decoder = ResidualDecoder(widths, ConvNorm)  # one for all modalities
        self.modality_head = Head(widths[0], classes)
        kaiming(self)

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits of a subset."""
        return self._decode(levels)[0]

    def _decode(self, levels: Levels) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and those of the region probability maps, deepest first."""
        maps_of_levels: list[Tensor] = []
        x = None
        for level in reversed(range(len(levels))):
            maps = levels[level]
            if x is not None:
                x = self.decoder.raised(x, level, next(iter(maps.values())))
            regions = self.region_maps[level](maps, x)
            maps_of_levels.append(regions)
            # The fusion does not teach the map: it learns from its own loss only.
            fused = self.fusions[level](maps, regions.detach().softmax(dim=1))
            x = fused if x is None else self.decoder.merged(level, (fused, x))
        return self.head(x), maps_of_levels

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the heads on each modality, then of each subset the prediction and the region probability maps."""
        features = self.encode(images, union(subsets))
        of_modalities = self.levels(features, union(subsets))
        heads = [
            self.modality_head(self.modality_decoder([level[m] for level in of_modalities])) for m in of_modalities[0]
        ]
        for present in subsets:
            logits, regions = self._decode(self.levels(features, present))
            heads += [upsampled_head(one, logits) for one in regions]
            if progress >= FUSION_STARTS:
                heads.append(logits)
        return TrainingOutputs(heads)
