"""What a network must offer: all that the trainer, the predictor and the weights file know of it.

To add one: subclass `Network` in a file of this folder, and give it a row in `networks.py`. What each half of its work
is called, with the networks of the paper's Table 1 as examples:

- `encode` is what does not depend on the subset: the encoder of each modality (HeMIS, U-HVED, mmFormer, RFNet), of
  A2FSeg the whole U-Nets. It runs once for all subsets of a patient.
- `fuse_subsets` is the rest, once a subset: moments over the modalities and the layers behind (HeMIS), the product of
  the Gaussians and the decoder (U-HVED), the transformer across modalities and the decoder (mmFormer).
- `training_outputs` is the logits that the loss is taken over (with the auxiliary heads of mmFormer and RFNet), and
  losses of the network's own: the divergences and the reconstructions of U-HVED and RobustSeg. What only a training
  does (samples, dropout) belongs there: a network is not told by `train()` and `eval()` which of the two it is in.

What the trainer does for all networks alike differs from every author's code, and is not said again in each file: a
step trains on all modalities that are there and on some random subsets (`Recipe.random_subsets`) where the codes draw
one subset; the loss of every head is cross-entropy + Dice of the classes without the background (`losses.py`); a
penalty on the weights is the optimiser's decay, of which adam has none; augmentation, clipping and the running mean of
the weights are the recipe's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from a2fseg_cli.core.config import ModelConfig

# A missing-modality mask (M,): which of the configuration's modalities are there.
Present = Tensor | Sequence[bool]


@dataclass(frozen=True)
class Output:
    """What the fusion of one subset gives.

    Attributes:
        logits: The prediction, (B, classes, D, H, W).
        attention: Share of each present modality in the result, (B, 1, D, H, W) float32, the shares of a voxel add up
            to 1; empty unless asked for, and of a network that has none.
    """

    logits: Tensor
    attention: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingOutputs:
    """What the loss of a training step is made of.

    Attributes:
        heads: Logits (B, classes, D, H, W), all of the size of `voxels`; the loss is the sum of equation (4) over them.
        extra_loss: What the network adds of its own, a scalar, weighted by itself.
        voxels: Of which voxels (z, y, x) of the images the logits are.
    """

    heads: Sequence[Tensor]
    extra_loss: Tensor | None = None
    voxels: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None))


class Network(nn.Module, ABC):
    """A network for any non-empty subset of its modalities.

    `state_dict` is what a weights file holds. A modality's parameters should have its name in theirs, so that a network
    with other modalities can start from them. The constructor raises UsageError for a configuration it cannot be.

    Attributes:
        has_attention: `fuse_subsets` can tell the share of each modality.
        any_window: The network takes windows of any edges that the configuration allows, the larger the better. If not
            (learnt positions of a transformer), windows and crops are always the configuration's `patch_size`.
        fusion_reach: How many voxels beyond its own `fuse_subsets` looks at, where that is a number: then every map of
            the features has the images' grid, and a piece of them, cut out with so many voxels more on each side,
            gives that piece of the result. Padding is left out by that, and a large window fused in slabs of planes.
            None: features are what they are, and fused as a whole.
    """

    has_attention: bool = False
    any_window: ClassVar[bool] = True
    fusion_reach: int | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def encode(self, images: Tensor, present: Present) -> Mapping[str, Tensor]:
        """Return the features of the present modalities, under names of the network's own.

        Args:
            images: (B, M, D, H, W), z-scored. The slots of absent modalities hold anything, NaN included: not read.
            present: (M,) flags.
        """

    @abstractmethod
    def fuse_subsets(
        self, features: Mapping[str, Tensor], subsets: Sequence[Present], attention: Sequence[bool] | None = None
    ) -> Iterator[Output]:
        """Yield the output of each subset in turn, sharing what does not depend on the subset.

        Args:
            features: Of at least the modalities in the subsets, from `encode`.
            subsets: Missing-modality masks (M,).
            attention: Of which subsets to return the attention, one flag a subset; of none by default.
        """

    @abstractmethod
    def training_outputs(self, images: Tensor, subsets: Sequence[Present], progress: float = 1.0) -> TrainingOutputs:
        """Return what the loss of a step is made of.

        Args:
            images: (B, M, D, H, W), z-scored.
            subsets: Missing-modality masks (M,) that share the step; the first is of all modalities that are there.
            progress: Share of the training that is done, 0 to 1: some losses start later than others (RFNet).
        """

    @abstractmethod
    def bytes_per_voxel(self, modalities: int, subsets: int, itemsize: int) -> int:
        """Return about how much memory a voxel of a window takes at the peak; windows are planned by it.

        Args:
            modalities: How many are present.
            subsets: How many are fused; their logits are kept.
            itemsize: Bytes of one value of the maps, 2 or 4.
        """

    def present_names(self, present: Present) -> tuple[str, ...]:
        """Return the names of the modalities that a mask (M,) calls present. Raises: ValueError if none."""
        flags = [bool(flag) for flag in present]
        if len(flags) != len(self.config.modalities) or not any(flags):
            raise ValueError(f"present needs {len(self.config.modalities)} flags, at least one true; got {flags}")
        return tuple(m for m, flag in zip(self.config.modalities, flags, strict=True) if flag)

    def check_images(self, images: Tensor) -> None:
        """Refuse what is no batch of windows (B, M, D, H, W) of the configuration. Raises: ValueError."""
        least = self.config.smallest_edge
        if images.ndim != 5 or images.shape[1] != len(self.config.modalities):
            raise ValueError(f"images must be (B, {len(self.config.modalities)}, D, H, W); got {tuple(images.shape)}")
        if any(edge < least for edge in images.shape[2:]):
            raise ValueError(f"edges must be at least {least}; got {tuple(images.shape)}")
        if any(edge % self.config.sub_voxels for edge in images.shape[2:]):
            raise ValueError(f"edges must be multiples of {self.config.sub_voxels}; got {tuple(images.shape)}")

    def fuse(self, features: Mapping[str, Tensor], present: Present, attention: bool = False) -> Output:
        """Return the output of one subset; arguments as of `fuse_subsets`."""
        return next(self.fuse_subsets(features, [present], [attention]))

    def forward(self, images: Tensor, present: Present) -> Tensor:
        """Return the logits (B, classes, D, H, W) of images (B, M, D, H, W), all with the same modalities (M,)."""
        return self.fuse(self.encode(images, present), present).logits


def union(subsets: Sequence[Present]) -> list[bool]:
    """Return which modalities occur in any of the masks (M,)."""
    return [any(flags) for flags in zip(*subsets, strict=True)]
