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

from a2fseg_cli.imaging.border_fit import FEWEST_POINTS, Level, agreement, finest_level
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.mutual_information import information
from a2fseg_cli.imaging.rigid_grid import Mask, Matrix, coarser, itk_image, resample_rigidly
from a2fseg_cli.imaging.working_grid import CoarseImage, bounding_box
from a2fseg_cli.raw.rigid_search import Region

_GRID_MM = 3.0
# What lies nearer to the surface fits another person's too.
_RIM_MM = 4.0
# Moved by this much along each axis, either way, sulci lie on no sulci. At 12 mm a stranger's brain, whose ventricles
# fit by 5 mm, looks more alike than it is.
_AWAY_MM = 6.0
_LEAST_FIT = 0.018


@dataclass(frozen=True)
class Quality:
    """What tells a good registration from a bad one, measured inside the fixed brain.

    Attributes:
        borders: How much better the borders between tissues agree in place than 6 mm away; 0 is chance.
        information: Mutual information in place over that 6 mm away; 1 is chance.
        overlap: Dice of the two brains, where both images show them.
        covered: Which share of the fixed brain the moving image shows.
    """

    borders: float
    information: float
    overlap: float
    covered: float

    @property
    def fit(self) -> float:
        """Both measures in one: their products beyond chance."""
        return max(self.borders, 0.0) * max(self.information - 1, 0.0)

    @property
    def problem(self) -> str | None:
        """Why the registration is not to be trusted, in words; None where nothing speaks against it."""
        if self.fit >= _LEAST_FIT:
            return None
        return (
            f"the insides of the two brains do not fit ({self.fit:.3f}, expected {_LEAST_FIT:g} or more). "
            "Is it another person's scan, another part of the body, or blurred by motion?"
        )


def assess(matrix: Matrix, moving: Region, fixed: Region) -> Quality:
    """Return how well a motion, from the fixed image's points to the moving one's (LPS mm), brings them together."""
    pair = _Compared(moving, fixed)
    here = pair.moved(matrix)
    places = [pair.moved(matrix @ _shift(axis, mm)) for axis in range(3) for mm in (_AWAY_MM, -_AWAY_MM)]
    borders = pair.borders(here) - float(np.mean([pair.borders(place) for place in places]))
    both = [pair.information(here, place) for place in places]
    in_place, away = (sum(values) for values in zip(*both, strict=True))
    return Quality(borders, in_place / max(away, 1e-3), pair.overlap(here, matrix), pair.covered(here))


class _Compared:
    """Two images on cubes of 3 mm about the fixed brain."""

    def __init__(self, moving: Region, fixed: Region) -> None:
        self._grid, self._brain, self._inside = _grid_about(fixed)
        self._values = _on(self._grid, fixed, np.eye(4))
        self._moving = moving
        self._level = self._borders_of(self._values, self._inside)

    def moved(self, matrix: Matrix) -> npt.NDArray[np.float32]:
        """Return the moving image there, NaN beyond its field of view."""
        return _on(self._grid, self._moving, matrix)

    def covered(self, values: npt.NDArray[np.float32]) -> float:
        """Return which share of the brain the moving image shows."""
        return float(np.isfinite(values[self._brain]).mean())

    def borders(self, values: npt.NDArray[np.float32]) -> float:
        """Return how well the borders agree."""
        return agreement(self._level, self._borders_of(values, self._inside & np.isfinite(values)))

    def information(self, here: npt.NDArray[np.float32], away: npt.NDArray[np.float32]) -> tuple[float, float]:
        """Return the mutual information in place and away, of the points that both places show."""
        both = self._inside & np.isfinite(here) & np.isfinite(away)
        if np.count_nonzero(both) < FEWEST_POINTS:
            return 0.0, 0.0
        fixed = self._values[both]
        return information(fixed, here[both]), max(information(fixed, away[both]), 0.0)

    def overlap(self, values: npt.NDArray[np.float32], matrix: Matrix) -> float:
        """Return Dice of the two brains where the moving image shows something."""
        moving = self._moving
        mask = moving.mask.astype(np.float32)
        other = resample_rigidly(mask, moving.image.geometry, self._grid, matrix) > 0.5
        own = self._brain & np.isfinite(values)
        return float(2 * np.count_nonzero(own & other) / max(np.count_nonzero(own) + np.count_nonzero(other), 1))

    def _borders_of(self, values: npt.NDArray[np.float32], brain: Mask) -> Level:
        inside = np.where(brain, values, np.float32(0))
        return finest_level(CoarseImage(inside, brain.astype(np.float32), np.full(3, _GRID_MM)))


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
