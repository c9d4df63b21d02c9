"""The rigid motion between two sequences, from the borders between tissues.

Two sequences show the same borders in different grey values, dark to bright in one and bright to dark in the other.
What is compared is therefore the direction of the border alone, not its sign: the products g gᵀ / (|g|² + a little) of
the gradient g (normalised gradient fields: Haber and Modersitzki, MICCAI 2006). A rigid motion is fitted to it by
Gauss-Newton steps in which the gradients of the reference stand still (inverse compositional: Baker and Matthews, IJCV
2004). Only the inside of the brain counts: outlines agree wherever one mask was laid over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.working_grid import CoarseImage, halve, linear, neighbourhood

Field = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

# All points of the brain (about 30,000) find nothing that 8,000 do not; 4,000 double the largest error.
_POINTS = 8000
FEWEST_POINTS = 500
_STEPS = 10
# A step that moves no voxel by more than this ends the fit.
_SMALL_STEP_MM = 0.05
# Added to |g|², in medians of |g|² in the brain: weaker borders than that count less.
_WEAK = 0.3
# A turned stack of the six products g gᵀ as a vector: an orthonormal base of the symmetric matrices.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_BASE = np.zeros((6, 3, 3))
for _k, (_a, _b) in enumerate(_PAIRS):
    _BASE[_k, _a, _b] = _BASE[_k, _b, _a] = 1.0 if _a == _b else np.sqrt(0.5)
# Coarse to fine: voxels of the working grid, and whether the products are averaged over 3 x 3 x 3 of them. Averaged
# ones lead from far (10 degrees and 15 mm; without, a third of the way), plain ones end nearer.
_LEVELS = ((2, True), (1, True), (1, False))


@dataclass(frozen=True)
class Level:
    """A sequence's borders at one resolution.

    Attributes:
        borders: (N, 8) float32, of every voxel in C order: six products, whether it counts (0 or 1), 0.
        inside: (d, h, w), which voxels count: in the brain, their six neighbours too.
        spacing_mm: Of the level (3,).
    """

    borders: Field
    inside: Mask
    spacing_mm: npt.NDArray[np.float64]

    def at(self, places: Field) -> Field:
        """Return the borders (n, 8) at places (3, n) in voxels, linear in between; zero beyond the grid."""
        return linear(self.borders, self.inside.shape, places)


def levels(coarse: CoarseImage) -> list[Level]:
    """Return a sequence at all levels, coarse to fine."""
    grids = {1: coarse, 2: halve(coarse)}
    gradients = {factor: _gradient(grid) for factor, grid in grids.items()}
    return [_level(*gradients[factor], grids[factor].spacing_mm, averaged) for factor, averaged in _LEVELS]


def finest_level(coarse: CoarseImage) -> Level:
    """Return a sequence's borders at the finest level alone."""
    return _level(*_gradient(coarse), coarse.spacing_mm, averaged=False)


