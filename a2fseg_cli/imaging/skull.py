"""Whether the skull is still on: a bright rim, and a dark layer between it and the brain.

Measured on the images that `brain.py` names.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from a2fseg_cli.imaging.brain import CELLS, LIT, Background, FloatVolume, Mask, find_background, noise_share, thinned

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
    thin = thinned(array, CELLS)
    lit = np.abs(thin - np.float32(found.level)) > max(LIT, noise_share(found)) * found.scale
    share = float(lit.mean())
    sides = sorted(_dark_layers(array, spacing_mm, found, thin, lit))
    if len(sides) < 3:
        return Finding(likely=False, judged=False)
    volume_ml = share * array.size * float(np.prod(spacing_mm)) / 1000
    evidence = sides[-2] + max(0.0, volume_ml - _LARGEST_BRAIN_ML) / _VOLUME_RANGE_ML
    return Finding(evidence > _LIKELY, True, sides[-2], volume_ml, 1 - share)


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
    limit = max(LIT, noise_share(found)) * found.scale
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
        start, stop = along.searchsorted((0.02 * along[-1], 0.98 * along[-1])) * max(1, shape[axis] // CELLS)
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
