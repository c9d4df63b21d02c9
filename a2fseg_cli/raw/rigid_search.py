"""The rigid motion between two scans of one head: mutual information, coarse to fine, from many starts.

Mutual information (Viola and Wells, IJCV 1997; Mattes et al., IEEE TMI 2003) as ITK has it. What was measured: 42 pairs
(T1c with T1, T2, FLAIR of 14 patients of BraTS, one of them not for training) with a skull put around two thirds of
them, in slices of 4 to 6 mm along any axis, one in five in 90 mm of the head only, 9 to 30 degrees and 12 to 40 mm
apart, masks with Dice 0.94. The corners of the brain's box end 0.41 mm off in the median, 1.94 mm at worst (the second
worst 1.08); without masks 0.15 and 1.46 mm, since the skull put there fits exactly. 1.2 to 2.2 s of one processor.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.imaging.rigid_grid import Mask, Matrix, itk_image

# Scalp and skull move with the brain, and their borders are the sharpest. Of eight hard pairs, followed from the truth
# (with the gradient filter that is off now), the median error was 4.3 mm with a rim of 2 mm, 1.0 with 6, 0.7 with 10.
_RIM_MM = 10.0
_REGION_MM = 3.0
# A radian of rotation counts as much as this many mm of shift: the brain's radius, about.
_RADIUS_MM = 60.0
# Of the 53 rotations and the scanner's own coordinates, 8 to 51 of 54 starts end at the right place (30 pairs).
_START_DEGREES = (15.0, 30.0)
# The starts that go on from the coarse grid, if they ended this far apart.
_KEPT = 4
_APART_MM = 8.0
_SEED = 1
# Grey values are stretched between these percentiles of the region: fat and vessels do not take up the bins.
_PERCENTILES = (1.0, 99.0)
_CLIPPED = (-0.25, 1.25)
_FEWEST_VOXELS = 500


@dataclass(frozen=True)
class _Stage:
    """One resolution: voxel size, bins of the histogram, points, and the optimiser's steps in mm."""

    mm: float
    bins: int
    points: int
    first_step_mm: float
    last_step_mm: float
    relaxation: float
    iterations: int


# Chance alone gives mutual information, about bins² / (2 points), more of it the smaller the overlap: few points, few
# bins. Steps that halve (ITK's usual) stop after nine, before the optimum.
_COARSE = _Stage(6.0, 16, 2000, 8.0, 0.5, 0.6, 40)
_MIDDLE = _Stage(4.0, 24, 6000, 4.0, 0.1, 0.7, 60)
_FINE = _Stage(1.5, 32, 20000, 1.0, 0.01, 0.8, 60)


@dataclass(frozen=True)
class Region:
    """An image and the part of it that is compared.

    Attributes:
        image: The image.
        mask: (D, H, W), its brain; where none was given, its tissue.
        centre_mm: The middle of the mask, LPS (x, y, z).
    """

    image: MedicalImage
    mask: Mask
    centre_mm: npt.NDArray[np.float64]


def region_of(image: MedicalImage, mask: Mask | None) -> Region:
    """Return an image with what of it is compared.

    Raises:
        InputError: the mask, or the image's tissue, has fewer than 500 voxels.
        ValueError: the mask has another shape than the image.
    """
    if mask is not None and mask.shape != image.array.shape:
        raise ValueError(f"the mask has {mask.shape} voxels, the image {image.array.shape}")
    part = brain_mask(image.array) if mask is None else np.ascontiguousarray(mask, np.bool_)
    places = np.nonzero(part)
    if len(places[0]) < _FEWEST_VOXELS:
        raise InputError(
            f"{image.path}: {len(places[0])} voxels of tissue, too few to find where the head lies. "
            "Is it the right file, and the right mask?"
        )
    middle = np.array([place.mean() for place in places[::-1]])
    steps = image.geometry.direction_matrix * np.asarray(image.geometry.spacing_mm[::-1])
    return Region(image, part, np.asarray(image.geometry.origin_mm) + steps @ middle)


