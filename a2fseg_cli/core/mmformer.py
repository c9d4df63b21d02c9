"""mmFormer: a multimodal medical transformer (Zhang et al., MICCAI 2022; code: https://github.com/YaoZhang93/mmFormer).

Each modality has a convolutional encoder and a transformer over its deepest map; a second transformer runs over the
tokens of all modalities, where an absent one is zeros and its learnt positions. A convolutional decoder leads back up.
With the code's weights and the first two differences taken out of it, the probabilities of all heads are the code's (to
8e-6, crops of 32 x 32 x 32 voxels). What differs in the training of every network: `network.py`.

Differences from the paper and its code:
- Zeros pad the convolutions where the code reflects the image.
- Behind the second transformer, a voxel gets the tokens that belong to it, of all modalities; the code's `view` of
  (modality, voxel) as (voxel, modality) mixes voxels.
- 1x1x1 convolutions that the code makes and never calls (one a modality) are left out.
- Dropout acts once on a sum's branch, where the code drops the attention's branch twice.
- The losses are this tool's cross-entropy + Dice (`losses.py`) for every network; the code weights the cross-entropy
  by how rare a class is and counts the background's Dice. Heads start out saying background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.layers import ConcatConv, NormConv, kaiming, upsampled_head
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.residual import ResidualDecoder, ResidualEncoder
from a2fseg_cli.core.sub_voxels import Head
from a2fseg_cli.core.unet import InstanceNorm
from a2fseg_cli.errors import UsageError

HEADS = 8
TOKEN_WIDTHS = 4  # the tokens' width in widths of the deepest stage: 512 for 128
HIDDEN_WIDTHS = 8  # of the MLP, in the tokens' width: 4096
DROPOUT = 0.1  # in training
MOST_TOKENS = 2**15  # of one modality; a whole brain at 1 mm has about 1,000


class Transformer(nn.Module):
    """One layer: z = MSA(LN(x + p)) + x + p, then FFN(LN(z)) + z.

    Args:
        width: Of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, HIDDEN_WIDTHS * width)
        self.narrow = nn.Linear(HIDDEN_WIDTHS * width, width)

    def forward(self, x: Tensor, positions: Tensor, dropout: float) -> Tensor:
        """Return the tokens (B, N, width). Args: positions: (1, N, width). dropout: 0 but in training."""
        x = x + positions
        batch, count, width = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # softmax(q k^T / sqrt(d)) v
        x = x + F.dropout(self.project(mixed.transpose(1, 2).reshape(batch, count, width)), dropout)
        hidden = F.dropout(F.gelu(self.widen(self.mlp_norm(x))), dropout)
        return x + F.dropout(self.narrow(hidden), dropout)


class JoinedLevel(nn.Module):
    """The fusion of a level but the deepest: of the concatenated modalities, with zeros for those that are absent."""

    def __init__(self, modalities: Sequence[str], width: int) -> None:
        super().__init__()
        self.normalise = nn.Sequential(InstanceNorm(width, affine=False), nn.LeakyReLU(0.2, inplace=True))
        self.join = ConcatConv(modalities, width, width)
        self.refine = nn.Sequential(NormConv(width, width), NormConv(width, width, 1))

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return the fused map (B, C, d, h, w) of the present modalities' (B, C, d, h, w)."""
        fused: Tensor = self.refine(self.join({m: self.normalise(x) for m, x in maps.items()}))
        return fused


