"""The loaded network and how it is run: device, precision, windows, mirroring, what to do when memory runs out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2fseg_cli.core.a2fseg import A2FSeg, parameter_shapes
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute, available_memory_bytes, choose_compute, is_out_of_memory
from a2fseg_cli.errors import ResourceError
from a2fseg_cli.inference.windows import WindowPlan, plan_windows, stream_windows
from a2fseg_cli.weights.file_format import load_weights

FloatVolume = npt.NDArray[np.float32]

# The most that one window's maps may take on a CPU. A larger window computes fewer voxels in all, but the
# tool should leave a laptop usable.
MOST_WINDOW_BYTES = 3 * 2**30
# The most that the logits of several subsets may take at a time. All 15 of a brain of 3.4 million voxels take
# 0.4 GiB in half precision, and 0.8 GiB where they are summed up over several windows.
MOST_LOGITS_BYTES = 2**30
# Voxels that are fused at a time. Each slab repeats the planes that the kernel reaches beyond it; larger ones take
# memory. 15 subsets of a brain at full width took 29.4, 28.3 and 26.1 s with slabs of 2**17, 2**18 and 2**19.
SLAB_VOXELS = 2**19

# A missing-modality mask (M,), and whether its attention is wanted.
Wanted = tuple[Sequence[bool], bool]


@dataclass(frozen=True)
class WindowOptions:
    """How windows are laid and read.

    Attributes:
        window: Edges (D, H, W) in voxels; None plans the one with the least work within memory.
        overlap: Least overlap of neighbouring windows, a share of the edge.
        tta: Test-time mirroring: the mean of the logits over all eight flips.
    """

    window: tuple[int, int, int] | None = None
    overlap: float = 0.5
    tta: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the network says, on its own grid.

    Attributes:
        probabilities: (classes, d, h, w) float32.
        attention: Mean over channels of What_m of each present modality, (d, h, w); empty unless asked for.
        plan: The windows.
    """

    probabilities: FloatVolume
    attention: dict[str, FloatVolume]
    plan: WindowPlan


