"""The loaded network and how it is run: device, precision, windows, mirroring, what to do when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute, choose_compute
from a2fseg_cli.core.memory import available_memory_bytes
from a2fseg_cli.core.network import Network, union
from a2fseg_cli.core.networks import build_network, parameter_shapes
from a2fseg_cli.errors import ResourceError, UsageError, is_out_of_memory
from a2fseg_cli.inference.mirroring import mean_over_flips
from a2fseg_cli.inference.windows import WindowPlan, plan_windows, stream_windows
from a2fseg_cli.weights.card import mirrored_axes
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
        tta: The mean of the logits over flips: of all axes (True), none (False), or those the weights name (None).
    """

    window: tuple[int, int, int] | None = None
    overlap: float = 0.5
    tta: bool | None = None

    def __post_init__(self) -> None:
        """Refuse windows that there cannot be. Raises: UsageError."""
        if self.window is not None and (len(self.window) != 3 or min(self.window) < 1):
            raise UsageError(f"window {self.window}: expected three edges (D, H, W) of 1 or more voxels.")
        if not 0 <= self.overlap < 1:
            raise UsageError(f"overlap {self.overlap}: expected 0 up to, but not including, 1.")


@dataclass(frozen=True)
class Prediction:
    """What the network says, on its own grid.

    Attributes:
        probabilities: (classes, d, h, w) float32.
        attention: Share of each present modality in the result, (d, h, w), of A2FSeg the mean over the channels of
            What_m; empty unless asked for, and of a network that has none.
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
        mirrored: Axes (0, 1, 2 for z, y, x) over whose flips the mean is taken, where `inference` leaves it open.

    Raises:
        UsageError: a window was asked for, and the network takes no other than that of its training.
    """

    def __init__(
        self, model: Network, compute: Compute, inference: WindowOptions | None = None, mirrored: Sequence[int] = ()
    ) -> None:
        self.model, self.compute, self.inference = model, compute, inference or WindowOptions()
        self.mirrored = {None: tuple(mirrored), True: (0, 1, 2), False: ()}[self.inference.tta]
        self.window = self.inference.window
        if not model.any_window:
            if self.window not in (None, self.config.patch_size):
                raise UsageError(f"window {self.window}: this network takes {self.config.patch_size} only.")
            self.window = self.config.patch_size

    @property
    def config(self) -> ModelConfig:
        """The network's configuration."""
        return self.model.config

    def bytes_per_voxel(self, modalities: int, subsets: int = 1) -> int:
        """Return about how many bytes a voxel of a window takes; mirroring keeps all logits in float32 beside it."""
        mirrored = 4 * subsets * len(self.config.classes) if self.mirrored else 0
        return self.model.bytes_per_voxel(modalities, subsets, self.compute.dtype.itemsize) + mirrored

    def plan(self, shape: tuple[int, int, int], modalities: int, bytes_allowed: float, subsets: int = 1) -> WindowPlan:
        """Return the windows for a volume. Raises: ResourceError when not even the smallest window fits."""
        try:
            return plan_windows(
                shape,
                self.config.smallest_edge,
                self.config.edge_step,
                max_voxels=bytes_allowed / self.bytes_per_voxel(modalities, subsets),
                overlap=self.inference.overlap,
                window=self.window,
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
        allowed = self._bytes_allowed()
        while wanted:
            modalities = sum(union([mask for mask, _ in wanted]))
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
                if self.window is not None:
                    advice = (
                        "leave it out to have it planned" if self.model.any_window else "this network takes no other"
                    )
                    raise ResourceError(
                        f"Out of memory: window {self.window} does not fit on {self.compute.device}; {advice}."
                    ) from error
                allowed = 0.5 * self.bytes_per_voxel(modalities, len(wanted)) * math.prod(plan.window)
                if self.compute.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _bytes_allowed(self) -> float:
        allowed = 0.7 * available_memory_bytes(self.compute.device)
        return allowed if self.compute.device.type == "cuda" else min(allowed, MOST_WINDOW_BYTES)

    def _kept_together(self, voxels: int, itemsize: int) -> int:
        """Return of how many subsets the logits of so many voxels are kept at a time."""
        return max(1, MOST_LOGITS_BYTES // (itemsize * len(self.config.classes) * voxels))

    def _segmentation(self, result: Tensor, present: Sequence[bool], attention: bool, plan: WindowPlan) -> Prediction:
        classes = len(self.config.classes)
        names = self.model.present_names(present) if attention and self.model.has_attention else ()
        maps = {m: result[classes + i].numpy() for i, m in enumerate(names)}
        return Prediction(result[:classes].softmax(dim=0).numpy(), maps, plan)

    def _predict(self, window: Tensor, subsets: Sequence[Wanted], shape: Sequence[int]) -> Iterator[Tensor]:
        """Yield for each subset the logits of a window (1, M, d, h, w) and, where its flag is set, its attention.

        The attention is one channel per present modality, behind the logits. What lies beyond `shape` is padding:
        it may be left out.
        """
        if not self.mirrored:
            yield from self._fuse(window, subsets, shape)
            return
        views = self._views_at_once(window, subsets)
        yield from mean_over_flips(lambda view: self._fuse(view, subsets), window, self.mirrored, views)

    def _views_at_once(self, window: Tensor, subsets: Sequence[Wanted]) -> int:
        """Return how many views of a window memory holds on a CPU; a GPU is full with one."""
        if self.compute.device.type != "cpu":
            return 1
        present = union([mask for mask, _ in subsets])
        needed = self.bytes_per_voxel(sum(present), len(subsets)) * math.prod(window.shape[2:])
        return max(1, int(self._bytes_allowed() // needed))

    def _fuse(self, window: Tensor, subsets: Sequence[Wanted], shape: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Yield what `_predict` does, of one view of the window.

        A fusion that reaches so many voxels skips the padding beyond `shape` but for those.
        """
        reach = self.model.fusion_reach
        edges: Sequence[int] = window.shape[2:]
        # No mode stays on across a yield: it would reach the caller's own computations.
        with torch.no_grad(), self.compute.autocast():
            features = self.model.encode(window, union([mask for mask, _ in subsets]))
            if shape is not None and reach is not None:
                edges = [min(edge + reach, whole) for edge, whole in zip(shape, edges, strict=True)]
                d, h, w = edges
                within = {m: value[:, :, :d, :h, :w] for m, value in features.items()}
                features = {m: v.contiguous(memory_format=torch.channels_last_3d) for m, v in within.items()}
        count = self._kept_together(math.prod(edges), self.compute.dtype.itemsize)
        for first in range(0, len(subsets), count):
            with torch.no_grad(), self.compute.autocast():
                kept = self._fuse_in_slabs(features, subsets[first : first + count], edges)
            while kept:
                logits, *weights = kept.pop(0)
                yield torch.cat([logits.float(), *weights], dim=1) if weights else logits.float()

    def _fuse_in_slabs(
        self, features: Mapping[str, Tensor], subsets: Sequence[Wanted], edges: Sequence[int]
    ) -> list[list[Tensor]]:
        """Return the logits of each subset (1, classes, d, h, w) and the maps of its attention, where wanted.

        All subsets of one slab of planes are fused, then those of the next: beside the features and the results, the
        fusion needs memory for a slab only. One that looks at the whole window gets it whole.

        Args:
            features: Of the window, from `encode`.
            subsets: What is wanted.
            edges: Of the results (d, h, w).
        """
        masks, flags = zip(*subsets, strict=True)
        depth, height, width = edges
        reach = self.model.fusion_reach
        planes = depth if reach is None else max(1, SLAB_VOXELS // (height * width))
        results: list[list[Tensor]] = []
        for start in range(0, depth, planes):
            stop = min(start + planes, depth)
            low, high = max(0, start - (reach or 0)), min(depth, stop + (reach or 0))
            slab = features if reach is None else {m: value[:, :, low:high] for m, value in features.items()}
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
        UsageError: the device is not there, or a window that the network does not take.
    """

    def __init__(self, weights: Path, compute: Compute | None = None, inference: WindowOptions | None = None) -> None:
        self.weights, tensors = load_weights(weights, parameter_shapes)
        compute = compute or choose_compute()
        with torch.device("meta"):
            model = build_network(self.weights.config)
        model.load_state_dict(tensors, assign=True)
        model.requires_grad_(False).eval()
        model.to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        super().__init__(model, compute, inference, mirrored_axes(self.weights.card))
