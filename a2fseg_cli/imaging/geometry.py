"""Where the voxels of an array lie in the patient, and when two grids are the same.

World coordinates are millimetres in LPS (x toward the patient's left, y toward posterior, z toward superior),
as ITK and DICOM have them; NIfTI's RAS is turned into it at the file's edge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Letter of the direction in which a file axis grows, by world axis (x, y, z) and sign (plus, minus).
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))

SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Geometry:
    """The grid of an image: size and spacing in array order (z, y, x), origin and direction as SimpleITK.

    Attributes:
        size: voxels (D, H, W).
        spacing_mm: distance of neighbouring voxel centres (z, y, x).
        origin_mm: centre of the first voxel, LPS (x, y, z).
        direction: 3 x 3 row-major; its columns are the unit vectors of the file axes x, y, z in LPS.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        numbers = (*self.spacing_mm, *self.origin_mm, *self.direction)
        if len(self.direction) != 9 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"direction needs 9 numbers and all numbers must be finite: {self}")
        if min(self.size) < 1 or min(self.spacing_mm) <= 0:
            raise ValueError(f"size and spacing must be positive: {self}")
        if abs(np.linalg.det(self.direction_matrix)) < 1e-3:
            raise ValueError(f"two axes of the direction coincide: {self}")

    @property
    def direction_matrix(self) -> npt.NDArray[np.float64]:
        """The direction as a (3, 3) array; row: world axis, column: file axis x, y, z."""
        return np.asarray(self.direction, np.float64).reshape(3, 3)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return math.prod(self.spacing_mm) / 1000

    @property
    def orientation(self) -> str:
        """Three letters for where the file axes x, y, z point, nearest axes, as DICOM and SimpleITK name it."""
        matrix = self.direction_matrix
        rows = _nearest_world_axes(matrix)
        return "".join(_LETTERS[row][int(matrix[row, column] < 0)] for column, row in enumerate(rows))

    @property
    def obliqueness_deg(self) -> float:
        """Largest angle between a file axis and the world axis that it stands for."""
        matrix = self.direction_matrix
        cosines = [abs(matrix[row, column]) for column, row in enumerate(_nearest_world_axes(matrix))]
        return math.degrees(math.acos(min(1.0, min(cosines))))

    def corners_mm(self) -> npt.NDArray[np.float64]:
        """Return the LPS coordinates (8, 3) of the corner voxels' centres, file axis x fastest."""
        depth, height, width = self.size
        indices = np.array([(x, y, z) for z in (0, depth - 1) for y in (0, height - 1) for x in (0, width - 1)])
        steps = indices * np.asarray(self.spacing_mm[::-1])
        corners: npt.NDArray[np.float64] = np.asarray(self.origin_mm) + steps @ self.direction_matrix.T
        return corners


def right_angled(
    steps_mm: npt.NDArray[np.float64], declared_mm: npt.NDArray[np.float64] | None = None
) -> tuple[tuple[float, float, float], tuple[float, ...], float]:
    """Return spacing (z, y, x) and direction of the right-angled grid nearest to a file's, and how far off that is.

    Args:
        steps_mm: (3, 3), a column for each file axis x, y, z: the way from one voxel to the next, LPS.
        declared_mm: Spacing (x, y, z) as the header has it beside the steps; taken where it differs by rounding only.

    Raises:
        ValueError: numbers that are not finite, an axis without length, or two that coincide.
    """
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(steps_mm, axis=0)
    if steps_mm.shape != (3, 3) or not np.isfinite(steps_mm).all() or not np.isfinite(spacing).all():
        raise ValueError("the axes are not nine finite numbers")
    if spacing.min() < 1e-6:
        raise ValueError("an axis has no length")
    axes = steps_mm / spacing
    if abs(np.linalg.det(axes)) < 1e-3:
        raise ValueError("two axes coincide")
    left, _, right = np.linalg.svd(axes)
    nearest = left @ right
    shear = float(np.abs(nearest - axes).max())
    # Below float32's noise the stored axes are as good, and exact zeros and ones stay what they are.
    direction = (nearest if shear > 1e-6 else axes) + 0.0
    if declared_mm is not None:
        spacing = np.where(np.abs(declared_mm - spacing) <= 1e-5 * spacing, declared_mm, spacing)
    x, y, z = (float(value) for value in spacing)
    return (z, y, x), tuple(float(value) for value in direction.ravel()), shear


def shear_warning(name: str, shear: float) -> tuple[str, ...]:
    """Return what a user should know of a file whose axes are that far from a right-angled grid, if anything."""
    if shear <= SHEAR_TOLERANCE:
        return ()
    return (f"{name}: sheared axes, off by {shear:.2g}; the nearest right-angled grid is used",)


