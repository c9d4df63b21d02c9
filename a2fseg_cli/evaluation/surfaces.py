"""Surfaces of a mask, distances between two of them, and the scores made of these distances.

A mask has two surfaces: its border voxels, as MedPy takes them, and surface elements with an area, as
google-deepmind/surface-distance takes them. Points are grid indices (z, y, x), spacing is (z, y, x) in mm.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

PERCENTILE = 95


class _DistanceMap(NamedTuple):
    """Squared distances to a surface in a box of the grid: first voxel, one past the last, and the values."""

    start: IntArray
    stop: IntArray
    squared_mm2: npt.NDArray[np.float32]


class Surface:
    """Points of a surface on a regular grid, and distances to them.

    The distance map is kept with the box it covers, so that many predictions near one truth share it, also from
    several threads: two may make the same map, none sees half of one.

    Attributes:
        points: Grid indices (N, 3), N at least 1.
        areas_mm2: Area at each point (N,), or None where all count alike.
    """

    def __init__(self, points: IntArray, spacing_mm: Spacing, areas_mm2: FloatArray | None = None) -> None:
        self.points = points
        self.areas_mm2 = areas_mm2
        self._spacing_mm = spacing_mm
        self._map: _DistanceMap | None = None

    def distances_mm(self, points: IntArray) -> FloatArray:
        """Return the distance (N,) from each of the grid indices (N, 3) to the nearest point of this surface."""
        start, stop = points.min(axis=0), points.max(axis=0) + 1
        known = self._map
        if known is None or (start < known.start).any() or (stop > known.stop).any():
            own = (self.points.min(axis=0), self.points.max(axis=0) + 1) if known is None else known[:2]
            start, stop = np.minimum(start, own[0]), np.maximum(stop, own[1])
            known = self._map = _DistanceMap(start, stop, self._squared_mm2(start, stop))
        squared = known.squared_mm2[tuple((points - known.start).T)].astype(np.float64)
        # Maurer's map is signed: points of the surface itself may lie inside it. They are at distance 0.
        distances_mm: FloatArray = np.sqrt(np.maximum(squared, 0))
        return distances_mm

    def _squared_mm2(self, start: IntArray, stop: IntArray) -> npt.NDArray[np.float32]:
        """Return the squared distances in a box. Background all round it: Maurer's map needs some to be exact."""
        import SimpleITK as sitk

        surface = np.zeros(stop - start + 2, np.uint8)
        surface[tuple((self.points - start + 1).T)] = 1
        image = sitk.GetImageFromArray(surface)
        image.SetSpacing(self._spacing_mm[::-1])
        squared = sitk.SignedMaurerDistanceMap(image, False, True, True)
        distances: npt.NDArray[np.float32] = sitk.GetArrayFromImage(squared)[1:-1, 1:-1, 1:-1]
        return distances


def border_of(mask: BoolArray, start: IntArray, spacing_mm: Spacing) -> Surface:
    """Return the centres of the voxels with at least one of their six face neighbours outside the mask.

    Args:
        mask: Mask (D, H, W) with at least one voxel set.
        start: Index (z, y, x) of its first voxel in the image.
        spacing_mm: Voxel spacing (z, y, x).
    """
    padded = np.pad(mask, 1)
    middle = slice(1, -1)
    inner = padded[:-2, middle, middle] & padded[2:, middle, middle]
    for neighbours in (
        (padded[middle, :-2, middle], padded[middle, 2:, middle]),
        (padded[middle, middle, :-2], padded[middle, middle, 2:]),
    ):
        inner &= neighbours[0]
        inner &= neighbours[1]
    return Surface(np.argwhere(mask & ~inner) + start, spacing_mm)


