"""U-HVED: hetero-modal variational encoder-decoder (Dorent et al., MICCAI 2019; https://github.com/ReubenDo/U-HVED).

At each level of a 3D U-Net every modality gives a Gaussian of the latent z; those of a subset and the prior are
multiplied. A decoder turns z into the segmentation, others into the images, absent ones included. What differs in the
training of every network: `network.py`.

Differences from the paper and its code:
- The segmentation at inference comes from the mean of z; the code draws a sample, so that no two runs are the same.
- The divergences are the mean over the subsets of the step, from q(z | all that are there) to each; the code takes the
  mean over all subsets, from that of the subset that was drawn. The images are reconstructed once a step, from its last
  subset.
- A modality that a patient does not have has no Gaussian, and its image is no target.
- Maps are enlarged, and kernels start out, as in `hemis.py`; the 1e-5 of the squared kernels is left out here too.
- The head of the segmentation has a bias, and starts out saying background (`sub_voxels.BACKGROUND_PRIOR`); the loss of
  the segmentation is this tool's cross-entropy + Dice (`losses.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.hemis import Decoder, Encoder, halved
from a2fseg_cli.core.network import Present, TrainingOutputs, union
from a2fseg_cli.core.pyramid import Levels, PyramidNetwork
from a2fseg_cli.core.shared_fusion import sum_of
from a2fseg_cli.core.sub_voxels import Head

# Weights of the divergences and of the reconstructions in the loss, and the limits of log sigma^2: the code's.
KL_WEIGHT = 0.1
RECONSTRUCTION_WEIGHT = 0.1
LOG_VARIANCE = 50.0
_EPSILON = 1e-7


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions, one a channel and voxel: mean and variance (B, C, D, H, W), float32."""

    mean: Tensor
    variance: Tensor

    def sample(self) -> Tensor:
        """Return a draw, through which gradients pass (reparametrisation)."""
        return self.mean + self.variance.sqrt() * torch.randn_like(self.mean)

    def divergence(self, other: Gaussian) -> Tensor:
        """Return KL(self || other), the mean over channels and voxels."""
        ratio = (self.variance + (self.mean - other.mean).square()) / (other.variance + _EPSILON)
        logs = other.variance.add(_EPSILON).log() - self.variance.add(_EPSILON).log()
        return 0.5 * (logs + ratio - 1).mean()


class UHVED(PyramidNetwork):
    """The network of the paper."""

    working_maps = (8, 4)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widths, halves, modalities = config.features_per_stage, halved(config), config.modalities
        doubled = [2 * half for half in halves]  # mean and log sigma^2
        self.encoders = nn.ModuleDict({m: Encoder(widths, doubled) for m in modalities})
        self.decoder = Decoder(widths, halves, Head(halves[0], len(config.classes)))
        self.image_decoders = nn.ModuleDict(
            {m: Decoder(widths, halves, nn.Conv3d(halves[0], 1, 1, bias=False)) for m in modalities}
        )

    def decode(self, levels: Levels) -> Tensor:
        """Return the logits of a subset, from the mean of z."""
        logits: Tensor = self.decoder([posterior(maps).mean for maps in levels])
        return logits

    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return the prediction of each subset from a sample of z, the divergences and the reconstructions."""
        features = self.encode(images, union(subsets))
        everything = [posterior(maps) for maps in self.levels(features, union(subsets))]
        heads, divergences, z = [], [], []
        for present in subsets:
            posteriors = [posterior(maps) for maps in self.levels(features, present)]
            z = [one.sample() for one in posteriors]
            heads.append(self.decoder(z))
            for whole, one in zip(everything, posteriors, strict=True):
                # KL(q(z | all) || q(z | subset)) brings the subsets together, KL(q(z | subset) || p(z)) to the prior.
                divergences += [whole.divergence(one), one.divergence(prior_like(one.mean))]
        kl = sum_of(divergences) / (len(everything) * len(subsets))
        loss = KL_WEIGHT * kl + RECONSTRUCTION_WEIGHT * self._reconstruction(z, images, union(subsets))
        return TrainingOutputs(heads, loss)

    def _reconstruction(self, z: Sequence[Tensor], images: Tensor, present: Present) -> Tensor:
        """Return the mean squared error of the images that are there, decoded from z."""
        names, index = self.present_names(present), self.config.modalities.index
        errors = [
            (self.image_decoders[m](z).float() - images[:, index(m) : index(m) + 1]).square().mean() for m in names
        ]
        return torch.stack(errors).mean()


def posterior(maps: Mapping[str, Tensor]) -> Gaussian:
    """Return q(z | subset), the product of the modalities' Gaussians N(mu_m, sigma_m^2) and of the prior N(0, 1).

    1/sigma^2 = 1 + sum of 1/sigma_m^2 and mu = sigma^2 sum of mu_m/sigma_m^2.

    Args:
        maps: mu_m and log sigma_m^2, (B, 2 C, D, H, W), of the present modalities.
    """
    precisions, weighted = [], []
    for both in maps.values():
        mean, log_variance = both.float().chunk(2, dim=1)
        precision = 1 / (log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE).exp() + _EPSILON)
        precisions.append(precision)
        weighted.append(mean * precision)
    variance = 1 / (1 + sum_of(precisions))
    return Gaussian(variance * sum_of(weighted), variance)


def prior_like(x: Tensor) -> Gaussian:
    """Return p(z), N(0, 1)."""
    return Gaussian(torch.zeros_like(x), torch.ones_like(x))
