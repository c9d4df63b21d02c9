"""What the networks with an encoder for each modality, a fusion at each level and one decoder have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from a2fseg_cli.core.network import Network, Output, Present

# Of each level, finest first, the map (B, C, D, H, W) of each modality.
Levels = list[dict[str, Tensor]]


class PyramidNetwork(Network):
    """Encoders that run once for all subsets; fusion and decoder run for each subset by itself.

    Attributes:
        encoders: Of each modality, from an image (B, 1, D, H, W) to the maps of its levels, finest first.
        working_maps: How many maps of the finest width the decoder holds at its peak, beside the encoders' maps, and
            how many more of each modality. Measured at `tiny` on a brain of 72 x 88 x 72 voxels in bf16.
    """

    working_maps: ClassVar[tuple[int, int]] = (6, 0)
    encoders: nn.ModuleDict

    @abstractmethod
    def decode(self, levels: Levels) -> Tensor:
        """Return the logits (B, classes, D, H, W) of the maps of a subset's modalities."""

    def encode(self, images: Tensor, present: Present) -> dict[str, Tensor]:
        """Return the maps of the present modalities, named `t1/0` for the finest level of t1."""
        self.check_images(images)
        index = self.config.modalities.index
        return {
            f"{m}/{level}": features
            for m in self.present_names(present)
            for level, features in enumerate(self.encoders[m](images[:, index(m) : index(m) + 1]))
        }

    def levels(self, features: Mapping[str, Tensor], present: Present) -> Levels:
        """Return the maps of a subset's modalities, out of what `encode` returned."""
        names = self.present_names(present)
        return [{m: features[f"{m}/{level}"] for m in names} for level in range(len(self.config.features_per_stage))]

    def fuse_subsets(
        self, features: Mapping[str, Tensor], subsets: Sequence[Present], attention: Sequence[bool] | None = None
    ) -> Iterator[Output]:
        """Yield the output of each subset in turn; nothing behind the encoders is shared."""
        for present in subsets:
            yield Output(self.decode(self.levels(features, present)))

    def bytes_per_voxel(self, modalities: int, subsets: int, itemsize: int) -> int:
        """Return about how much memory a voxel of a window takes at the peak: maps, decoder, logits of all subsets."""
        widths, classes = self.config.features_per_stage, len(self.config.classes)
        kept = sum(width / 8**level for level, width in enumerate(widths))
        fixed, each = self.working_maps
        working = max(widths[0] * (fixed + each * modalities), subsets * classes)
        return int(itemsize * (modalities * kept + working)) + 12 * classes
