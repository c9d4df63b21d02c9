"""A mask without the background round it: two of one image are compared where their boxes meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from a2fseg_cli.evaluation.surfaces import BoolArray, IntArray, Spacing, Surface, border_of, surfels_of
from a2fseg_cli.imaging.preprocessing import bounding_box


class CroppedMask:
    """A mask cropped to its bounding box, with its surfaces, each computed once when needed.

    Attributes:
        crop: The mask inside its bounding box; (0, 0, 0) voxels where it is empty.
        start: Index (z, y, x) of the crop's first voxel in the image.
        spacing_mm: Voxel spacing (z, y, x).
        voxels: Number of voxels that are set.
    """

    def __init__(self, crop: BoolArray, start: IntArray, spacing_mm: Spacing) -> None:
        self.crop = crop
        self.start = start
        self.spacing_mm = spacing_mm
        self.voxels = int(np.count_nonzero(crop))

    @classmethod
    def from_array(cls, mask: BoolArray, spacing_mm: Sequence[float]) -> CroppedMask:
        """Return the mask of a whole image (D, H, W). Raises: ValueError."""
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise ValueError(f"expected a boolean (D, H, W) mask, got {mask.dtype} with {mask.ndim} axes")
        if len(spacing_mm) != 3 or not all(0 < mm < math.inf for mm in spacing_mm):
            raise ValueError(f"expected a spacing of three positive numbers in mm, got {tuple(spacing_mm)}")
        z, y, x = map(float, spacing_mm)
        if not mask.any():
            return cls(np.zeros((0, 0, 0), np.bool_), np.zeros(3, np.int64), (z, y, x))
        start, stop = bounding_box(mask)
        return cls(mask[tuple(map(slice, start, stop))].copy(), np.array(start), (z, y, x))

    @classmethod
    def from_points(cls, points: IntArray, spacing_mm: Spacing) -> CroppedMask:
        """Return the mask of the voxels `points` (N, 3), N at least 1."""
        start = points.min(axis=0)
        crop = np.zeros(points.max(axis=0) - start + 1, np.bool_)
        crop[tuple((points - start).T)] = True
        return cls(crop, start, spacing_mm)

    @property
    def volume_mm3(self) -> float:
        """Volume of the voxels that are set."""
        return self.voxels * math.prod(self.spacing_mm)

    @cached_property
    def border(self) -> Surface:
        """Border voxels; the mask may not be empty."""
        return border_of(self.crop, self.start, self.spacing_mm)

    @cached_property
    def surfels(self) -> Surface:
        """Surface elements with their areas; the mask may not be empty."""
        return surfels_of(self.crop, self.start, self.spacing_mm)


def common_voxels(first: CroppedMask, second: CroppedMask) -> int:
    """Return the number of voxels that two masks of one image share."""
    here, there = common_box(first, second)
    return int(np.count_nonzero(first.crop[here] & second.crop[there]))


def common_box(first: CroppedMask, second: CroppedMask) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the common part of two masks' boxes, as slices of either crop; both empty where there is none."""
    start = np.maximum(first.start, second.start)
    stop = np.maximum(start, np.minimum(first.start + first.crop.shape, second.start + second.crop.shape))
    return _slices(start - first.start, stop - first.start), _slices(start - second.start, stop - second.start)


def _slices(start: IntArray, stop: IntArray) -> tuple[slice, ...]:
    return tuple(map(slice, start.tolist(), stop.tolist()))
