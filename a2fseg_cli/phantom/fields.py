"""Smooth fields on a fixed lattice, and the grid of voxels that looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
Triple = tuple[float, float, float]

LATTICE_MM = 2.0
HALF_EXTENT_MM: Triple = (78.0, 94.0, 76.0)  # (z, y, x); the brain keeps inside
BRAIN_OFFSET_MM: Triple = (-6.0, 8.5, -0.5)  # (z, y, x) from the grid's centre, the mean of 21 patients of BraTS


class Lattice:
    """The fixed grid of 2 mm on which noise lives, so that a patient does not depend on the output grid."""

    def __init__(self) -> None:
        self.axes_mm = [np.arange(-half, half + 1e-3, LATTICE_MM, dtype=np.float32) for half in HALF_EXTENT_MM]
        self.shape = tuple(len(axis) for axis in self.axes_mm)

    def noise(self, rng: np.random.Generator, sigma_mm: float) -> Field:
        """Return white noise smoothed by a Gaussian, mean 0 and standard deviation 1."""
        field = rng.standard_normal(self.shape, dtype=np.float32)
        field = _separable([_gaussian_matrix(n, sigma_mm / LATTICE_MM) for n in self.shape], field)
        field -= field.mean()
        return np.asarray(field / field.std(), np.float32)

    def sample(self, field: Field, axes_mm: Sequence[Field]) -> Field:
        """Return the field at the crossings of three axes (mm from the brain's centre), trilinear."""
        matrices = [_linear_matrix(own, axis) for own, axis in zip(self.axes_mm, axes_mm, strict=True)]
        return _separable(matrices, field)


class View:
    """The brain's voxels of the output grid as flat vectors."""

    def __init__(self, lattice: Lattice, axes_mm: Sequence[Field], brain: npt.NDArray[np.bool_]) -> None:
        self.lattice, self.axes_mm, self.brain = lattice, axes_mm, brain

    def __call__(self, field: Field) -> Field:
        """Return a field of the lattice at the brain's voxels."""
        return self.lattice.sample(field, self.axes_mm)[self.brain]

    def coordinates(self) -> tuple[Field, Field, Field]:
        """Return (x, y, z) in mm from the brain's centre, to the patient's left, back and head."""
        indices = np.nonzero(self.brain)
        z, y, x = (axis[index] for axis, index in zip(self.axes_mm, indices, strict=True))
        return x, y, z

    def grain(self, rng: np.random.Generator) -> Field:
        """Return the scanner's noise, unit variance, correlated between neighbours as after resampling."""
        matrices = [_gaussian_matrix(n, 0.6) for n in self.brain.shape]
        noise = _separable(matrices, rng.standard_normal(self.brain.shape, dtype=np.float32))[self.brain]
        return np.asarray(noise / noise.std(), np.float32)


def brain_box(size: Sequence[int], spacing_mm: Triple) -> tuple[tuple[slice, ...], list[Field]]:
    """Return the part of the grid that can hold brain, and its voxels' places (mm from the brain's centre)."""
    box, axes = [], []
    for n, step, offset, half in zip(size, spacing_mm, BRAIN_OFFSET_MM, HALF_EXTENT_MM, strict=True):
        place = ((np.arange(n) - (n - 1) / 2) * step - offset).astype(np.float32)
        inside = np.flatnonzero(np.abs(place) <= half)
        part = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
        box.append(part)
        axes.append(place[part])
    return tuple(box), axes


def norm(parts: Sequence[Field]) -> Field:
    """Return the length of vectors given by their components."""
    total = np.square(parts[0])
    for part in parts[1:]:
        total = total + np.square(part)
    return np.asarray(np.sqrt(total), np.float32)


def step(distance: Field, width_mm: float) -> Field:
    """Return 0 outside, 1 inside, and a straight ramp of four widths between."""
    return np.asarray(np.clip(distance / (4 * width_mm) + 0.5, 0, 1), np.float32)


def gather(field: Field, places_mm: Sequence[Field]) -> Field:
    """Return the lattice field at scattered places (z, y, x) in mm, trilinear."""
    low, high, rest = [], [], []
    for place, n, half in zip(places_mm, field.shape, HALF_EXTENT_MM, strict=True):
        index = np.clip((place + half) / LATTICE_MM, 0, n - 1.001)
        low.append(index.astype(np.intp))
        high.append(low[-1] + 1)
        rest.append((index - low[-1]).astype(np.float32))
    total = np.zeros(np.broadcast_shapes(*(index.shape for index in low)), np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.float32(1)
        for axis, upper in enumerate(corner):
            weight = weight * (rest[axis] if upper else 1 - rest[axis])
        total += weight * field[tuple((high if upper else low)[axis] for axis, upper in enumerate(corner))]
    return total


def _separable(matrices: Sequence[Field], field: Field) -> Field:
    """Return the field (d, h, w) with one matrix applied along each axis; small products beat any filter here."""
    field = np.tensordot(matrices[0], field, 1)
    field = np.matmul(matrices[1], field)
    return np.asarray(field @ matrices[2].T, np.float32)


def _gaussian_matrix(n: int, sigma: float) -> Field:
    lag = np.arange(n)[:, None] - np.arange(n)
    weights = np.exp(-0.5 * np.square(lag / sigma))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _linear_matrix(known: Field, wanted: Field) -> Field:
    place = np.clip((wanted - known[0]) / LATTICE_MM, 0, len(known) - 1)
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(len(known))), 0), np.float32)
