"""Lesion-wise scores as BraTS 2023 defines them for adult glioma."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.evaluation.masks import CroppedMask, common_box, common_voxels
from a2fseg_cli.evaluation.surfaces import BoolArray, IntArray, directed_hd95_mm
from a2fseg_cli.imaging.components import connected_components

# Truth lesions merge when their dilations touch; 50 voxels of 1 mm are dropped, 51 count.
DILATIONS = 3
DILATION_CONNECTIVITY = 26
DROPPED_MM3 = 50.0
PENALTY_MM = 374.0


@dataclass(frozen=True)
class Lesion:
    """A lesion of the truth: components that merge when dilated.

    Attributes:
        mask: Its own voxels.
        reach: Its voxels dilated, inside a crop of their own.
    """

    mask: CroppedMask
    reach: CroppedMask


@dataclass(frozen=True)
class LesionScores:
    """Means over the lesions that were hit, missed or invented.

    Attributes:
        dice: Mean Dice.
        hd95_mm: Mean HD95.
        hit: Truth lesions above the size limit whose dilation a predicted component touches.
        missed: The other truth lesions above the size limit.
        invented: Predicted components that touch no truth lesion's dilation, of any size.
    """

    dice: float
    hd95_mm: float
    hit: int
    missed: int
    invented: int


def find_lesions(mask: CroppedMask, connectivity: int = DILATION_CONNECTIVITY) -> list[Lesion]:
    """Return the lesions of a mask: its parts inside the 26-connected components of the dilated mask.

    Args:
        mask: The true mask.
        connectivity: Neighbourhood of one dilation step: 26 (a cube) or 18 (a cube without its corners).
    """
    if not mask.voxels:
        return []
    dilated = _dilate(np.pad(mask.crop, DILATIONS), connectivity)
    inner = (slice(DILATIONS, -DILATIONS),) * 3
    points = np.argwhere(mask.crop)
    merged = connected_components(dilated)[inner][tuple(points.T)]
    lesions = []
    for part in _split(points + mask.start, merged).values():
        lesion = CroppedMask.from_points(part, mask.spacing_mm)
        reach = _dilate(np.pad(lesion.crop, DILATIONS), connectivity)
        lesions.append(Lesion(lesion, CroppedMask(reach, lesion.start - DILATIONS, mask.spacing_mm)))
    return lesions


def score_lesions(
    lesions: Iterable[Lesion], predicted: CroppedMask, dice_if_none: float, hd95_mm_if_none: float
) -> LesionScores:
    """Return the lesion-wise scores of BraTS 2023 for adult glioma.

    Every truth lesion is compared with all predicted 26-connected components that touch its dilation; one
    component may serve several lesions. Small truth lesions do not count, but what touches them is not invented.

    Args:
        lesions: The lesions of the true mask, small ones included.
        predicted: The predicted mask.
        dice_if_none: Dice of a patient without any lesion that counts.
        hd95_mm_if_none: HD95 of such a patient.
    """
    labels = connected_components(predicted.crop) if predicted.voxels else np.zeros(predicted.crop.shape, np.uint32)
    points = np.argwhere(predicted.crop)
    components = _split(points + predicted.start, labels[tuple(points.T)])
    touched: set[int] = set()
    scores: list[tuple[float, float]] = []
    missed = 0
    for lesion in lesions:
        touching = _touching(lesion.reach, predicted, labels)
        touched |= touching
        if lesion.mask.volume_mm3 <= DROPPED_MM3:
            continue
        if not touching:
            missed += 1
            continue
        points = np.concatenate([components[key] for key in sorted(touching)])
        hit = CroppedMask.from_points(points, predicted.spacing_mm)
        dice = 2 * common_voxels(lesion.mask, hit) / (lesion.mask.voxels + hit.voxels)
        scores.append((dice, directed_hd95_mm(lesion.mask.surfels, hit.surfels)))
    invented = len(components) - len(touched)
    total = len(scores) + missed + invented
    if not total:
        return LesionScores(dice_if_none, hd95_mm_if_none, 0, 0, 0)
    hd95_mm = (sum(distance for _, distance in scores) + (missed + invented) * PENALTY_MM) / total
    return LesionScores(sum(dice for dice, _ in scores) / total, hd95_mm, len(scores), missed, invented)


def _touching(reach: CroppedMask, predicted: CroppedMask, labels: npt.NDArray[np.uint32]) -> set[int]:
    """Return the predicted components that share a voxel with a lesion's dilation."""
    here, there = common_box(reach, predicted)
    return set(np.unique(labels[there][reach.crop[here]]).tolist()) - {0}


def _split(points: IntArray, keys: IntArray) -> dict[int, IntArray]:
    """Return the points (N, 3) grouped by their keys (N,)."""
    order = np.argsort(keys, kind="stable")
    names, starts = np.unique(keys[order], return_index=True)
    return dict(zip(names.tolist(), np.split(points[order], starts[1:]), strict=False))


def _dilate(mask: BoolArray, connectivity: int) -> BoolArray:
    """Return a mask dilated `DILATIONS` times.

    A cube is three lines one after the other; a cube without its corners is the union of three squares.
    """
    squares = {26: ((0, 1, 2),), 18: ((0, 1), (0, 2), (1, 2))}[connectivity]
    for _ in range(DILATIONS):
        steps = []
        for axes in squares:
            step = mask
            for axis in axes:
                step = _dilate_line(step, axis)
            steps.append(step)
        mask = np.logical_or.reduce(steps)
    return mask


def _dilate_line(mask: BoolArray, axis: int) -> BoolArray:
    """Return a mask with the two neighbours of every voxel along one axis set as well."""
    dilated = mask.copy()
    along_out, along_in = np.moveaxis(dilated, axis, 0), np.moveaxis(mask, axis, 0)
    along_out[1:] |= along_in[:-1]
    along_out[:-1] |= along_in[1:]
    return dilated