def surfels_of(mask: BoolArray, start: IntArray, spacing_mm: Spacing) -> Surface:
    """Return the corners where voxels in and out of the mask meet, with the area of the surface that passes there.

    Corner (z, y, x) lies between the voxels (z - 1, y - 1, x - 1) and (z, y, x).

    Args:
        mask: Mask (D, H, W) with at least one voxel set.
        start: Index (z, y, x) of its first voxel in the image.
        spacing_mm: Voxel spacing (z, y, x).
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([size + 1 for size in mask.shape], np.uint8)
    for bit, (z, y, x) in enumerate(_CUBE):
        codes |= padded[z : z + codes.shape[0], y : y + codes.shape[1], x : x + codes.shape[2]] << bit
    points = np.argwhere((codes != 0) & (codes != 255))
    areas_mm2 = surfel_areas_mm2(spacing_mm)[codes[tuple(points.T)]]
    return Surface(points + start, spacing_mm, areas_mm2)


def pooled_hd95_mm(reference: Surface, predicted: Surface) -> float:
    """Return the 95th percentile of both directed border distances pooled, as MedPy's `hd95` defines it.

    Args:
        reference: Border of the true mask.
        predicted: Border of the predicted mask.
    """
    there, back = predicted.distances_mm(reference.points), reference.distances_mm(predicted.points)
    distances_mm = np.concatenate((there, back))
    return float(np.percentile(distances_mm, PERCENTILE))


def directed_hd95_mm(reference: Surface, predicted: Surface) -> float:
    """Return the larger of the two directed 95th percentiles, each surface element weighted by its area.

    As `compute_robust_hausdorff` of google-deepmind/surface-distance defines it: the first distance at which
    the elements up to it hold 95 % of the area.

    Args:
        reference: Surface elements of the true mask.
        predicted: Surface elements of the predicted mask.
    """
    return max(
        _area_percentile(predicted.distances_mm(reference.points), _areas(reference)),
        _area_percentile(reference.distances_mm(predicted.points), _areas(predicted)),
    )


def _areas(surface: Surface) -> FloatArray:
    assert surface.areas_mm2 is not None
    return surface.areas_mm2


def _area_percentile(distances_mm: FloatArray, areas_mm2: FloatArray) -> float:
    order = np.lexsort((areas_mm2, distances_mm))
    share = np.cumsum(areas_mm2[order]) / np.sum(areas_mm2)
    index = min(int(np.searchsorted(share, PERCENTILE / 100)), len(order) - 1)
    return float(distances_mm[order[index]])


def surface_dice(reference: Surface, predicted: Surface, tolerance_mm: float) -> float:
    """Return the share of both surfaces' area that lies within a tolerance of the other surface.

    As `compute_surface_dice_at_tolerance` of google-deepmind/surface-distance defines it, except that a
    distance of exactly the tolerance counts as within it however floating point rounds (three steps of
    0.4 mm are 1.2 mm).

    Args:
        reference: Surface elements of the true mask.
        predicted: Surface elements of the predicted mask.
        tolerance_mm: Distance up to which the surfaces agree.
    """
    limit_mm = tolerance_mm * (1 + 1e-6)
    near_mm2 = np.sum(_areas(reference)[predicted.distances_mm(reference.points) <= limit_mm])
    near_mm2 += np.sum(_areas(predicted)[reference.distances_mm(predicted.points) <= limit_mm])
    return float(near_mm2 / (np.sum(_areas(reference)) + np.sum(_areas(predicted))))


# The eight voxels round a corner; voxel k sets bit k of the corner's neighbour code.
_CUBE = tuple(itertools.product((0, 1), repeat=3))

# Area vectors of the surface round a corner, in eighths of a voxel face, one a direction, without sign: the
# triangles of marching cubes with vertices halfway along the edges. (1, 1, 1) cuts one voxel corner off;
# (8, 0, 0) is a flat wall across axis 0. These facts of google-deepmind/surface-distance's triangulation are
# the same under rotation, mirroring and complement, which leave 13 neighbour codes with a surface.
_SURFACE_CODES = {
    0b00000001: ((1, 1, 1),),
    0b00000011: ((4, 4, 0),),
    0b00000110: ((2, 2, 2),),
    0b00000111: ((3, 3, 3), (4, 0, 0)),
    0b00001111: ((8, 0, 0),),
    0b00010110: ((3, 3, 3),),
    0b00010111: ((6, 6, 6),),
    0b00011000: ((2, 2, 2),),
    0b00011001: ((1, 1, 1), (0, 4, 4)),
    0b00011011: ((4, 4, 4), (0, 2, 2), (2, 0, 2)),
    0b00011110: ((4, 4, 4), (4, 0, 0)),
    0b00111100: ((8, 8, 0),),
    0b01101001: ((4, 4, 4),),
}


@cache
def surfel_areas_mm2(spacing_mm: Spacing) -> FloatArray:
    """Return the area of the surface that passes round a corner, for each of the 256 neighbour codes.

    Args:
        spacing_mm: Voxel spacing (z, y, x).
    """
    z, y, x = spacing_mm
    faces_mm2 = np.array([y * x, z * x, z * y])
    areas = np.zeros(256)
    for code, vectors in _SURFACE_CODES.items():
        for order in itertools.permutations(range(3)):
            area = sum(float(np.linalg.norm(np.array(vector)[list(order)] / 8 * faces_mm2)) for vector in vectors)
            for mirrored in _CUBE:
                turned = _turn(code, order, mirrored)
                areas[turned] = areas[255 - turned] = area
    return areas


def _turn(code: int, order: Sequence[int], mirrored: Sequence[int]) -> int:
    """Return the neighbour code after its axes were permuted and then mirrored."""
    turned = 0
    for bit, corner in enumerate(_CUBE):
        if code >> bit & 1:
            z, y, x = (corner[axis] ^ flip for axis, flip in zip(order, mirrored, strict=True))
            turned |= 1 << (4 * z + 2 * y + x)
    return turned
