"""Which slices of a patient a picture shows, how they lie in it, and what is black and white.

Arrays arrive in LPS order: axis 0 to the head, axis 1 to the back, axis 2 to the patient's left. Slices are shown in
radiological convention: the patient's left is on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.components import connected_components
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.preprocessing import bounding_box

Classes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
FloatVolume = npt.NDArray[np.floating[Any]]
Frame = tuple[slice, slice, slice]

PLANES = ("axial", "coronal", "sagittal")
EDGE_MARKS = (("R", "L"), ("R", "L"), ("A", "P"))
MARGIN_MM = 6.0
AXIAL_SLICES = 3
# Axial slices nearer to each other than this show the same again.
_LEAST_APART_MM = 8.0


@dataclass(frozen=True)
class Backdrop:
    """An image that pictures show a segmentation on.

    Attributes:
        voxels: (d, h, w), any intensities.
        limits: What is black and what is white.
    """

    voxels: FloatVolume
    limits: tuple[float, float]


@dataclass(frozen=True)
class Cut:
    """A slice to show.

    Attributes:
        plane: 0 axial, 1 coronal, 2 sagittal; the axis that it is a position on.
        position: From 0.
        reason: Why this one, in a few words, or nothing.
        main: Whether it is the one to show where there is room for one only.
    """

    plane: int
    position: int
    reason: str = ""
    main: bool = False

    def of(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the slice of a volume as it is displayed, first row on top: front or head up."""
        part: npt.NDArray[Any] = np.take(volume, self.position, self.plane)
        return part if self.plane == 0 else part[::-1]

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Return height and width of its pixels in mm, of voxels of this spacing (z, y, x)."""
        rows, columns = ((1, 2), (0, 2), (0, 1))[self.plane]
        return spacing_mm[rows], spacing_mm[columns]


def grey_limits(tissue: npt.NDArray[Any]) -> tuple[float, float]:
    """Return black and white: the 1st and the 99.5th percentile of the brain's voxels, given in any order.

    Black lies below the darkest tissue, cerebrospinal fluid on T1, which should stand out from the background.
    """
    values = tissue[np.isfinite(tissue)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values[:: max(1, values.size // 200_000)], (1, 99.5)))
    low -= 0.15 * (high - low)
    return (low, high) if high > low else (low - 1, high + 1)


def with_margin(start: Sequence[int], stop: Sequence[int], shape: Sequence[int], spacing_mm: Sequence[float]) -> Frame:
    """Return a box with a margin of 6 mm, as far as the volume goes."""
    margins = (round(MARGIN_MM / mm) for mm in spacing_mm)
    edges = zip(start, stop, margins, shape, strict=True)
    z, y, x = (slice(max(a - margin, 0), min(b + margin, n)) for a, b, margin, n in edges)
    return z, y, x


def main_cuts(
    classes: Classes, members: Mapping[str, Sequence[int]], spacing_mm: Sequence[float], axial: int = AXIAL_SLICES
) -> list[Cut]:
    """Return axial slices, from the head down, then a coronal and a sagittal one, that show what was segmented.

    Axial slices go through the largest connected part of each region where that part is largest: the innermost region
    first, of those that lie close together only one. Inner regions are looked at inside the largest part of the
    outermost, if they have a voxel there. Where fewer than `axial` are left, slices through the upper and
    lower part of the outermost region follow. The other planes cut that region's largest part. Specks never decide.
    Without any segmentation the slices are spread over the image.

    Args:
        classes: Class indices (d, h, w), 0 background.
        members: Class indices of each region, outermost region first.
        spacing_mm: Voxel spacing (z, y, x).
        axial: How many axial slices.
    """
    parts = _main_parts(classes, members)
    if not parts:
        depth, height, width = classes.shape
        shares = np.linspace(0.65, 0.35, axial) if axial > 1 else [0.5]
        axial_cuts = [Cut(0, int(share * depth), main=number == axial // 2) for number, share in enumerate(shares)]
        return [*axial_cuts, Cut(1, height // 2), Cut(2, width // 2)]
    outermost = next(iter(parts.values()))
    wanted = [Cut(0, largest_cut(part, 0), f"largest {region}") for region, part in reversed(parts.items())]
    occupied = np.flatnonzero(outermost.any((1, 2)))
    wanted += [Cut(0, int(occupied[int(share * (len(occupied) - 1))])) for share in (0.75, 0.25, 0.1, 0.9)]
    chosen: list[Cut] = []
    for cut in wanted:
        near = [i for i, other in enumerate(chosen) if _apart_mm(cut, other, spacing_mm) < _LEAST_APART_MM]
        if not near and len(chosen) < axial:
            chosen.append(cut)
        elif near and cut.reason and cut.position == chosen[near[0]].position:
            chosen[near[0]] = replace(cut, reason=f"{chosen[near[0]].reason}, {cut.reason.removeprefix('largest ')}")
    chosen[0] = replace(chosen[0], main=True)
    across = [Cut(plane, largest_cut(outermost, plane)) for plane in (1, 2)]
    return sorted(chosen, key=lambda cut: -cut.position) + across


def _main_parts(classes: Classes, members: Mapping[str, Sequence[int]]) -> dict[str, Mask]:
    """Return the part of each region that has voxels that its slices are to show."""
    parts: dict[str, Mask] = {}
    for region, indices in members.items():
        mask = region_mask(classes, indices)
        inside = mask & next(iter(parts.values()), mask)
        if mask.any():
            parts[region] = largest_part(inside if inside.any() else mask)
    return parts


def largest_part(mask: Mask) -> Mask:
    """Return the largest connected part (26 neighbours) of a mask (d, h, w)."""
    if not mask.any():
        return mask
    start, stop = bounding_box(mask)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    parts = connected_components(mask[box])
    largest = np.zeros_like(mask)
    largest[box] = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return largest


def largest_cut(mask: Mask, plane: int) -> int:
    """Return the position on an axis where a mask is largest, the middle one of several; of an empty one the middle."""
    areas = mask.sum(tuple(axis for axis in range(3) if axis != plane))
    positions = np.flatnonzero(areas == areas.max())
    return int(positions[len(positions) // 2])


def _apart_mm(cut: Cut, other: Cut, spacing_mm: Sequence[float]) -> float:
    return abs(cut.position - other.position) * spacing_mm[cut.plane]