def _nearest_world_axes(matrix: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """World axis for each file axis, each used once, with the largest sum of absolute cosines.

    The sums are rounded, so that a 45 degree tie falls to the same side whatever the last bit says.
    """

    def score(rows: tuple[int, ...]) -> float:
        return round(sum(abs(float(matrix[row, column])) for column, row in enumerate(rows)), 6)

    x, y, z = max(itertools.permutations(range(3)), key=score)
    return x, y, z


def axes_to_canonical(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return how to bring an array (D, H, W) of this geometry to canonical LPS axes.

    Canonical: array axis 0 grows toward superior, 1 toward posterior, 2 toward the patient's left; for
    oblique grids the nearest such assignment.

    Returns:
        `permutation` for `numpy.transpose` and, of the transposed array, the axes to flip.
    """
    matrix = geometry.direction_matrix
    rows = _nearest_world_axes(matrix)
    file_axes = [rows.index(world) for world in (2, 1, 0)]
    flips = tuple(axis for axis, column in enumerate(file_axes) if matrix[2 - axis, column] < 0)
    first, second, third = (2 - column for column in file_axes)
    return (first, second, third), flips


def largest_corner_offset_mm(a: Geometry, b: Geometry) -> float:
    """Return the largest distance between corresponding corner voxels' centres of two grids."""
    return float(np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max())


def same_grid(a: Geometry, b: Geometry, tolerance_mm: float = 0.01) -> bool:
    """Tell whether two grids have the same size and no corner further apart than `tolerance_mm`."""
    return a.size == b.size and largest_corner_offset_mm(a, b) <= tolerance_mm


def axes_between(
    source: Geometry, target: Geometry, tolerance_mm: float = 0.01
) -> tuple[tuple[int, int, int], tuple[int, ...]] | None:
    """Return how to bring an array (D, H, W) of one grid to another that has the same voxels in another order of axes.

    Returns:
        `permutation` for `numpy.transpose` and, of the transposed array, the axes to flip; None where the voxels
        lie elsewhere.
    """
    # Row: file axis x, y, z of the target; column: of the source.
    cosines = np.rint(target.direction_matrix.T @ source.direction_matrix)
    if (np.abs(cosines).sum(axis=0) != 1).any() or (np.abs(cosines).sum(axis=1) != 1).any():
        return None
    columns = np.abs(cosines).argmax(axis=1)
    signs = cosines[range(3), columns]
    first, second, third = (2 - int(column) for column in columns[::-1])
    flips = tuple(axis for axis in range(3) if signs[2 - axis] < 0)
    turned = _turned(source, columns, signs)
    return ((first, second, third), flips) if same_grid(turned, target, tolerance_mm) else None


def reoriented(geometry: Geometry, permutation: Sequence[int], flips: Sequence[int]) -> Geometry:
    """Return the grid of an array (D, H, W) of this one after `numpy.transpose` and `numpy.flip`."""
    columns = np.array([2 - permutation[2 - axis] for axis in range(3)])
    signs = np.array([-1.0 if 2 - axis in flips else 1.0 for axis in range(3)])
    return _turned(geometry, columns, signs)


def cropped(geometry: Geometry, box: Sequence[slice]) -> Geometry:
    """Return the grid of a box (z, y, x) of an array of this one; its slices have a start and a stop."""
    depth, height, width = (part.stop - part.start for part in box)
    steps = np.array([part.start for part in box[::-1]]) * np.asarray(geometry.spacing_mm[::-1])
    x, y, z = (np.asarray(geometry.origin_mm) + geometry.direction_matrix @ steps).tolist()
    return Geometry((depth, height, width), geometry.spacing_mm, (x, y, z), geometry.direction)


def _turned(geometry: Geometry, columns: npt.NDArray[np.int64], signs: npt.NDArray[np.float64]) -> Geometry:
    """Return a grid with its file axes x, y, z taken from `columns`, and turned round where `signs` are negative."""
    matrix, spacing = geometry.direction_matrix, np.asarray(geometry.spacing_mm[::-1])
    lengths = (np.asarray(geometry.size[::-1]) - 1) * spacing
    reversed_ = columns[signs < 0]
    origin = np.asarray(geometry.origin_mm) + matrix[:, reversed_] @ lengths[reversed_]
    sizes, spacings = (
        np.asarray(values[::-1])[columns][::-1].tolist() for values in (geometry.size, geometry.spacing_mm)
    )
    return Geometry(
        tuple(sizes), tuple(spacings), tuple(origin.tolist()), tuple((matrix[:, columns] * signs).ravel().tolist())
    )
