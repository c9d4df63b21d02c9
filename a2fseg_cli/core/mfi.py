"""U-Net-MFI: modality-adaptive feature interaction (Zhao, Yang and Sun, MICCAI 2022), after its abstract only.

Neither its full text nor code was at hand. Its abstract says: a unit, based on a graph and on attention, in which the
nodes are the modalities and learn complementary features from each other; a multi-modal code says which modalities
are there and guides it; units stand at several stages of a U-shaped network. The rest is inferred, and ours:
- Each modality has an encoder of `ConvNorm` blocks (`residual.py`, as RobustSeg and RFNet have), and there is one
  decoder.
- A unit stands at every stage, on the encoders' maps, so that the encoders run once for all subsets.
- The attention of a node to another comes from both nodes' mean features and the code (as in graph attention networks,
  Velickovic et al. 2018), with a softmax over the present nodes, channel by channel.
- The nodes are averaged behind a unit, so that any number of modalities gives the decoder's width.
- Widths, and no losses besides the prediction's, are ours: there are no published numbers of parameters to compare
  with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.layers import ConvNorm, kaiming
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.residual import ResidualDecoder, ResidualEncoder
from a2fseg_cli.core.shared_fusion import average, sum_of
from a2fseg_cli.core.sub_voxels import Head
from a2fseg_cli.core.unet import InstanceNorm


class Interaction(nn.Module):
    """The MFI unit of a stage.

    Args:
        modalities: All there are: the nodes.
        width: Channels of a node.
    """

    def __init__(self, modalities: Sequence[str], width: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.receive = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in modalities})
        self.send = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in modalities})
        self.code = nn.Linear(len(modalities), width)
        self.score = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(width, width))
        self.messages = nn.ModuleDict({m: nn.Conv3d(width, width, 1) for m in modalities})
        self.settle = nn.Sequential(InstanceNorm(width, affine=False), nn.LeakyReLU(0.2, inplace=True))

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the nodes (B, C, d, h, w) after they have learnt from each other.

        Args:
            maps: F_m (B, C, d, h, w) of the present modalities.
        """
        means = {m: x.mean(dim=(2, 3, 4)) for m, x in maps.items()}  # (B, C)
        flags = [float(m in maps) for m in self.modalities]
        code = self.code(next(iter(means.values())).new_tensor(flags))  # of the subset: (C,)
        messages = {m: self.messages[m](x) for m, x in maps.items()}
        nodes = []
        for m, x in maps.items():
            # e_mk = score(U_m g_m + V_k g_k + W c), a_mk = softmax over the present k
            scores = [self.score(self.receive[m](means[m]) + self.send[k](means[k]) + code) for k in maps]
            shares = torch.stack(scores).softmax(dim=0)[..., None, None, None]  # (N, B, C, 1, 1, 1)
            # F'_m = act(norm(F_m + sum over k of a_mk * M_k(F_k)))
            learnt = sum_of([share * messages[k] for k, share in zip(maps, shares, strict=True)])
            nodes.append(self.settle(x + learnt))
        return average(nodes)


class UNetMFI(PyramidNetwork):
    """The network, as far as its abstract tells it."""

    working_maps = (8, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths = config.features_per_stage
        self.encoders = nn.ModuleDict({m: ResidualEncoder(widths, ConvNorm) for m in config.modalities})
        self.interactions = nn.ModuleList(Interaction(config.modalities, width) for width in widths)
        self.decoder = ResidualDecoder(widths, ConvNorm)
        self.head = Head(widths[0], len(config.classes))
        kaiming(self)

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits of a subset."""
        nodes = [unit(maps) for unit, maps in zip(self.interactions, levels, strict=True)]
        logits: Tensor = self.head(self.decoder(nodes))
        return logits

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the prediction of each subset."""
        features = self.encode(images, union(subsets))
        return TrainingOutputs([self.decode(self.levels(features, present)) for present in subsets])