class MmFormer(PyramidNetwork):
    """The network of the paper. Its positions are learnt for one size of window."""

    any_window = False
    working_maps = (16, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, classes, modalities = config.features_per_stage, len(config.classes), config.modalities
        deepest, count = widths[-1], len(modalities)
        width = TOKEN_WIDTHS * deepest
        if width % HEADS:
            raise UsageError(f"features_per_stage {widths}: the last must be even, so that {HEADS} heads share it.")
        self.grid = [math.ceil(edge / config.stride) for edge in config.patch_size]  # of the tokens
        tokens = math.prod(self.grid)
        if tokens > MOST_TOKENS:
            raise UsageError(f"patch_size {config.patch_size}: {tokens} tokens, mmformer has up to {MOST_TOKENS}.")
        self.encoders = nn.ModuleDict({m: ResidualEncoder(widths, NormConv, _plain) for m in modalities})
        self.to_tokens = nn.ModuleDict({m: nn.Conv3d(deepest, width, 1) for m in modalities})
        self.positions = nn.ParameterDict({m: nn.Parameter(torch.zeros(1, tokens, width)) for m in modalities})
        self.intra = nn.ModuleDict({m: Transformer(width) for m in modalities})
        self.inter = Transformer(width)
        self.from_tokens = nn.Conv3d(count * width, count * deepest, 1)
        self.joined = nn.ModuleList(JoinedLevel(modalities, w) for w in widths[:-1])
        self.joined_deepest = nn.Sequential(
            NormConv(count * deepest, deepest, 1), NormConv(deepest, deepest), NormConv(deepest, deepest, 1)
        )
        self.decoder = ResidualDecoder(widths, NormConv)
        self.level_heads = nn.ModuleList(Head(w, classes) for w in widths[1:])
        self.head = Head(widths[0], classes)
        self.modality_decoder = ResidualDecoder(widths, NormConv)  # one for all modalities
        self.modality_head = Head(widths[0], classes)
        kaiming(self)

    def encode(self, images: Tensor, present: Present) -> dict[str, Tensor]:
        """Return the maps of the present modalities, `t1/0` the finest of t1, and their tokens, `t1/tokens`."""
        return self._encode(images, present, dropout=0)

    def _encode(self, images: Tensor, present: Present, dropout: float) -> dict[str, Tensor]:
        if tuple(images.shape[2:]) != self.config.patch_size:
            raise ValueError(f"edges must be {self.config.patch_size}; got {tuple(images.shape)}")
        features = super().encode(images, present)
        last = len(self.config.features_per_stage) - 1
        for m in self.present_names(present):
            local = self.to_tokens[m](features[f"{m}/{last}"]).flatten(2).mT  # (B, tokens, width)
            features[f"{m}/tokens"] = self.intra[m](local, self.positions[m], dropout)
        return features

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits; the last of the levels holds the tokens instead of the maps."""
        return self._decode(levels, dropout=0)[0]

    def levels(self, features: Mapping[str, Tensor], present: Present) -> Levels:
        """Return the maps of a subset's modalities, and as the deepest level their tokens."""
        tokens = {m: features[f"{m}/tokens"] for m in self.present_names(present)}
        return [*super().levels(features, present)[:-1], tokens]

    def _decode(self, levels: Levels, dropout: float) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and those of the auxiliary heads, deepest first."""
        x = self.joined_deepest(self._across_modalities(levels[-1], dropout))
        auxiliary = []
        for level in reversed(range(len(levels) - 1)):
            auxiliary.append(self.level_heads[level](x))
            fused = self.joined[level](levels[level])
            x = self.decoder.merged(level, (fused, self.decoder.raised(x, level, fused)))
        return self.head(x), auxiliary

    def _across_modalities(self, tokens: Mapping[str, Tensor], dropout: float) -> Tensor:
        """Return the modality-invariant features, (B, M C, d, h, w) of the deepest stage, from the present tokens.

        The tokens of an absent modality are delta_m F_m with delta_m = 0.
        """
        modalities = self.config.modalities
        absent = torch.zeros_like(next(iter(tokens.values())))
        joint = torch.cat([tokens.get(m, absent) for m in modalities], dim=1)
        positions = torch.cat([self.positions[m] for m in modalities], dim=1)
        mixed = self.inter(joint, positions, dropout).chunk(len(modalities), dim=1)
        maps = torch.cat(mixed, dim=2).mT.reshape(
            absent.shape[0], -1, *self.grid
        )  # a voxel's tokens, modality by modality
        result: Tensor = self.from_tokens(maps)
        return result

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the auxiliary heads on each modality's encoder, then of each subset those of the decoder and its own.

        L = L_fused + sum over the modalities of L_m + sum over the stages of L_l.
        """
        features = self._encode(images, union(subsets), DROPOUT)
        of_modalities = super().levels(features, union(subsets))
        heads = [
            self.modality_head(self.modality_decoder([level[m] for level in of_modalities])) for m in of_modalities[0]
        ]
        for present in subsets:
            logits, auxiliary = self._decode(self.levels(features, present), DROPOUT)
            heads += [*(upsampled_head(one, logits) for one in auxiliary), logits]
        return TrainingOutputs(heads)


def _plain(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    """Return a convolution with nothing before it: images are normalised already."""
    return nn.Conv3d(before, after, kernel, stride, padding=kernel // 2)
