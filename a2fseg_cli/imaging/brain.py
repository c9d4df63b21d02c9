"""Which voxels of an image are brain, and whether the skull is still on.

What was measured: 588 skull-stripped images (400 of 100 patients of BraTS 2013 to 2023 and BraTS-Africa, 188 of 169
more, most of them FLAIR), and 7 raw scans of 2 persons, each also turned, cut, resampled, noisy or with its air at 0.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

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
_CELLS = 60

# A ray enters the head where this share of the tissue's brightness is passed by two voxels one after the other.
_LIT = 0.15
_DEPTH_MM = 30.0
_DEEPEST_SKULL_MM = 20.0
_WIDEST_VOXEL_MM = 3.5
_RAY_STEP_MM = 4.0
_PATCH = 5
# Rays shorter than 0.7 of the long ones graze the surface.
_SHORTEST_RAY = 0.7
# The evidence is the dark layer, and the volume beyond 2 L, of which 1.5 L count as much as a black layer. Of stripped
# brains it is 0.36 at most (0.42 in a slab of 40 mm), of raw scans 0.55 and more (0.34 in the top third of a head).
_LIKELY = 0.46
_LARGEST_BRAIN_ML = 2000.0
_VOLUME_RANGE_ML = 1500.0


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


@dataclass(frozen=True)
class Finding:
    """Whether the skull is on, and the measures that say so.

    Attributes:
        likely: It is. False also where it cannot be told.
        judged: It could be told: at least three sides of the head show enough surface in voxels up to 3.5 mm.
        dark_layer: How much darker a layer under the surface is than the tissue outside and inside of it, 0 to 1.
        volume_ml: Volume of what is not background.
        background: Share of the voxels that are background, 0 to 1.
    """

    likely: bool
    judged: bool
    dark_layer: float = 0.0
    volume_ml: float = 0.0
    background: float = 0.0

    @property
    def words(self) -> str:
        """The measures as a part of a sentence."""
        if not self.judged:
            return "too few voxels, or no background, to tell whether the skull is on"
        return (
            f"under the surface a layer {self.dark_layer:.0%} darker than what lies outside and inside of it; "
            f"background {self.background:.0%} of the voxels, the rest {self.volume_ml:.0f} mL"
        )


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
    apart = _thinned(array, 48).ravel() - np.float32(level)
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
    above = float(np.mean(apart[np.abs(apart) > _LIT * scale] > 0))
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
    threshold = max(_RINGING, _noise_share(found)) * found.scale
    if found.side:
        lit = np.greater(array, found.level + threshold) if found.side > 0 else array < found.level - threshold
    else:
        lit = np.abs(array - np.float32(found.level)) > threshold
    return _filled(_without_strays(lit))


def clean_mask(mask: Mask) -> Mask:
    """Return the largest part of a mask (D, H, W; voxels that share a face), its holes filled; empty stays empty."""
    import SimpleITK as sitk

    clean = np.zeros(mask.shape, np.bool_)
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not hits[0].size:
        return clean
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    labels = connected_components(mask[z, y, x], by_faces=True)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    image = sitk.GetImageFromArray(largest.astype(np.uint8))
    clean[z, y, x] = sitk.GetArrayFromImage(sitk.BinaryFillhole(image))
    return clean


def skull_on(array: FloatVolume, spacing_mm: tuple[float, float, float]) -> Finding:
    """Return whether an image shows a head rather than a brain.

    Rays enter from up to six sides. In a head they pass scalp, then bone, which is as dark as air, then brain; in a
    brain no such layer lies under the surface. The median of 5 x 5 neighbouring rays blots out sulci and vessels, and
    the second darkest side counts, so that one odd side (a face, a cut, a lit plane) decides nothing.

    Args:
        array: (D, H, W), finite.
        spacing_mm: (z, y, x).
    """
    found = find_background(array)
    if found is None or not found.scale:
        return Finding(likely=False, judged=False)
    thin = _thinned(array, _CELLS)
    lit = np.abs(thin - np.float32(found.level)) > max(_LIT, _noise_share(found)) * found.scale
    share = float(lit.mean())
    sides = sorted(_dark_layers(array, spacing_mm, found, thin, lit))
    if len(sides) < 3:
        return Finding(likely=False, judged=False)
    volume_ml = share * array.size * float(np.prod(spacing_mm)) / 1000
    evidence = sides[-2] + max(0.0, volume_ml - _LARGEST_BRAIN_ML) / _VOLUME_RANGE_ML
    return Finding(evidence > _LIKELY, True, sides[-2], volume_ml, 1 - share)


def _thinned(array: FloatVolume, wanted: int) -> FloatVolume:
    """Return every n-th voxel, so that about the wanted number, at most twice as many, are left along each axis."""
    z, y, x = (slice(None, None, max(1, size // wanted)) for size in array.shape)
    return array[z, y, x]


def _noise_share(found: Background) -> float:
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
    cells = [1 if size < 48 else min(6, max(2, round(size / _CELLS))) for size in lit.shape]
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

    cells = [2 if size > _CELLS else 1 for size in lit.shape]
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


def _dark_layers(
    array: FloatVolume, spacing_mm: Sequence[float], found: Background, thin: FloatVolume, lit: Mask
) -> Iterator[float]:
    """Yield of each side with enough rays how dark the layer under the surface is, the median over the side."""
    level = np.float32(found.level)
    dark, bright = level, np.float32(level + (found.side or 1) * found.scale)
    if not found.side:
        # Darkness lies below the darkest tissue, and the background's value within: the distance is a guess, with
        # which brains that were z-scored look as they did before, and z-scored heads with air at 0 are still found.
        low, high = np.percentile(thin[lit], (1, 75))
        dark, bright = np.float32(low - (high - low) / 4), np.float32(high)
    limit = max(_LIT, _noise_share(found)) * found.scale
    places = _places(lit, array.shape, spacing_mm)
    for axis in range(3):
        deep, skull = int(_DEPTH_MM / spacing_mm[axis]), int(_DEEPEST_SKULL_MM / spacing_mm[axis])
        if spacing_mm[axis] > _WIDEST_VOXEL_MM or deep >= array.shape[axis]:
            continue
        one, two = (a for a in range(3) if a != axis)
        rays = np.moveaxis(array, axis, 2)[np.ix_(places[one], places[two], np.arange(array.shape[axis]))]
        tissue = np.abs(rays - level) > limit
        rays = (rays - dark) / (bright - dark)
        entry = tissue[..., :-1] & tissue[..., 1:]
        reach = entry.shape[2] - entry[..., ::-1].argmax(2) - entry.argmax(2)
        hits = entry.any(2)
        if not hits.any():
            continue
        long = hits & (reach >= _SHORTEST_RAY * np.percentile(reach[hits], 95))
        for step in (1, -1):
            start = entry[..., ::step].argmax(2)
            usable = long & (start + deep <= rays.shape[2])
            index = np.minimum(start[..., None] + np.arange(deep), rays.shape[2] - 1)
            layers = _dark_layer(np.take_along_axis(rays[..., ::step], index, 2), usable, skull)
            if layers.size >= 5:
                yield float(np.median(layers))


def _places(lit: Mask, shape: Sequence[int], spacing_mm: Sequence[float]) -> list[npt.NDArray[np.intp]]:
    """Return of each axis where rays stand, in voxels: 4 mm apart, over the middle 60 % of what is lit."""
    places = []
    for axis in range(3):
        along = lit.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
        # Strays and planes hold less than 2 % of what is lit on either side.
        start, stop = along.searchsorted((0.02 * along[-1], 0.98 * along[-1])) * max(1, shape[axis] // _CELLS)
        inner_start, inner_stop = start + 0.2 * (stop - start), stop - 0.2 * (stop - start)
        length_mm = (inner_stop - inner_start) * spacing_mm[axis]
        count = int(length_mm / max(_RAY_STEP_MM, spacing_mm[axis])) + 1
        places.append(np.linspace(inner_start, inner_stop, count).round().astype(np.intp))
    return places


def _dark_layer(depths: FloatVolume, usable: Mask, skull: int) -> npt.NDArray[np.floating]:
    """Return of each patch of rays how dark its darkest layer is against the brightest outside and inside of it.

    Args:
        depths: (rays, rays, depth) brightness from the surface inwards, 0 the background's, 1 typical tissue's.
        usable: (rays, rays).
        skull: How many voxels under the surface the layer may lie.
    """
    height, width = (min(_PATCH, count) for count in usable.shape)  # a slab of thick slices has few rays one way
    if min(height, width) < 3:
        return np.zeros(0)
    patches = sliding_window_view(depths, (height, width), (0, 1))[::2, ::2]
    whole = sliding_window_view(usable, (height, width))[::2, ::2].all(axis=(2, 3))
    profiles = np.median(patches[whole].reshape(-1, depths.shape[2], height * width), axis=2)
    outside = np.maximum.accumulate(profiles, axis=1)
    inside = np.maximum.accumulate(profiles[:, ::-1], axis=1)[:, ::-1]
    rim = np.minimum(outside, inside)[:, :skull]
    # Between rims fainter than a fifth of typical tissue, noise would count as a layer.
    layers = np.where(rim > 0.2, 1 - profiles[:, :skull] / np.maximum(rim, 0.2), 0)
    return np.asarray(np.minimum(layers.max(axis=1), 1))
