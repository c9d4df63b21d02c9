"""Which voxels of an image are brain, and whether the skull is still on.

What was measured: 588 skull-stripped images (400 of 100 patients of BraTS 2013 to 2023 and BraTS-Africa, 188 of 169
more, most of them FLAIR), and 7 raw scans of 2 persons, each also turned, cut, resampled, noisy or with its air at 0.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.components import connected_components

FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The background is what the narrowest interval with 30 % of the outer faces' voxels holds: a lit plane, a neck or a
# brain that touches a face do not move it. Of a normal distribution that interval is 0.77 standard deviations wide.
_FACES_SHARE = 0.3
_SIGMAS_OF_SHARE = 0.77
# Background noise ends at five standard deviations (Rayleigh: 4 voxels in a million beyond), or where half the
# tissue's brightness begins. Where five exceed the whole brightness, the faces show tissue and no background.
_NOISE_SIGMAS = 5.0
# The edge of tissue next to exact background has a median of 0.09 of the tissue's brightness or more in the stripped
# images; of images resampled by B-spline or Lanczos interpolation the tail of the ringing, 0.01 and less.
_RINGING_EDGE = 0.03
# The second lobe of the ringing reaches 0.04 of the brightness. (The first one lies on the background's other side.)
_RINGING = 0.05
# Of the stripped brains, less than 1 in 100,000 voxels lie outside the largest part; two hemispheres may be apart.
_SMALLEST_PART = 0.1
CELLS = 60

# A ray enters the head where this share of the tissue's brightness is passed by two voxels one after the other.
LIT = 0.15


@dataclass(frozen=True)
class Background:
    """What surrounds the tissue of an image.

    Attributes:
        level: Its value.
        noise: The standard deviation about it; 0 where it is one exact value.
        scale: How far typical tissue lies from the level; 0 if every voxel has the level.
        side: 1 if the tissue lies above the level, -1 below, 0 on both sides (an image z-scored in its brain).
    """

    level: float
    noise: float
    scale: float
    side: int


def find_background(array: FloatVolume) -> Background | None:
    """Return what surrounds the tissue, judged by the outer faces; None where they show no background.

    Voxels that are not finite do not count.

    Args:
        array: (D, H, W).
    """
    faces = np.concatenate([array.take(index, axis).ravel() for axis in range(3) for index in (0, -1)])
    faces = faces[np.isfinite(faces)]
    if not faces.size:
        return None
    faces = np.sort(faces[:: 1 + faces.size // 40_000])
    count = max(1, int(_FACES_SHARE * faces.size))
    widths = faces[count - 1 :] - faces[: faces.size - count + 1]
    narrowest = int(widths.argmin())
    level, width = float(faces[narrowest + count // 2]), float(widths[narrowest])
    corners = np.unique(array[np.ix_((0, -1), (0, -1), (0, -1))])
    if width and corners.size == 1 and np.isfinite(corners[0]):  # a box so tight that its faces show tissue
        level, width = float(corners[0]), 0.0
    noise = width / _SIGMAS_OF_SHARE
    apart = thinned(array, 48).ravel() - np.float32(level)
    apart = apart[np.isfinite(apart)]
    if not apart.any():
        apart = array[np.isfinite(array)] - np.float32(level)
        if not apart.any():
            return Background(level, 0.0, 0.0, 1)
    # Half of all brightness comes from voxels above it: ringing and noise are many voxels, but little brightness.
    distances = np.sort(np.abs(apart))
    total = distances.cumsum(dtype=np.float64)
    scale = float(distances[total.searchsorted(total[-1] / 2)])
    if _NOISE_SIGMAS * noise > scale:
        return None
    above = float(np.mean(apart[np.abs(apart) > LIT * scale] > 0))
    return Background(level, noise, scale, 1 if above > 0.9 else -1 if above < 0.1 else 0)


def brain_mask(array: FloatVolume) -> Mask:
    """Return where a skull-stripped image has tissue.

    Where the background is one exact value, tissue is every voxel that differs from it, holes of exact background
    included as such: that is what the networks were trained on. Where it is noise, or rings as after B-spline or
    Lanczos interpolation, tissue is what stands out of it, with its holes filled. Voxels, lines and planes apart from
    the brain are dropped. Without any background, every voxel but those of exactly 0 is tissue.

    Args:
        array: (D, H, W), finite.
    """
    found = find_background(array)
    if found is None:
        return np.not_equal(array, 0)
    lit: Mask = array != np.float32(found.level)
    if found.noise == 0 and not _rings(array, lit, found):
        return _without_strays(lit)
    threshold = max(_RINGING, noise_share(found)) * found.scale
    if found.side:
        lit = np.greater(array, found.level + threshold) if found.side > 0 else array < found.level - threshold
    else:
        lit = np.abs(array - np.float32(found.level)) > threshold
    return cleaned(lit)


def cleaned(mask: Mask) -> Mask:
    """Return a mask (D, H, W) without what lies apart from its large parts, and with its holes filled."""
    return _filled(_without_strays(mask))


def thinned(array: FloatVolume, wanted: int) -> FloatVolume:
    """Return every n-th voxel, so that about the wanted number, at most twice as many, are left along each axis."""
    z, y, x = (slice(None, None, max(1, size // wanted)) for size in array.shape)
    return array[z, y, x]


def noise_share(found: Background) -> float:
    """Return where the background's noise ends, as a share of the tissue's brightness."""
    return min(0.5, _NOISE_SIGMAS * found.noise / found.scale)


def _rings(array: FloatVolume, lit: Mask, found: Background) -> bool:
    """Return whether the voxels next to exact background, along x in every third slice, are too faint for tissue."""
    first = min(1, len(array) - 1)
    slices, tissue = array[first::3], lit[first::3]
    edge = slices[..., 1:][tissue[..., 1:] & ~tissue[..., :-1]]
    faint = np.abs(edge - np.float32(found.level))
    return bool(edge.size and np.median(faint) < _RINGING_EDGE * found.scale)


def _without_strays(lit: Mask) -> Mask:
    """Return the mask without what lies apart from its large parts, looked for in cells of up to 6 voxels an edge.

    A cell belongs to a part if more than half of it is lit: no plane one voxel thick is a part in cells of two and
    more. Thick slices, up to 47 of them, are cells of their own: there a lit plane may stay if the brain touches it.
    """
    cells = [1 if size < 48 else min(6, max(2, round(size / CELLS))) for size in lit.shape]
    counts = _counts(lit, cells)
    solid = counts > int(np.prod(cells)) // 2
    if not solid.any():
        return lit
    labels = connected_components(solid, by_faces=True)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = _grown((sizes >= _SMALLEST_PART * sizes.max())[labels])
    if not counts[~kept].any():
        return lit
    return lit & _enlarged(kept, cells, lit.shape)


def _filled(lit: Mask) -> Mask:
    """Return the mask with what lies enclosed two voxels and more under its surface."""
    import SimpleITK as sitk

    cells = [2 if size > CELLS else 1 for size in lit.shape]
    touched = sitk.GetImageFromArray((_counts(lit, cells) > 0).astype(np.uint8))
    whole = sitk.GetArrayFromImage(sitk.BinaryFillhole(touched)).astype(np.bool_)
    return lit | _enlarged(~_grown(~whole), cells, lit.shape)


def _counts(lit: Mask, cells: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return how many voxels are lit in each cell (z, y, x; at most 216 voxels); the last ones may reach outside."""
    counts = lit.view(np.uint8)
    for axis, size in enumerate(cells):
        first, *others = (counts[_along(axis, slice(offset, None, size))] for offset in range(size))
        counts = first.copy()
        for part in others:
            counts[_along(axis, slice(part.shape[axis]))] += part
    return counts


def _enlarged(mask: Mask, cells: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """Return the voxels of the cells."""
    for axis, size in enumerate(cells):
        mask = mask.repeat(size, axis)[_along(axis, slice(shape[axis]))]
    return mask


def _grown(mask: Mask) -> Mask:
    """Return the mask with all its neighbours, those at corners too."""
    for axis in range(3):
        lower, upper = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
        grown = mask.copy()
        grown[lower] |= mask[upper]
        grown[upper] |= mask[lower]
        mask = grown
    return mask


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))
