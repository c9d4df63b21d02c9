"""Windows over a volume: planned for the least work within memory, blended with Gaussian importance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows lie.

    Attributes:
        shape: Of the volume (D, H, W).
        padded: Shape after zero-padding at the far end of each axis, so that every window lies inside.
        window: Edges of every window.
        starts: First voxel (z, y, x) of each window.
    """

    shape: Shape
    padded: Shape
    window: Shape
    starts: tuple[Shape, ...]

    @property
    def voxels(self) -> int:
        """Voxels that the network has to look at, all windows together."""
        return len(self.starts) * math.prod(self.window)


def plan_windows(
    shape: Shape,
    smallest: int,
    step: int,
    max_voxels: float = math.inf,
    overlap: float = 0.5,
    window: Shape | None = None,
) -> WindowPlan:
    """Return the plan with the fewest voxels to compute whose window fits.

    A brain of 140 x 175 x 140 fits one window of 144 x 176 x 144, 3.65 million voxels, where windows of 128
    cubed at half overlap need 8, 16.8 million. Where one window is too large, every division of the axes into
    equal windows with at least this overlap is considered.

    Args:
        shape: Of the volume (D, H, W).
        smallest: Least edge of a window, a multiple of `step`.
        step: Edges are multiples of it.
        max_voxels: Most voxels a window may have.
        overlap: Least overlap of neighbouring windows, a share of the edge in [0, 1).
        window: Use this window instead of planning one; edges are rounded up to the step.

    Raises:
        ValueError: overlap out of range, or no window of the smallest size fits.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must lie in [0, 1); got {overlap}")

    def rounded(edge: float) -> int:
        return max(smallest, step * math.ceil(edge / step))

    def stride(edge: int) -> int:
        """Most voxels from one window's start to the next; whole, since starts are rounded to voxels."""
        return max(1, math.floor(edge * (1 - overlap) + 1e-9))

    def count(length: int, edge: int) -> int:
        return 1 + math.ceil(max(0, length - edge) / stride(edge))

    if window is not None:
        edges = [rounded(edge) for edge in window]
        counts = [count(n, e) for n, e in zip(shape, edges, strict=True)]
        return _lay_out(shape, (edges[0], edges[1], edges[2]), counts)
    options = []
    for length in shape:
        smallest_edge: dict[int, int] = {}
        for edge in range(smallest, rounded(length) + 1, step):
            smallest_edge.setdefault(count(length, edge), edge)
        # A larger window that also costs more than a smaller one is never the best: 128 edges leave 5.
        worth = [(edge, n) for n, edge in smallest_edge.items()]
        least = itertools.accumulate((edge * n for edge, n in worth), min)
        options.append([(edge, n) for (edge, n), cost in zip(worth, least, strict=True) if edge * n == cost])
    fitting = [plan for plan in itertools.product(*options) if math.prod(edge for edge, _ in plan) <= max_voxels]
    if not fitting:
        raise ValueError(f"no window of at least {(smallest,) * 3} fits into {max_voxels:.0f} voxels")
    best = min(fitting, key=lambda plan: (math.prod(e * n for e, n in plan), math.prod(n for _, n in plan)))
    (depth, n_depth), (height, n_height), (width, n_width) = best
    return _lay_out(shape, (depth, height, width), (n_depth, n_height, n_width))


def _lay_out(shape: Shape, window: Shape, counts: Sequence[int]) -> WindowPlan:
    padded = tuple(max(length, edge) for length, edge in zip(shape, window, strict=True))
    axes = [
        [round(i * (length - edge) / max(1, n - 1)) for i in range(n)]
        for length, edge, n in zip(padded, window, counts, strict=True)
    ]
    starts = tuple((z, y, x) for z, y, x in itertools.product(*axes))
    return WindowPlan(shape, (padded[0], padded[1], padded[2]), window, starts)


def gaussian_importance(window: Shape) -> Tensor:
    """Return the weight (D, H, W) of each voxel of a window, 1 at its centre, never 0.

    A separable Gaussian with a standard deviation of an eighth of the edge (nnU-Net's choice), floored at
    1e-3, so that a voxel seen only by a window's corner still has its value divided by a sound weight.
    """
    importance = torch.ones(window)
    for axis, edge in enumerate(window):
        distance = torch.arange(edge) - (edge - 1) / 2
        profile = torch.exp(-0.5 * (distance / (edge / 8)) ** 2)
        importance *= profile.reshape([-1 if a == axis else 1 for a in range(3)])
    return importance.clamp_(min=1e-3)


def stream_windows(
    predict: Callable[[Tensor], Iterable[Tensor]], images: Tensor, plan: WindowPlan, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the blended result of each of `predict`'s outputs, (channels, D, H, W) float32 on the CPU, one at a time.

    With one window each result is computed when it is asked for, and none is kept. With several, all results
    are summed up before the first is given away, and each is let go with the next.

    Args:
        predict: From a window (1, M, d, h, w) on `device` to one or more results (1, channels, d, h, w).
        images: (M, D, H, W) on the CPU.
        plan: From `plan_windows` for this shape.
        device: Where `predict` computes.

    Raises:
        ValueError: the plan is for another shape.
    """
    shape = tuple(images.shape[1:])
    if shape != plan.shape:
        raise ValueError(f"the plan is for {plan.shape}, the images are {shape}")
    pad = [p - s for s, p in zip(plan.shape, plan.padded, strict=True)]
    padded = F.pad(images, (0, pad[2], 0, pad[1], 0, pad[0])) if any(pad) else images
    inside = (slice(None), *(slice(0, length) for length in plan.shape))
    if len(plan.starts) == 1:
        for result in predict(padded[None].to(device)):
            yield result[0][inside].float().cpu()
        return
    importance = gaussian_importance(plan.window)
    sums: list[Tensor] = []
    weights = torch.zeros(plan.padded)
    for start in plan.starts:
        box = tuple(slice(s, s + edge) for s, edge in zip(start, plan.window, strict=True))
        weights[box] += importance
        for index, result in enumerate(predict(padded[(slice(None), *box)][None].to(device))):
            if index == len(sums):
                sums.append(torch.zeros((result.shape[1], *plan.padded)))
            sums[index][(slice(None), *box)] += result[0].float().cpu() * importance
    while sums:
        yield sums.pop(0).div_(weights)[inside]
