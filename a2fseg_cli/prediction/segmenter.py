"""The loaded network and how it is run: device, precision, windows, mirroring, what to do when memory runs out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute, available_memory_bytes, choose_compute, is_out_of_memory
from a2fseg_cli.core.model import A2FSeg, parameter_shapes
from a2fseg_cli.core.sliding_window import WindowPlan, plan_windows, run_windows
from a2fseg_cli.errors import ResourceError
from a2fseg_cli.weights.file_format import load_weights

FloatVolume = npt.NDArray[np.float32]

# The most that one window's maps may take on a CPU. A larger window computes fewer voxels in all, but the
# tool should leave a laptop usable.
MOST_WINDOW_BYTES = 3 * 2**30


@dataclass(frozen=True)
class Inference:
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
class Segmentation:
    """What the network says, on its own grid.

    Attributes:
        probabilities: (classes, d, h, w) float32.
        attention: Mean over channels of What_m of each present modality, (d, h, w); empty unless asked for.
        plan: The windows.
    """

    probabilities: FloatVolume
    attention: dict[str, FloatVolume]
    plan: WindowPlan


class Segmenter:
    """Weights loaded once, for any number of patients.

    Args:
        weights: The weights file.
        compute: Device and precision; chosen automatically by default.
        inference: How windows are laid.

    Raises:
        WeightsError: the file is not acceptable.
        ResourceError: the device is not there.
    """

    def __init__(self, weights: Path, compute: Compute | None = None, inference: Inference | None = None) -> None:
        self.weights, tensors = load_weights(weights, parameter_shapes)
        self.compute = compute or choose_compute()
        self.inference = inference or Inference()
        with torch.device("meta"):
            model = A2FSeg(self.weights.config)
        model.load_state_dict(tensors, assign=True)
        model.requires_grad_(False).eval()
        self.model = model.to(self.compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def config(self) -> ModelConfig:
        """The network's configuration."""
        return self.weights.config

    def bytes_per_voxel(self, modalities: int) -> int:
        """Return about how much memory a voxel of a window takes at the peak, with so many modalities present.

        Per modality the features, its two halves of f_m, W_m and What_m; one U-Net's last stage besides; and
        the logits in float32.
        """
        maps = self.config.features_per_stage[0] * (6 * modalities + 8)
        return int(maps * self.compute.dtype.itemsize + 12 * len(self.config.classes))

    def plan(self, shape: tuple[int, int, int], modalities: int, bytes_allowed: float) -> WindowPlan:
        """Return the windows for a volume. Raises: ResourceError when not even the smallest window fits."""
        try:
            return plan_windows(
                shape,
                self.config.stride,
                max_voxels=bytes_allowed / self.bytes_per_voxel(modalities),
                overlap=self.inference.overlap,
                window=self.inference.window,
            )
        except ValueError as error:
            raise ResourceError(
                f"Out of memory: {bytes_allowed / 2**30:.2f} GiB are free for the network's maps; {error}. "
                "Close other programs or take another machine."
            ) from error

    def segment(self, images: FloatVolume, present: Sequence[bool], attention: bool = False) -> Segmentation:
        """Return the probabilities for a prepared patient; windows shrink until they fit the device's memory.

        Args:
            images: (M, d, h, w), z-scored, on the working grid.
            present: (M,) the missing-modality mask.
            attention: Also return the attention maps.

        Raises:
            ResourceError: not even the smallest window fits.
        """
        volume = torch.from_numpy(images)
        shape = (images.shape[1], images.shape[2], images.shape[3])
        allowed = 0.7 * available_memory_bytes(self.compute.device)
        if self.compute.device.type != "cuda":
            allowed = min(allowed, MOST_WINDOW_BYTES)
        while True:
            plan = self.plan(shape, sum(present), allowed)
            try:
                (result,) = run_windows(
                    lambda window: self._predict(window, present, attention), volume, plan, self.compute.device
                )
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.inference.window is not None:
                    raise ResourceError(
                        f"Out of memory: --window {self.inference.window} does not fit on {self.compute.device}; "
                        "leave it out to have it planned."
                    ) from error
            allowed = 0.5 * self.bytes_per_voxel(sum(present)) * math.prod(plan.window)
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()
        classes = len(self.config.classes)
        names = self.model.present_names(present)
        maps = {m: result[classes + i].numpy() for i, m in enumerate(names)} if attention else {}
        return Segmentation(result[:classes].softmax(dim=0).numpy(), maps, plan)

    def _predict(self, window: Tensor, present: Sequence[bool], attention: bool) -> Iterator[Tensor]:
        """Yield the logits of a window (1, M, d, h, w), followed by one channel of attention per modality."""
        flips: list[list[int]] = [[]]
        if self.inference.tta:
            flips = [list(axes) for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
        total: Tensor | None = None
        with torch.inference_mode(), self.compute.autocast():
            for axes in flips:
                view = window.flip(axes) if axes else window
                output = self.model.fuse(self.model.encode(view, present), present)
                parts = [output.logits.float()]
                if attention:
                    parts += [weight.float().mean(dim=1, keepdim=True) for weight in output.attention.values()]
                result = torch.cat(parts, dim=1) if attention else parts[0]
                result = result.flip(axes) if axes else result
                total = result if total is None else total.add_(result)
            assert total is not None
            yield total.div_(len(flips)) if len(flips) > 1 else total