def find_motion(moving: Region, fixed: Region) -> Matrix:
    """Return the motion (4, 4), from a point of the fixed image to the same of the head in the moving one, LPS mm.

    Args:
        moving: The image that is to be brought over.
        fixed: The image that stands still.
    """
    # One start after the other: two threads that share an image of SimpleITK end the process now and then.
    pair = _Pair(moving, fixed)
    coarse = _best_first(pair.follow(start, _COARSE) for start in _starts(moving, fixed))
    kept: list[_End] = []
    for end in coarse:
        if len(kept) < _KEPT and all(_mean_distance_mm(end, other, fixed.centre_mm) > _APART_MM for other in kept):
            kept.append(end)
    middle = _best_first(pair.follow(end.transform, _MIDDLE) for end in kept)
    if not middle:
        return _matrix(_euler(np.zeros(3), moving.centre_mm - fixed.centre_mm, fixed.centre_mm))
    best = middle[0]
    return _matrix((pair.follow(best.transform, _FINE) or best).transform)


@dataclass(frozen=True)
class _End:
    """Where a start led: mutual information times the share of the fixed brain that the moving image covers."""

    score: float
    transform: Any


class _Pair:
    """Two images at the stages' resolutions."""

    def __init__(self, moving: Region, fixed: Region) -> None:
        import SimpleITK as sitk

        finest = [_stretched(region) for region in (fixed, moving)]
        self._images = {stage: [shrunk(image, stage.mm) for image in finest] for stage in (_COARSE, _MIDDLE, _FINE)}
        mask = shrunk(itk_image(fixed.mask, fixed.image.geometry), _REGION_MM) > 0.5
        distance = sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True)
        self._region = distance <= _RIM_MM
        brain = np.argwhere(sitk.GetArrayViewFromImage(mask))[::7, ::-1]
        self._brain_mm = np.array([mask.TransformIndexToPhysicalPoint(index) for index in brain.tolist()])

    def follow(self, start: Any, stage: _Stage) -> _End | None:
        """Return where a start leads at one resolution; None if it lies beyond the images."""
        import SimpleITK as sitk

        fixed, moving = self._images[stage]
        method = sitk.ImageRegistrationMethod()
        # More than one work unit adds the histogram up in another order each time: 0.001 mm, and never twice the same.
        method.SetNumberOfThreads(1)
        method.SetNumberOfWorkUnits(1)
        method.SetMetricAsMattesMutualInformation(stage.bins)
        method.SetMetricFixedMask(self._region)
        method.SetMetricSamplingStrategy(method.REGULAR)  # with a jitter, which slices of one grid need
        voxels = self._brain_voxels(fixed)
        method.SetMetricSamplingPercentage(min(1.0, stage.points / max(1.0, voxels)), _SEED)
        method.SetInterpolator(sitk.sitkLinear)
        # ITK's filter smooths gradients by the thickest spacing: with slices of 5 mm the optimum lies 1.8 mm off in
        # the median of ten hard pairs and up to 3.8 mm, without it 0.4 and 0.5 mm.
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetOptimizerAsRegularStepGradientDescent(
            stage.first_step_mm, stage.last_step_mm, stage.iterations, stage.relaxation, 1e-6
        )
        method.SetOptimizerScales([_RADIUS_MM**2] * 3 + [1.0] * 3)
        transform = sitk.Euler3DTransform(start)
        method.SetInitialTransform(transform, True)
        try:
            method.Execute(fixed, moving)
        except RuntimeError:  # too few points of the region lie in the moving image
            return None
        return _End(-method.GetMetricValue() * self._covered(moving, transform), transform)

    def _brain_voxels(self, image: Any) -> float:
        """Return how many of an image's voxels the region holds, about."""
        import SimpleITK as sitk

        share = float(np.prod(self._region.GetSpacing()) / np.prod(image.GetSpacing()))
        return share * np.count_nonzero(sitk.GetArrayViewFromImage(self._region))

    def _covered(self, moving: Any, transform: Any) -> float:
        """Return which share of the fixed brain lies in the moving image."""
        matrix = _matrix(transform)
        places = self._brain_mm @ matrix[:3, :3].T + matrix[:3, 3] - np.asarray(moving.GetOrigin())
        index = places @ np.asarray(moving.GetDirection()).reshape(3, 3) / np.asarray(moving.GetSpacing())
        return float(((index >= -0.5) & (index <= np.asarray(moving.GetSize()) - 0.5)).all(axis=1).mean())


