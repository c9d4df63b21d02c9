"""Did a co-registration go well? What the brains' insides say of it.

Any two heads fit each other on the outside. Only one person's sulci, ventricles and nuclei lie in one place, so the
check looks inside the brain, and compares with the same two images moved apart: what noise, contrasts and thick slices
take away, they take away from both.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.border_fit import Level, agreements, finest_level
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.rigid_grid import Mask, Matrix, coarser, itk_image, resample_rigidly
from a2fseg_cli.imaging.working_grid import CoarseImage, bounding_box
from a2fseg_cli.raw.rigid_search import Region

_GRID_MM = 3.0
# What lies nearer to the surface fits another person's too.
_RIM_MM = 4.0
# Moved by this much along each axis, either way, sulci lie on no sulci. At 12 mm a stranger's brain, whose ventricles
# fit by 5 mm, looks more alike than it is.
_AWAY_MM = 6.0
# Cubes of 33 mm. Two strangers may have the same ventricles, not the same sulci: the half of the cubes that agrees
# least tells more than all, of which one pair of 42 strangers makes more than a pair of one person's scans.
_PART = 11
_FEWEST_VOXELS = 250
_FEWEST_PARTS = 4
# Of the pairs that `rigid_search` names (rough masks), 41 of one person have 0.022 and more (the four lowest up to
# 0.031, the fifth 0.052); 42 with another patient's sequence 0.016 and less (the second 0.007); 39 that ended 16 to 115
# mm off because 60 degrees were left in, below 0. The 42nd of one person, -0.013, is rightly told: its T2 lies 12
# degrees off T1c in the data, within its own skull. Raw scans of two persons: 0.073 and more, of each other below 0.
LEAST_BORDERS = 0.019


@dataclass(frozen=True)
class Quality:
    """What tells a good registration from a bad one.

    Attributes:
        borders: How much better the borders between tissues agree in place than 6 mm away, inside the fixed brain: the
            mean of the half of its parts (cubes of 33 mm) that agrees least. 0 is chance.
        overlap: Dice of the two brains, where both images show them.
        covered: Which share of the fixed brain the moving image shows.
        parts: How many parts there were to judge by.
    """

    borders: float
    overlap: float
    covered: float
    parts: int

    @property
    def problem(self) -> str | None:
        """Why the registration is not to be trusted, in words; None where nothing speaks against it."""
        if self.parts < _FEWEST_PARTS:
            return f"they show too little brain in common to tell whether they fit ({self.covered:.0%} of the mask)"
        if self.borders >= LEAST_BORDERS:
            return None
        return (
            f"the insides of the two brains do not fit (borders {self.borders:.3f}, expected {LEAST_BORDERS:g} or "
            "more), as of another person's scan, another part of the body, or one blurred by motion"
        )


def assess(matrix: Matrix, moving: Region, fixed: Region) -> Quality:
    """Return how well a motion, from the fixed image's points to the moving one's (LPS mm), brings them together."""
    pair = _Compared(moving, fixed)
    here = pair.moved(matrix)
    in_place, voxels = pair.agreements(here)
    places = [matrix @ _shift(axis, mm) for axis in range(3) for mm in (_AWAY_MM, -_AWAY_MM)]
    away, weights = (np.stack(values) for values in zip(*(pair.agreements(pair.moved(p)) for p in places), strict=True))
    mean_away = (away * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1)
    rises = np.sort((in_place - mean_away)[voxels >= _FEWEST_VOXELS])
    borders = float(rises[: (len(rises) + 1) // 2].mean()) if len(rises) else 0.0
    return Quality(borders, pair.overlap(here, matrix), pair.covered(here), len(rises))


class _Compared:
    """Two images on cubes of 3 mm about the fixed brain."""

    def __init__(self, moving: Region, fixed: Region) -> None:
        self._grid, self._brain, self._inside = _grid_about(fixed)
        self._moving = moving
        self._level = self._borders_of(_on(self._grid, fixed, np.eye(4)))
        z, y, x = (np.arange(n) // _PART for n in self._grid.size)
        self._parts = (z[:, None, None] * (y[-1] + 1) + y[:, None]) * (x[-1] + 1) + x

    def moved(self, matrix: Matrix) -> npt.NDArray[np.float32]:
        """Return the moving image there, NaN beyond its field of view."""
        return _on(self._grid, self._moving, matrix)

    def covered(self, values: npt.NDArray[np.float32]) -> float:
        """Return which share of the brain the moving image shows."""
        return float(np.isfinite(values[self._brain]).mean())

    def agreements(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return by part how well the borders agree, and how many voxels say so."""
        return agreements(self._level, self._borders_of(values), self._parts)

    def overlap(self, values: npt.NDArray[np.float32], matrix: Matrix) -> float:
        """Return Dice of the two brains where the moving image shows something."""
        moving = self._moving
        mask = moving.mask.astype(np.float32)
        other = resample_rigidly(mask, moving.image.geometry, self._grid, matrix) > 0.5
        own = self._brain & np.isfinite(values)
        voxels = int(np.count_nonzero(own)) + int(np.count_nonzero(other))
        return 2 * int(np.count_nonzero(own & other)) / max(voxels, 1)

    def _borders_of(self, values: npt.NDArray[np.float32]) -> Level:
        inside = self._inside & np.isfinite(values)
        seen = np.where(inside, values, np.float32(0))
        return finest_level(CoarseImage(seen, inside.astype(np.float32), np.full(3, _GRID_MM)))


def _grid_about(region: Region) -> tuple[Geometry, Mask, Mask]:
    """Return the grid of cubes that holds a region's mask, the mask on it, and what of it lies deeper than the rim."""
    import SimpleITK as sitk

    grid = coarser(region.image.geometry, _GRID_MM)
    mask = resample_rigidly(region.mask.astype(np.float32), region.image.geometry, grid, np.eye(4)) > 0.5
    depth = sitk.SignedMaurerDistanceMap(itk_image(mask, grid), squaredDistance=False, useImageSpacing=True)
    inside = sitk.GetArrayViewFromImage(depth) <= -_RIM_MM
    box = bounding_box([mask]) or (slice(0, 1),) * 3
    first = np.array([part.start for part in box[::-1]], np.float64) * _GRID_MM
    origin = np.asarray(grid.origin_mm) + grid.direction_matrix @ first
    z, y, x = mask[box].shape
    return replace(grid, size=(z, y, x), origin_mm=tuple(origin.tolist())), mask[box].copy(), inside[box].copy()


def _on(grid: Geometry, region: Region, matrix: Matrix) -> npt.NDArray[np.float32]:
    geometry = region.image.geometry
    return resample_rigidly(region.image.array, geometry, grid, matrix, outside=float("nan"))


def _shift(axis: int, mm: float) -> Matrix:
    shift = np.eye(4)
    shift[axis, 3] = mm
    return shift