class Predictor:
    """A network, and how it is run on any number of patients.

    Args:
        model: The network, on the device.
        compute: Device and precision.
        inference: How windows are laid.
    """

    def __init__(self, model: A2FSeg, compute: Compute, inference: WindowOptions | None = None) -> None:
        self.model, self.compute, self.inference = model, compute, inference or WindowOptions()

    @property
    def config(self) -> ModelConfig:
        """The network's configuration."""
        return self.model.config

    def bytes_per_voxel(self, modalities: int, subsets: int = 1) -> int:
        """Return about how much memory a voxel of a window takes at the peak, with so many modalities present.

        The features of each modality, then the last stage of one U-Net or, when it is done, the logits of all
        subsets, and those of one in float32; mirroring keeps all of them in float32 beside the U-Nets. So 15 subsets
        get the windows of one, and its masks. Measured on brains of 3.3 million voxels, 16 and 32 features.
        """
        features, classes = self.config.features_per_stage[0], len(self.config.classes)
        itemsize = self.compute.dtype.itemsize
        working = max(9 * features, subsets * classes) * itemsize
        mirrored = 4 * subsets * classes if self.inference.tta else 0
        return features * modalities * itemsize + working + 12 * classes + mirrored

    def plan(self, shape: tuple[int, int, int], modalities: int, bytes_allowed: float, subsets: int = 1) -> WindowPlan:
        """Return the windows for a volume. Raises: ResourceError when not even the smallest window fits."""
        try:
            return plan_windows(
                shape,
                self.config.smallest_edge,
                self.config.edge_step,
                max_voxels=bytes_allowed / self.bytes_per_voxel(modalities, subsets),
                overlap=self.inference.overlap,
                window=self.inference.window,
            )
        except ValueError as error:
            raise ResourceError(
                f"Out of memory: {bytes_allowed / 2**30:.2f} GiB are free for the network's maps; {error}. "
                "Close other programs or take another machine."
            ) from error

    def segment(self, images: FloatVolume, present: Sequence[bool], attention: bool = False) -> Prediction:
        """Return the probabilities for a prepared patient; windows shrink until they fit the device's memory.

        Args:
            images: (M, d, h, w), z-scored, on the working grid.
            present: (M,) the missing-modality mask.
            attention: Also return the attention maps.

        Raises:
            ResourceError: not even the smallest window fits.
        """
        (result,) = self.segment_subsets(images, [present], [attention])
        return result

    def segment_subsets(
        self, images: FloatVolume, subsets: Sequence[Sequence[bool]], attention: Sequence[bool] | None = None
    ) -> Iterator[Prediction]:
        """Yield the probabilities of each subset in turn; per window every encoder runs once for all of them.

        The logits of as many subsets as `MOST_LOGITS_BYTES` holds exist at a time. With several windows they are
        summed up together, and the encoders run again for the next such group.

        Args:
            images: (M, d, h, w), z-scored, on the working grid.
            subsets: Missing-modality masks (M,).
            attention: Of which subsets to return the attention maps, one flag a subset; of none by default.

        Raises:
            ResourceError: not even the smallest window fits.
        """
        wanted: list[Wanted] = list(zip(subsets, attention or [False] * len(subsets), strict=True))
        volume = torch.from_numpy(images)
        shape = (images.shape[1], images.shape[2], images.shape[3])
        allowed = 0.7 * available_memory_bytes(self.compute.device)
        if self.compute.device.type != "cuda":
            allowed = min(allowed, MOST_WINDOW_BYTES)
        while wanted:
            modalities = sum(_union(wanted))
            plan = self.plan(shape, modalities, allowed, len(wanted))
            alone = len(plan.starts) == 1
            group = wanted[: len(wanted) if alone else self._kept_together(math.prod(plan.padded), 4)]
            predict = partial(self._predict, subsets=group, shape=plan.shape if alone else plan.window)
            try:
                for result in stream_windows(predict, volume, plan, self.compute.device):
                    present, with_attention = wanted.pop(0)
                    yield self._segmentation(result, present, with_attention, plan)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.inference.window is not None:
                    raise ResourceError(
                        f"Out of memory: --window {self.inference.window} does not fit on {self.compute.device}; "
                        "leave it out to have it planned."
                    ) from error
                allowed = 0.5 * self.bytes_per_voxel(modalities, len(wanted)) * math.prod(plan.window)
                if self.compute.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _kept_together(self, voxels: int, itemsize: int) -> int:
        """Return of how many subsets the logits of so many voxels are kept at a time."""
        return max(1, MOST_LOGITS_BYTES // (itemsize * len(self.config.classes) * voxels))

    def _segmentation(self, result: Tensor, present: Sequence[bool], attention: bool, plan: WindowPlan) -> Prediction:
        classes = len(self.config.classes)
        names = self.model.present_names(present)
        maps = {m: result[classes + i].numpy() for i, m in enumerate(names)} if attention else {}
        return Prediction(result[:classes].softmax(dim=0).numpy(), maps, plan)

    def _predict(self, window: Tensor, subsets: Sequence[Wanted], shape: Sequence[int]) -> Iterator[Tensor]:
        """Yield for each subset the logits of a window (1, M, d, h, w) and, where its flag is set, its attention.

        The attention is one channel per present modality, behind the logits. What lies beyond `shape` is padding:
        it may be left out.
        """
        if not self.inference.tta:
            yield from self._fuse(window, subsets, shape)
            return
        flips = [list(axes) for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
        totals: list[Tensor] = []
        for axes in flips:
            for index, result in enumerate(self._fuse(window.flip(axes) if axes else window, subsets)):
                turned = result.flip(axes) if axes else result
                if index == len(totals):
                    totals.append(turned)
                else:
                    totals[index].add_(turned)
        while totals:
            yield totals.pop(0).div_(len(flips))

    def _fuse(self, window: Tensor, subsets: Sequence[Wanted], shape: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield what `_predict` does, of one view of the window.

        The fusion skips padding beyond `shape` but for what its kernel reaches.
        """
        # No mode stays on across a yield: it would reach the caller's own computations.
        with torch.no_grad(), self.compute.autocast():
            features = self.model.encode(window, _union(subsets))
            if shape is not None:
                reach = self.config.attention_kernel_size // 2
                d, h, w = (edge + reach for edge in shape)
                features = {
                    m: value[:, :, :d, :h, :w].contiguous(memory_format=torch.channels_last_3d)
                    for m, value in features.items()
                }
        voxels = math.prod(next(iter(features.values())).shape[2:])
        count = self._kept_together(voxels, self.compute.dtype.itemsize)
        for first in range(0, len(subsets), count):
            with torch.no_grad(), self.compute.autocast():
                kept = self._fuse_in_slabs(features, subsets[first : first + count])
            while kept:
                logits, *weights = kept.pop(0)
                yield torch.cat([logits.float(), *weights], dim=1) if weights else logits.float()

    def _fuse_in_slabs(self, features: Mapping[str, Tensor], subsets: Sequence[Wanted]) -> list[list[Tensor]]:
        """Return the logits of each subset (1, classes, d, h, w) and the maps of its attention, where wanted.

        All subsets of one slab of planes are fused, then those of the next: beside the features and the results, the
        fusion needs memory for a slab only.
        """
        masks, flags = zip(*subsets, strict=True)
        reach = self.config.attention_kernel_size // 2
        _, _, depth, height, width = next(iter(features.values())).shape
        planes = max(1, SLAB_VOXELS // (height * width))
        results: list[list[Tensor]] = []
        for start in range(0, depth, planes):
            stop = min(start + planes, depth)
            low, high = max(0, start - reach), min(depth, stop + reach)
            slab = {m: value[:, :, low:high] for m, value in features.items()}
            for index, output in enumerate(self.model.fuse_subsets(slab, masks, attention=flags)):
                maps = [output.logits, *output.attention.values()]
                if index == len(results):
                    results.append([part.new_empty((1, part.shape[1], depth, height, width)) for part in maps])
                for result, part in zip(results[index], maps, strict=True):
                    result[:, :, start:stop] = part[:, :, start - low : stop - low]
        return results


class Segmenter(Predictor):
    """Weights loaded once, for any number of patients.

    Args:
        weights: The weights file.
        compute: Device and precision; chosen automatically by default.
        inference: How windows are laid.

    Raises:
        WeightsError: the file is not acceptable.
        ResourceError: the device is not there.
    """

    def __init__(self, weights: Path, compute: Compute | None = None, inference: WindowOptions | None = None) -> None:
        self.weights, tensors = load_weights(weights, parameter_shapes)
        compute = compute or choose_compute()
        with torch.device("meta"):
            model = A2FSeg(self.weights.config)
        model.load_state_dict(tensors, assign=True)
        model.requires_grad_(False).eval()
        model.to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        super().__init__(model, compute, inference)


def _union(subsets: Sequence[Wanted]) -> list[bool]:
    """Return which modalities occur in any of the subsets."""
    return [any(flags) for flags in zip(*(present for present, _ in subsets), strict=True)]
