"""What the check of contrasts looks at: numbers of one image of a brain, and of pairs, free of scale and offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

NAMES = ("t1", "t1c", "t2", "flair")
PAIRS = tuple(permutations(NAMES, 2))

# About 50,000 voxels of a brain of 1.4 L; the narrowest slice of RANKS still holds 250.
GRID_MM = 3.0
# Learned between 1 and 2 mm, slices below 3 mm; vessels and sulci of a coarser image are not what was learned.
COARSEST_MM = 3.0
FEWEST_VOXELS = 1000
# Voxels of a pair: thinned to as many, since each pair sorts its own residuals.
PAIR_VOXELS = 20_000
# Voxels by rank; the narrow ends hold vessels and enhancement, fluid, and the mask's rim.
RANKS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995, 1)
TAILS = ((0, 0.002), (0.002, 0.01), (0.01, 0.05), (0.95, 0.99), (0.99, 0.998), (0.998, 1))
SHELLS_MM = (0, 3, 6, 10, 15, 21, 30, 1000)
# Distances between a voxel and those it is compared with: thin vessels, sulci, and the width of a gyrus.
DETAIL_MM = (1.6, 5.0, 9.0)
# Where in an image's statistics stands how much voxels differ from their next neighbours.
GRAIN = -len(DETAIL_MM) * (1 + len(TAILS))
PLACES = (4, 5, 3)  # parts of the brain's box along z, y, and from the midline outwards
FARTHEST = 6.0  # values are cut there, in spreads from the middle


@dataclass(frozen=True)
class Statistics:
    """What is known of a patient's images.

    Attributes:
        images: Of each image its own statistics, (F,).
        pairs: Of each ordered pair how the first predicts the second, (G,).
    """

    images: Mapping[str, Vector]
    pairs: Mapping[tuple[str, str], Vector]

    def renamed(self, names: Mapping[str, str]) -> Statistics:
        """Return the statistics of the images that are keys, under their new names."""
        return Statistics(
            {new: self.images[old] for old, new in names.items()},
            {(names[a], names[b]): values for (a, b), values in self.pairs.items() if a in names and b in names},
        )


def statistics(
    images: Mapping[str, npt.NDArray[np.float32]], masks: Mapping[str, Mask], spacing_mm: Triple
) -> Statistics:
    """Return the statistics of the images that can be judged: those in NAMES, fine enough, with enough brain."""
    if max(spacing_mm) >= COARSEST_MM:
        return Statistics({}, {})
    names = [name for name in NAMES if name in images]
    box = _box([masks[name] for name in names], _steps(spacing_mm))
    sampled, alone = {}, {}
    for name in names:
        array, mask = images[name][box], masks[name][box]
        if (sample := _sample(array, mask, spacing_mm)) is not None:
            sampled[name] = sample
            alone[name] = _of_image(sample, array, mask, spacing_mm)
    pairs = {(a, b): _of_pair(sampled[a], sampled[b]) for a, b in permutations(sampled, 2)}
    return Statistics(alone, pairs)


@dataclass(frozen=True)
class _Sample:
    """An image's brain on the coarse grid.

    Attributes:
        brain: (d, h, w).
        values: (N,) in spreads from the middle, cut at FARTHEST.
        depth_mm: (d, h, w), from the brain's surface, 0 outside.
        middle, spread: Of the intensities.
    """

    brain: Mask
    values: Vector
    depth_mm: npt.NDArray[np.float32]
    middle: float
    spread: float


def _steps(spacing_mm: Triple) -> tuple[int, int, int]:
    """Return how many voxels the coarse grid goes on along each axis; 2 mm becomes 4 mm rather than 2."""
    z, y, x = (max(1, int(GRID_MM / mm + 0.5)) for mm in spacing_mm)
    return z, y, x


def _box(masks: Sequence[Mask], steps: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return a box around the masks, found on the coarse grid and with its voxels: what is beyond costs time only."""
    coarse = [mask[tuple(slice(step // 2, None, step) for step in steps)] for mask in masks]
    box = []
    for axis, step in enumerate(steps):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(sum(mask.any(axis=others) for mask in coarse))
        box.append(slice(max(0, int(hit[0]) - 1) * step, (int(hit[-1]) + 2) * step) if len(hit) else slice(0, 0))
    return tuple(box)


def _sample(array: npt.NDArray[np.float32], mask: Mask, spacing_mm: Triple) -> _Sample | None:
    steps = _steps(spacing_mm)
    grid = tuple(slice(step // 2, None, step) for step in steps)
    brain = np.ascontiguousarray(mask[grid])
    if np.count_nonzero(brain) < FEWEST_VOXELS:
        return None
    values = array[grid][brain].astype(np.float64)
    middle, spread = _middle_and_spread(np.sort(values))
    if spread <= 0:
        return None
    # Equal values, of which 32 grey levels leave many, are ordered by chance, not from neck to crown.
    chance = 1e-6 * np.random.default_rng(0).random(len(values))
    values = np.clip((values - middle) / spread, -FARTHEST, FARTHEST) + chance
    z, y, x = (step * mm for step, mm in zip(steps, spacing_mm, strict=True))
    return _Sample(brain, values, _depth_mm(brain, (z, y, x)), middle, spread)


def _middle_and_spread(ordered: Vector) -> tuple[float, float]:
    """Return the mean of the middle half of ordered values, and how far the upper part lies above the lower.

    The means of the 6th to 9th and the 1st to 4th tenth, which a tumour's tails hardly move and 32 grey levels do
    not make jump as they do quantiles.
    """
    n = len(ordered)
    upper, lower = ordered[int(0.6 * n) : int(0.9 * n)], ordered[int(0.1 * n) : int(0.4 * n)]
    return float(ordered[n // 4 : 3 * n // 4].mean()), float(upper.mean() - lower.mean())


def _depth_mm(brain: Mask, spacing_mm: Triple) -> npt.NDArray[np.float32]:
    """Return how far each voxel's centre is from the brain's surface along the nearest of the six directions.

    A hole, what lies between brain voxels along all three axes, counts as brain. 0 outside. Filling holes and a true
    distance map took 12 ms an image, this takes 8.
    """
    filled = np.ones(brain.shape, np.bool_)
    for axis in range(3):
        ahead = np.logical_or.accumulate(brain, axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(brain, axis), axis), axis)
        filled &= ahead & behind
    depth = np.full(brain.shape, np.inf, np.float32)
    for axis, mm in enumerate(spacing_mm):
        for direction in (1, -1):
            turn = (*(slice(None),) * axis, slice(None, None, direction))
            depth = np.minimum(depth, mm * _run(filled[turn], axis)[turn])
    return depth


def _run(inside: Mask, axis: int) -> npt.NDArray[np.float32]:
    """Return how many voxels each centre is behind the last face where the inside began, along an axis; 0 outside."""
    n = inside.shape[axis]
    place = np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    outside = np.maximum.accumulate(np.where(inside, np.float32(-1), place), axis)
    return np.where(inside, place - outside - np.float32(0.5), np.float32(0))


def _compressed(values: Sequence[float] | Vector) -> Vector:
    """Return the values with far ones drawn in, so that one voxel in a tail does not decide: 1 is 0.7, 6 is 1.9."""
    array = np.asarray(values, np.float64)
    return np.asarray(np.sign(array) * np.log1p(np.abs(array)))


def _means(values: Vector, borders: Sequence[float]) -> Iterator[float]:
    """Yield the means of the slices of the values between shares of their number, each at least one value."""
    n = len(values)
    for low, high in pairwise(borders):
        start = min(int(low * n), n - 1)
        yield float(values[start : max(int(high * n), start + 1)].mean())


def _of_image(sample: _Sample, array: npt.NDArray[np.float32], mask: Mask, spacing_mm: Triple) -> Vector:
    """Return the statistics of one image, (F,)."""
    depth = sample.depth_mm[sample.brain].astype(np.float64)
    order = np.argsort(sample.values)
    numbers = [
        *_means(sample.values[order], RANKS),
        *_means(np.minimum(depth, 30)[order] / np.minimum(depth, 30).mean(), RANKS),
        *_by_shell(sample.values, depth),
        *_by_place(sample, depth),
    ]
    for distance_mm in DETAIL_MM:
        numbers += _detail(array, mask, spacing_mm, distance_mm, sample.spread)
    return _compressed(numbers)


def _by_shell(values: Vector, depth_mm: Vector) -> Iterator[float]:
    """Yield mean and deviation of the values at each depth; 0 where there are too few to tell."""
    for low, high in pairwise(SHELLS_MM):
        shell = values[(depth_mm > low) & (depth_mm <= high)]
        yield from (float(shell.mean()), float(shell.std())) if len(shell) > 20 else (0.0, 0.0)


def _by_place(sample: _Sample, depth_mm: Vector) -> Iterator[float]:
    """Yield means in the parts of the brain's box, then how bright and dark it gets at midline and centre."""
    index = np.argwhere(sample.brain)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    z, y, x = ((index + 0.5 - low) / (high - low)).T
    outwards = np.abs(2 * x - 1)
    part = np.zeros(len(index), np.intp)
    for share, count in zip((z, y, outwards), PLACES, strict=True):
        part = part * count + np.minimum((share * count).astype(np.intp), count - 1)
    size = int(np.prod(PLACES))
    counts, sums = np.bincount(part, minlength=size), np.bincount(part, sample.values, size)
    yield from np.where(counts > 30, sums / np.maximum(counts, 1), 0).tolist()
    # The sagittal sinus, the falx and the internal veins lie within 4 mm of the midline, 6 % of the half width.
    midline = outwards < 0.06
    top = sample.values[midline & (depth_mm <= 8) & (z > 0.5)]
    yield float(top.mean()) if len(top) > 20 else 0.0
    # Ventricles and choroid plexus.
    centre = (outwards < 0.35) & (np.abs(y - 0.5) < 0.25) & (np.abs(z - 0.5) < 0.2)
    for place in (midline, centre):
        ordered = np.sort(sample.values[place])
        yield from _means(ordered, (0, 0.1, 0.9, 0.97, 1)) if len(ordered) > 20 else (0.0,) * 4


def _detail(
    array: npt.NDArray[np.float32], mask: Mask, spacing_mm: Triple, distance_mm: float, spread: float
) -> list[float]:
    """Return how far voxels stand out from the mean of the six at a distance: overall, and the tails relative to it.

    Read on the coarse grid's voxels with neighbours of the fine one: thin vessels are lost in a coarse image.
    """
    steps = _steps(spacing_mm)
    reach = [max(1, int(distance_mm / mm + 0.5)) for mm in spacing_mm]
    first = [k + (step // 2 - k) % step for k, step in zip(reach, steps, strict=True)]
    if any(start + k >= n for start, k, n in zip(first, reach, array.shape, strict=True)):
        return [0.0] * (1 + len(TAILS))

    def shifted(axis: int, by: int) -> tuple[slice, ...]:
        return tuple(
            slice(start + by * (a == axis), n - k + by * (a == axis), step)
            for a, (start, k, n, step) in enumerate(zip(first, reach, array.shape, steps, strict=True))
        )

    inside = mask[shifted(0, 0)].copy()
    around = np.zeros(inside.shape, np.float32)
    for axis, k in enumerate(reach):
        for by in (-k, k):
            inside &= mask[shifted(axis, by)]
            around += array[shifted(axis, by)]
    ordered = np.sort((array[shifted(0, 0)] - around / 6)[inside].astype(np.float64))
    n = len(ordered)
    if n < FEWEST_VOXELS // 2:
        return [0.0] * (1 + len(TAILS))
    quarters = float(ordered[3 * n // 4 :].mean() - ordered[: n // 4].mean())
    if quarters <= 0:
        return [0.0] * (1 + len(TAILS))
    return [quarters / spread, *(value / quarters for tail in TAILS for value in _means(ordered, tail))]


def _of_pair(first: _Sample, second: _Sample) -> Vector:
    """Return how the first image predicts the second, (G,): the correlation, the curve, and what a line leaves over."""
    both = first.brain & second.brain
    thin = max(1, np.count_nonzero(both) // PAIR_VOXELS)
    x = first.values[both[first.brain]][::thin]
    y = second.values[both[second.brain]][::thin]
    depth = np.minimum(first.depth_mm, second.depth_mm)[both][::thin]
    if len(x) < FEWEST_VOXELS // 2:
        return np.zeros(_PAIR_STATISTICS)
    # Enhancement and fluid are cut off for the line: it is that of normal tissue.
    u, v = (np.clip(values, -1.5, 1.5) for values in (x, y))
    u, v = u - u.mean(), v - v.mean()
    su, sv = max(float(u.std()), 1e-6), max(float(v.std()), 1e-6)
    rest = y - x * float((u * v).mean()) / su**2
    ordered = np.sort(rest)
    middle, spread = _middle_and_spread(ordered)
    spread = max(spread, 1e-3)
    curve = y[np.argsort(x)]
    ends = (*RANKS[:5], *RANKS[-5:])
    tails = _means(ordered, ends)
    shells = [rest[(depth > low) & (depth <= high)] for low, high in pairwise((0, 4, 8, 16, 1000))]
    return _compressed(
        [
            float((u * v).mean()) / (su * sv),
            float((np.square(u) * v).mean()) / (su**2 * sv),
            *_means(curve, RANKS),
            spread,
            *(float(np.clip((value - middle) / spread, -8, 8)) for value in tails),
            *(float(shell.mean() - middle) / spread if len(shell) > 20 else 0.0 for shell in shells),
        ]
    )


_PAIR_STATISTICS = 2 + len(RANKS) - 1 + 1 + 9 + 4
