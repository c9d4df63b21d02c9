"""A head put around a stripped brain, and a scanner that looks at it: the raw scans of tests and benchmarks."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.imaging.rigid_grid import Matrix, itk_image, resample_rigidly

Mask = npt.NDArray[np.bool_]

# Around the brain: 2 mm of CSF, 6 mm of bone, 6 mm of scalp.
_CSF_MM = 2.0
_BONE_MM = 8.0
_SCALP_MM = 14.0
_CLOSED_MM = 6.0
_BONE = 0.1
# CSF and fat, in medians of the brain, by eye after two raw scans.
_BRIGHTNESS = {"t1": (0.35, 1.8), "t1c": (0.35, 1.7), "t2": (1.6, 1.2), "flair": (0.3, 1.1)}
# Orders of the axes x, y, z of the patient in the file, slices last.
ORIENTATIONS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}


def with_head(image: MedicalImage, brain: Mask, modality: str) -> MedicalImage:
    """Return a stripped image with CSF, skull and scalp around the brain, where its grid has room for them.

    Args:
        image: Stripped, its background at 0.
        brain: (D, H, W).
        modality: t1, t1c, t2 or flair: how bright CSF and fat are.
    """
    import SimpleITK as sitk

    csf, fat = (share * float(np.median(image.array[brain])) for share in _BRIGHTNESS[modality])
    bone = _BONE * float(np.median(image.array[brain]))
    steps = [round(_CLOSED_MM / spacing) for spacing in image.geometry.spacing_mm[::-1]]
    closed = sitk.BinaryMorphologicalClosing(itk_image(brain, image.geometry), steps)
    away_mm = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(closed, squaredDistance=False, useImageSpacing=True))
    layers = np.select([away_mm <= _CSF_MM, away_mm <= _BONE_MM, away_mm <= _SCALP_MM], [csf, bone, fat], 0)
    return replace(image, array=np.where(brain, image.array, layers).astype(np.float32))


def scan_geometry(
    centre_mm: npt.NDArray[np.float64],
    orientation: str = "axial",
    slice_mm: float = 5.0,
    pixel_mm: float = 1.0,
    extent_mm: tuple[float, float, float] = (230.0, 230.0, 190.0),
) -> Geometry:
    """Return a scanner's grid about a place.

    Args:
        centre_mm: Its middle, LPS (x, y, z).
        orientation: axial, coronal or sagittal.
        slice_mm: Distance of the slices.
        pixel_mm: Distance of the voxels within a slice.
        extent_mm: How much it shows along the patient's x, y, z; less is a partial field of view.
    """
    order = list(ORIENTATIONS[orientation])
    spacing = np.array([pixel_mm, pixel_mm, slice_mm])
    size = np.maximum(1, np.round(np.asarray(extent_mm)[order] / spacing)).astype(int)
    direction = np.eye(3)[:, order]
    if np.linalg.det(direction) < 0:
        direction[:, 2] *= -1
    origin = centre_mm - direction @ ((size - 1) / 2 * spacing)
    z, y, x = (int(n) for n in size[::-1])
    return Geometry(
        (z, y, x), (slice_mm, pixel_mm, pixel_mm), tuple(origin.tolist()), tuple(direction.ravel().tolist())
    )


def scan(head: MedicalImage, geometry: Geometry, motion: Matrix, noise: float = 0.0, seed: int = 0) -> MedicalImage:
    """Return what a scanner shows of a head that lies elsewhere.

    Args:
        head: The head.
        geometry: The scanner's grid.
        motion: (4, 4), from a point of the scanner to the head's, LPS mm.
        noise: Standard deviation of the noise, in grey values; it is Rician, as a magnitude's.
        seed: Of the noise.
    """
    array = resample_rigidly(head.array, head.geometry, geometry, motion)
    if noise:
        real, imaginary = np.random.default_rng(seed).normal(0, noise, (2, *array.shape)).astype(np.float32)
        array = np.hypot(array + real, imaginary)
    return replace(head, array=array, geometry=geometry)


def scan_mask(mask: Mask, grid: Geometry, geometry: Geometry, motion: Matrix) -> Mask:
    """Return a mask (D, H, W) of the head's grid on the scanner's, where at least half of a voxel is in it."""
    inside: Mask = resample_rigidly(mask.astype(np.float32), grid, geometry, motion) >= 0.5
    return inside


def rough_mask(mask: Mask, geometry: Geometry, seed: int = 0, wave_mm: float = 2.0) -> Mask:
    """Return a mask with its surface moved in and out by smooth noise, as an automatic extraction errs.

    With waves of 2 mm (one standard deviation) Dice with the truth is about 0.95.
    """
    import SimpleITK as sitk

    rng = np.random.default_rng(seed)
    noise = itk_image(rng.standard_normal(mask.shape, np.float32), geometry)
    waves = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 8.0))
    surface = sitk.SignedMaurerDistanceMap(itk_image(mask, geometry), squaredDistance=False, useImageSpacing=True)
    rough: Mask = sitk.GetArrayFromImage(surface) < waves / waves.std() * wave_mm + rng.uniform(-1, 1)
    return rough


def random_motion(rng: np.random.Generator, centre_mm: npt.NDArray[np.float64], degrees: float, mm: float) -> Matrix:
    """Return a motion (4, 4): a turn by that angle round a random axis through a place, then a shift."""
    axis, way = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    motion = np.eye(4)
    motion[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    motion[:3, 3] = centre_mm - motion[:3, :3] @ centre_mm + mm * way
    return motion
