"""Co-registration: where a scan's head lies in another scan, how sure that is, and the scan brought over."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from a2fseg_cli.errors import InputError
from a2fseg_cli.files import atomic_write_bytes
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.imaging.rigid_grid import Mask, Matrix, coverage, itk_transform, resample_rigidly
from a2fseg_cli.raw.registration_check import Quality, assess
from a2fseg_cli.raw.rigid_search import Region, find_motion, region_of


@dataclass(frozen=True)
class Registration:
    """The rigid motion between two scans of one head.

    Attributes:
        matrix: (4, 4) float64, from a point of the fixed image to the same of the head in the moving one, LPS mm.
        degrees: Angle of its turn, at least 0.
        mm: How far it moves the middle of the fixed brain.
        quality: What the check measured.
        problem: Why it is not to be used, in words; None where the check is content.
    """

    matrix: Matrix
    degrees: float
    mm: float
    quality: Quality
    problem: str | None

    @property
    def transform(self) -> Any:
        """The motion as a SimpleITK transform."""
        return itk_transform(self.matrix)


def register(
    moving: MedicalImage,
    fixed: MedicalImage,
    *,
    moving_brain: Mask | None = None,
    fixed_brain: Mask | None = None,
) -> Registration:
    """Return the rigid motion that brings one scan onto another of the same person, checked.

    Heads with the skull on or stripped brains, each on its own grid, of any two contrasts; up to 30 degrees and 40 mm
    apart. Equal inputs give equal results.

    Args:
        moving: The scan to be brought over.
        fixed: The scan that stands still.
        moving_brain: (D, H, W), its brain, about; where None, its tissue takes the brain's place.
        fixed_brain: The same of the fixed scan.

    Raises:
        InputError: a scan or a mask with less than 500 voxels of tissue.
        ValueError: a mask of another shape than its scan.
    """
    regions = region_of(moving, moving_brain), region_of(fixed, fixed_brain)
    return _checked(find_motion(*regions), *regions)


def check_motion(
    matrix: Matrix,
    moving: MedicalImage,
    fixed: MedicalImage,
    *,
    moving_brain: Mask | None = None,
    fixed_brain: Mask | None = None,
) -> Registration:
    """Return a motion that is known already (of a file, or none at all) with what the check says of it.

    Args:
        matrix: (4, 4), from a point of the fixed image to the moving one's, LPS mm.
        moving: As for `register`.
        fixed: As for `register`.
        moving_brain: As for `register`.
        fixed_brain: As for `register`.

    Raises:
        InputError, ValueError: as `register`.
    """
    return _checked(matrix, region_of(moving, moving_brain), region_of(fixed, fixed_brain))


def resample_onto(image: MedicalImage, matrix: Matrix, grid: Geometry) -> MedicalImage:
    """Return the moving image on a grid of the fixed one's space, interpolated once, 0 beyond its field of view.

    Onto a coarser grid its voxels are averaged, as a thick slice does it.

    Raises:
        InputError: nothing of it lies there.
    """
    array = resample_rigidly(image.array, image.geometry, grid, matrix)
    if not array.any():
        raise InputError(f"{image.path}: nothing of it lies on the reference's grid after co-registration.")
    return replace(image, array=array, geometry=grid)


def covered(image: MedicalImage, matrix: Matrix, grid: Geometry) -> Mask:
    """Return which voxels (D, H, W) of a grid of the fixed image's space the moving image shows."""
    return coverage(image.geometry, grid, matrix)


def write_transform(matrix: Matrix, path: Path) -> None:
    """Write a motion as ITK's text (.tfm), as 3D Slicer opens it: from the fixed image's points to the moving one's.

    Raises:
        ResourceError: it cannot be written.
    """
    numbers = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    # The words of itk::TxtTransformIO; 17 digits give every float64 back.
    lines = (
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        "Parameters: " + " ".join(f"{number + 0.0:.17g}" for number in numbers),
        "FixedParameters: 0 0 0",
        "",
    )
    atomic_write_bytes(path, "\n".join(lines).encode())


def _checked(matrix: Matrix, moving: Region, fixed: Region) -> Registration:
    """Return a motion with what the check says of it."""
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    middle = np.append(fixed.centre_mm, 1.0)
    quality = assess(matrix, moving, fixed)
    return Registration(
        matrix,
        float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))),
        float(np.linalg.norm((matrix @ middle - middle)[:3])),
        quality,
        quality.problem,
    )
