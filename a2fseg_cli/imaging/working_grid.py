"""The coarse grid on which sequences are compared: blocks of voxels, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

# Of the fit of borders: at 4 mm the angle's error doubles; at 2 mm the time does.
_GRID_MM = 3.0


@dataclass(frozen=True)
class CoarseImage:
    """An image on the working grid.

    Attributes:
        values: (d, h, w) float32, the mean of each block's brain; 0 without any.
        share: (d, h, w) float32, how much of each block is brain, 0 to 1.
        spacing_mm: Of the grid (3,), (z, y, x).
    """

    values: Field
    share: Field
    spacing_mm: npt.NDArray[np.float64]


def bounding_box(masks: Iterable[Mask]) -> tuple[slice, slice, slice] | None:
    """Return the smallest box that holds every true voxel of all masks; None if there is none."""
    first: list[float] = [np.inf] * 3
    last: list[float] = [-np.inf] * 3
    for mask in masks:
        plane = np.any(mask, axis=0)
        for axis, hit in enumerate((np.any(mask, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0))):
            where = np.flatnonzero(hit)
            if len(where):
                first[axis], last[axis] = min(first[axis], where[0]), max(last[axis], where[-1] + 1)
    if not np.isfinite(first[0]):
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x


def working_factors(spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Return how many voxels of each axis make one of the working grid."""
    z, y, x = (max(1, round(_GRID_MM / spacing)) for spacing in spacing_mm)
    return z, y, x


def sums(volume: npt.NDArray[Any], factors: Sequence[int]) -> npt.NDArray[Any]:
    """Return the sums of blocks of voxels (float32; of a mask uint16); what is left over at the far ends is dropped."""
    kind: npt.DTypeLike = np.float32
    if volume.dtype == np.bool_:
        volume, kind = volume.view(np.uint8), np.uint16
    for axis, factor in enumerate(factors):
        stop = volume.shape[axis] // factor * factor
        lead = (slice(None),) * axis
        total: npt.NDArray[Any] = volume[(*lead, slice(0, stop, factor))].astype(kind)
        for start in range(1, factor):
            total += volume[(*lead, slice(start, stop, factor))]
        volume = total
    return volume


def shrink(image: Field, mask: Mask, spacing_mm: Sequence[float], factors: Sequence[int]) -> CoarseImage:
    """Return the image on the working grid."""
    count = sums(mask, factors).astype(np.float32)
    total = sums(np.where(mask, image, np.float32(0)), factors)
    return CoarseImage(
        total / np.maximum(count, 1),
        count / np.float32(np.prod(factors)),
        np.array(spacing_mm, np.float64) * np.array(factors),
    )


def halve(coarse: CoarseImage) -> CoarseImage:
    """Return the image on a grid of double spacing."""
    weight = sums(coarse.share, (2, 2, 2))
    values = sums(coarse.values * coarse.share, (2, 2, 2)) / np.maximum(weight, np.float32(1e-6))
    return CoarseImage(values, weight / 8, coarse.spacing_mm * 2)


def neighbourhood(volume: Field) -> Field:
    """Return the sum of the 3 x 3 x 3 voxels around each, of the last three axes; nothing lies beyond the edges."""
    for axis in range(volume.ndim - 3, volume.ndim):
        lead = (slice(None),) * axis
        total = volume.copy()
        total[(*lead, slice(1, None))] += volume[(*lead, slice(None, -1))]
        total[(*lead, slice(None, -1))] += volume[(*lead, slice(1, None))]
        volume = total
    return volume


def linear(rows: Field, shape: Sequence[int], places: Field) -> Field:
    """Return values between voxels, linear in between; zero beyond the grid.

    Args:
        rows: (d * h * w, c) float32, c values of every voxel in C order.
        shape: d, h, w.
        places: (3, n) float32, in voxels; a whole number is the middle of a voxel.

    Returns:
        (n, c) float32.
    """
    d, h, w = shape
    result = np.zeros((places.shape[1], rows.shape[1]), np.float32)
    below = np.floor(places).astype(np.int32)
    within = ((below >= 0) & (below < np.array([[d - 1], [h - 1], [w - 1]]))).all(axis=0)
    below = below[:, within]
    upper = places[:, within] - below.astype(np.float32)
    lower = 1 - upper
    corner = (below[0] * h + below[1]) * w + below[2]
    total = np.zeros((len(corner), rows.shape[1]), np.float32)
    for z, share_z in enumerate((lower[0], upper[0])):
        for y, share_y in enumerate((lower[1], upper[1])):
            for x, share_x in enumerate((lower[2], upper[2])):
                row = rows.take(corner + ((z * h + y) * w + x), axis=0)
                row *= (share_z * share_y * share_x)[:, None]
                total += row
    result[within] = total
    return result