def shrunk(image: Any, mm: float) -> Any:
    """Return the means of blocks of a SimpleITK image's voxels, each side nearest to `mm`; thick slices stay."""
    import SimpleITK as sitk

    factors = [
        max(1, min(round(mm / spacing), size))
        for spacing, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _stretched(region: Region) -> Any:
    """Return the image at the finest stage, its grey values stretched from 0 to 1 over those of the mask."""
    import SimpleITK as sitk

    low, high = np.percentile(region.image.array[region.mask], _PERCENTILES)
    image = shrunk(itk_image(region.image.array, region.image.geometry), _FINE.mm)
    image = (image - float(low)) / max(float(high - low), 1e-12)
    return sitk.Clamp(image, sitk.sitkFloat32, *_CLIPPED)


def _starts(moving: Region, fixed: Region) -> list[Any]:
    """Return the scanner's own coordinates, then brain on brain with all rotations."""
    axes = [np.array(axis) / np.linalg.norm(axis) for axis in itertools.product((-1, 0, 1), repeat=3) if any(axis)]
    turns = [np.zeros(3)] + [np.deg2rad(degrees) * axis for degrees in _START_DEGREES for axis in axes]
    shift = moving.centre_mm - fixed.centre_mm
    own = _euler(np.zeros(3), np.zeros(3), fixed.centre_mm)
    return [own, *(_euler(turn, shift, fixed.centre_mm) for turn in turns)]


def _euler(turn: npt.NDArray[np.float64], shift_mm: npt.NDArray[np.float64], centre_mm: npt.NDArray[np.float64]) -> Any:
    """Return the transform that turns about a centre, by an axis times its angle in radians, and shifts."""
    import SimpleITK as sitk

    versor = sitk.VersorRigid3DTransform()
    angle = float(np.linalg.norm(turn))
    if angle:
        versor.SetRotation((turn / angle).tolist(), angle)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre_mm.tolist())
    transform.SetMatrix(versor.GetMatrix())
    transform.SetTranslation(shift_mm.tolist())
    return transform


def _matrix(transform: Any) -> Matrix:
    """Return a rigid transform of ITK's as a matrix (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix


def _best_first(ends: Any) -> list[_End]:
    """Return the ends that lie within the images, the best first."""
    return sorted((end for end in ends if end is not None), key=lambda end: -end.score)


def _mean_distance_mm(one: _End, other: _End, centre_mm: npt.NDArray[np.float64]) -> float:
    """Return how far apart two motions bring the corners of a cube about the brain, on average."""
    corners = centre_mm + _RADIUS_MM * np.array(list(itertools.product((-1, 1), repeat=3)))
    return mean_distance_mm(_matrix(one.transform), _matrix(other.transform), corners)


def mean_distance_mm(one: Matrix, other: Matrix, points_mm: Sequence[Any] | npt.NDArray[np.float64]) -> float:
    """Return how far apart two motions bring points (n, 3), on average, in mm."""
    difference = one - other
    apart = np.asarray(points_mm) @ difference[:3, :3].T + difference[:3, 3]
    return float(np.linalg.norm(apart, axis=1).mean())