def agreements(
    one: Level, other: Level, parts: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return how well the borders of two sequences on one grid agree in direction, part by part.

    Args:
        one: A sequence.
        other: The other.
        parts: (d, h, w), the number of the part that each voxel belongs to, from 0.

    Returns:
        By part, the cosine between the products of both: 1 where all borders agree, about 0.3 by chance; and how many
        voxels count in both.
    """
    both = (one.inside & other.inside).ravel()
    a, b, part = one.borders[both, :6], other.borders[both, :6], parts.ravel()[both]
    number = int(parts.max()) + 1
    products, own, others = (
        np.bincount(part, np.einsum("nk,nk->n", *pair), number) for pair in ((a, b), (a, a), (b, b))
    )
    return products / np.sqrt(np.maximum(own * others, 1e-12)), np.bincount(part, minlength=number)


def _gradient(coarse: CoarseImage) -> tuple[Field, Mask]:
    """Return the gradient (3, d, h, w) a mm, and where it does not reach beyond the brain; zero elsewhere."""
    image, spacing_mm = coarse.values, coarse.spacing_mm
    brain = coarse.share > 0.5
    inside = brain.copy()
    gradient = np.zeros((3, *image.shape), np.float32)
    for axis in range(3):
        lead = (slice(None),) * axis
        before, here, after = ((*lead, part) for part in (slice(None, -2), slice(1, -1), slice(2, None)))
        if image.shape[axis] > 2:
            gradient[(axis, *here)] = (image[after] - image[before]) / np.float32(2 * spacing_mm[axis])
            inside[here] &= brain[before] & brain[after]
        inside[(*lead, slice(None, 1))] = inside[(*lead, slice(-1, None))] = False
    gradient *= inside
    return gradient, inside


def _level(gradient: Field, inside: Mask, spacing_mm: npt.NDArray[np.float64], averaged: bool) -> Level:
    """Return the level of a gradient."""
    borders = np.zeros((8, *inside.shape), np.float32)
    for k, (a, b) in enumerate(_PAIRS):
        np.multiply(gradient[a], gradient[b], out=borders[k])
    borders[3:6] *= np.float32(np.sqrt(2))
    length = borders[:3].sum(axis=0)
    weak = _WEAK * float(np.median(length[inside])) if inside.any() else 0.0
    borders[6] = inside
    if averaged:
        borders[:7] = neighbourhood(borders[:7])
        borders[:6] /= np.maximum(borders[6], 1)
        length = borders[:3].sum(axis=0)
    borders[:6] *= inside / np.maximum(length + np.float32(weak), np.float32(1e-30))
    borders[6] = inside
    return Level(np.ascontiguousarray(borders.reshape(8, -1).T), inside, spacing_mm)


class _Points:
    """The points of a reference at one level, with what a small motion changes there."""

    def __init__(self, level: Level, centre_mm: npt.NDArray[np.float64]) -> None:
        d, h, w = level.inside.shape
        index = np.flatnonzero(level.inside)
        if len(index) > _POINTS:
            index = index[np.linspace(0, len(index) - 1, _POINTS).astype(np.intp)]
        voxels = np.stack(np.unravel_index(index, (d, h, w)))
        self.place_mm = ((voxels + 0.5) * level.spacing_mm[:, None] - centre_mm[:, None]).astype(np.float32)
        self.borders = level.borders[index, :6]
        # The voxels next to a counted one lie in the grid: its gradient needed them.
        slopes = [
            (level.borders[index + step, :6] - level.borders[index - step, :6]) / np.float32(2 * spacing)
            for step, spacing in zip((h * w, w, 1), level.spacing_mm, strict=True)
        ]
        z, y, x = self.place_mm[:, :, None]
        turns = (y * slopes[2] - x * slopes[1], x * slopes[0] - z * slopes[2], z * slopes[1] - y * slopes[0])
        # (6, n, 6): of three shifts a mm and three turns a radian, of each point, the change of each product.
        self.change = np.stack([*slopes, *turns])
        change = self.change.transpose(1, 0, 2)
        self.curvature = (change @ change.transpose(0, 2, 1)).reshape(len(index), 36)


@dataclass(frozen=True)
class Motion:
    """Where the brain of one sequence lies in another: place -> turn @ (place - centre) + centre + shift.

    Attributes:
        turn: (3, 3), of columns (z, y, x).
        shift_mm: (3,).
        centre_mm: (3,), of the reference's brain, from the outer corner of the grid's first voxel.
        degrees: Angle of the turn, at least 0.
        mm: How far the reference's brain is moved on average.
    """

    turn: npt.NDArray[np.float64]
    shift_mm: npt.NDArray[np.float64]
    centre_mm: npt.NDArray[np.float64]
    degrees: float
    mm: float


class Reference:
    """A sequence that others are compared with."""

    def __init__(self, borders: Sequence[Level]) -> None:
        fine = borders[-1]
        voxels = np.stack(np.nonzero(fine.inside))
        self.centre_mm = (voxels.mean(axis=1) + 0.5) * fine.spacing_mm
        self.points = [_Points(level, self.centre_mm) for level in borders]

    def motion(self, moving: Sequence[Level]) -> Motion:
        """Return the motion from this sequence to another, of the same grid."""
        turn: npt.NDArray[np.float64] = np.eye(3)
        shift: npt.NDArray[np.float64] = np.zeros(3)
        for points, level in zip(self.points, moving, strict=True):
            turn, shift = _fit(points, level, self.centre_mm, turn, shift)
        degrees = float(np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
        away = (turn - np.eye(3)) @ self.points[-1].place_mm + shift[:, None]
        return Motion(turn, shift, self.centre_mm, degrees, float(np.linalg.norm(away, axis=0).mean()))


def _fit(
    points: _Points,
    level: Level,
    centre_mm: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the turn (3, 3) and the shift (3,) in mm that bring the points onto the other sequence's borders."""
    farthest_mm = float(np.abs(points.place_mm).max(initial=1))
    for _ in range(_STEPS):
        scale = (turn / level.spacing_mm[:, None]).astype(np.float32)
        offset = ((shift + centre_mm) / level.spacing_mm - 0.5).astype(np.float32)
        found = level.at(scale @ points.place_mm + offset[:, None])
        weight = np.where(found[:, 6] > 0.5, found[:, 6], np.float32(0))
        if np.count_nonzero(weight) < FEWEST_POINTS / 8:
            break
        # The products in the other sequence's axes, turned back into the reference's.
        back = np.einsum("kij,ia,lab,jb->kl", _BASE, turn.T, _BASE, turn.T)
        error = (found[:, :6] / np.maximum(found[:, 6:7], np.float32(0.5))) @ back.T.astype(np.float32)
        error -= points.borders
        squared = np.einsum("nk,nk->n", error, error)
        mean = float(weight @ squared / weight.sum())
        # Geman and McClure's weights: a tumour that one sequence alone shows does not pull.
        weight /= (1 + squared / np.float32(max(mean, 1e-12))) ** 2
        matrix = (weight @ points.curvature).reshape(6, 6).astype(np.float64)
        right = (points.change.reshape(6, -1) @ (error * weight[:, None]).ravel()).astype(np.float64)
        # A little of the diagonal keeps a brain of one kind of border (a ball) solvable.
        step = np.linalg.solve(matrix + np.eye(6) * (1e-6 * np.trace(matrix) + 1e-12), right)
        turn = turn @ _rotation(step[3:]).T
        shift = shift - turn @ step[:3]
        if np.abs(step[:3]).max() + np.abs(step[3:]).max() * farthest_mm < _SMALL_STEP_MM:
            break
    return turn, shift


def _rotation(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rotation matrix of an axis times its angle in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    z, y, x = vector / angle
    cross = np.array([[0, -x, y], [x, 0, -z], [-y, z, 0]])
    rotation: npt.NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation
