"""An image on another grid after a rigid motion, and where that grid lies within the image's field of view.

A motion is a matrix (4, 4) in LPS mm that takes a point of the target's space to the image's, as ITK has it.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.geometry import Geometry

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# A voxel of the target holds at most this many samples along an axis: 0.5 mm under slices of 5 mm needs 10.
_MOST_SAMPLES = 10


def itk_image(array: npt.NDArray[Any], geometry: Geometry) -> Any:
    """Return an array (D, H, W) as a SimpleITK image; a mask becomes one of 0 and 1."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array.view(np.uint8) if array.dtype == np.bool_ else array)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    return image


def itk_transform(matrix: Matrix) -> Any:
    """Return a motion as a SimpleITK transform."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def resample_rigidly(
    array: npt.NDArray[np.float32], geometry: Geometry, target: Geometry, matrix: Matrix, outside: float = 0.0
) -> npt.NDArray[np.float32]:
    """Return an image (D, H, W) on the target grid, float32, `outside` beyond its field of view.

    Interpolated once, linearly. Where the target's voxels are longer than the image's, they hold the mean of several
    samples in their length, as a thick slice does: without it, 1 mm images alias on slices of 5 mm.
    """
    import SimpleITK as sitk

    samples = _samples(geometry, target, matrix)
    fine = divided(target, samples)
    resampled = sitk.Resample(
        itk_image(array, geometry),
        list(fine.size[::-1]),
        itk_transform(matrix),
        sitk.sitkLinear,
        list(fine.origin_mm),
        list(fine.spacing_mm[::-1]),
        list(fine.direction),
        outside,
        sitk.sitkFloat32,
    )
    if max(samples) > 1:
        resampled = sitk.BinShrink(resampled, samples[::-1])
    result: npt.NDArray[np.float32] = sitk.GetArrayFromImage(resampled)
    return result


def coverage(geometry: Geometry, target: Geometry, matrix: Matrix) -> Mask:
    """Return which voxels (D, H, W) of the target have their centre in the image's field of view."""
    to_index = _to_index(geometry) @ matrix @ np.linalg.inv(_to_index(target))
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in target.size), indexing="ij", sparse=True)
    inside = np.ones(target.size, np.bool_)
    for row, length in zip(to_index[:3].astype(np.float32), geometry.size[::-1], strict=True):
        place = row[0] * x + row[1] * y + row[2] * z + row[3]
        inside &= (place >= -0.5) & (place <= length - 0.5)
    return inside


def coarser(geometry: Geometry, mm: float) -> Geometry:
    """Return the grid of cubes of `mm` that fill the same box, nearest number of voxels, at least one."""
    lengths = [n * spacing for n, spacing in zip(geometry.size, geometry.spacing_mm, strict=True)]
    z, y, x = (max(1, round(length / mm)) for length in lengths)
    corner = np.asarray(geometry.origin_mm) - geometry.direction_matrix @ np.asarray(geometry.spacing_mm[::-1]) / 2
    first = corner + geometry.direction_matrix @ np.full(3, mm / 2)
    return replace(geometry, size=(z, y, x), spacing_mm=(mm, mm, mm), origin_mm=tuple(first.tolist()))


def _to_index(geometry: Geometry) -> Matrix:
    """Return the matrix (4, 4) from LPS mm to voxels (x, y, z)."""
    to_mm = np.eye(4)
    to_mm[:3, :3] = geometry.direction_matrix * np.asarray(geometry.spacing_mm[::-1])
    to_mm[:3, 3] = geometry.origin_mm
    to_index: Matrix = np.asarray(np.linalg.inv(to_mm), np.float64)
    return to_index


def _samples(geometry: Geometry, target: Geometry, matrix: Matrix) -> tuple[int, int, int]:
    """Return how many samples one of the target's voxels needs along each axis (z, y, x)."""
    # Columns: the way along one of the target's axes, in voxels of the image.
    ways = (_to_index(geometry) @ matrix)[:3, :3] @ target.direction_matrix * np.asarray(target.spacing_mm[::-1])
    x, y, z = (min(_MOST_SAMPLES, max(1, math.floor(n + 0.25))) for n in np.linalg.norm(ways, axis=0))
    return z, y, x


def divided(geometry: Geometry, samples: tuple[int, int, int]) -> Geometry:
    """Return the grid with each voxel cut into `samples` (z, y, x)."""
    spacing = np.asarray(geometry.spacing_mm) / samples
    back = ((np.asarray(samples) - 1) / 2 * spacing)[::-1]
    origin = np.asarray(geometry.origin_mm) - geometry.direction_matrix @ back
    z, y, x = (n * k for n, k in zip(geometry.size, samples, strict=True))
    return replace(geometry, size=(z, y, x), spacing_mm=tuple(spacing.tolist()), origin_mm=tuple(origin.tolist()))
