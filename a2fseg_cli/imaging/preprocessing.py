"""From the file's grid to the network's and back: canonical axes, brain crop, z-score, working spacing.

Every step that changes the grid is an object that can also undo it. The crop and the z-score come before the
resampling: fewer voxels to resample, and statistics that do not depend on the working spacing.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.reading import MedicalImage

Shape = tuple[int, int, int]
FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Reorient:
    """Axis permutation and flips that bring an array (D, H, W) to canonical LPS axes."""

    permutation: tuple[int, ...]
    flips: tuple[int, ...]

    def apply(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the array on canonical axes, a view."""
        return np.flip(array.transpose(self.permutation), self.flips)

    def undo(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the array on the file's axes, a view."""
        return np.flip(array, self.flips).transpose(np.argsort(self.permutation).tolist())


@dataclass(frozen=True)
class CropStep:
    """A box in a volume."""

    shape: Shape
    start: Shape
    stop: Shape

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The box as an index."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def apply(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the box, a view."""
        return array[self.box]

    def undo(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the full volume, zero outside the box."""
        full = np.zeros(self.shape, array.dtype)
        full[self.box] = array
        return full


@dataclass(frozen=True)
class Resample:
    """Linear resampling between two grids that cover the same extent, outer voxel faces aligned."""

    source: Shape
    target: Shape

    def apply(self, array: FloatVolume) -> FloatVolume:
        """Return the array (float32) on the target grid."""
        return _resize(array, self.target)

    def undo(self, array: FloatVolume) -> FloatVolume:
        """Return the array (float32) on the source grid."""
        return _resize(array, self.source)


def _resize(array: FloatVolume, shape: Shape) -> FloatVolume:
    """Return the array with another number of voxels over the same extent, linear in between."""
    if array.shape == shape:
        return array
    factors = [n / m for n, m in zip(array.shape, shape, strict=True)]
    return interpolate(_smooth(array, factors), [centres(*sizes) for sizes in zip(array.shape, shape, strict=True)])


def centres(size: int, wanted: int) -> npt.NDArray[np.float64]:
    """Return where the centres of `wanted` voxels lie, counted in the `size` voxels that cover the same extent."""
    return (np.arange(wanted, dtype=np.float64) + 0.5) * (size / wanted) - 0.5


def _smooth(array: FloatVolume, factors: Sequence[float]) -> FloatVolume:
    """Return the array averaged along the axes that shrink by more than two: linear interpolation would skip voxels.

    The filter needs four voxels; of three that become one, the middle one is taken.
    """
    import SimpleITK as sitk

    axes = [axis for axis, factor in enumerate(factors) if factor > 2 and array.shape[axis] >= 4]
    if not axes:
        return array
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    for axis in axes:
        image = sitk.RecursiveGaussian(image, sigma=factors[axis] / 4, direction=2 - axis)
    return np.asarray(sitk.GetArrayFromImage(image), np.float32)


def interpolate(array: FloatVolume, positions: Sequence[npt.NDArray[np.float64]]) -> FloatVolume:
    """Return the array (float32) on the grid that the positions span: linear in between, the edge's value beyond it.

    One axis after the other, the one that grows least first. ITK, which can turn the grid as well, takes five times
    as long.

    Args:
        array: (D, H, W).
        positions: Of each axis (z, y, x) the places to read, in voxels of the array; at least one.
    """
    steps, used = [], []
    for axis, size in enumerate(array.shape):
        place = np.clip(positions[axis], 0, size - 1)
        below = np.minimum(place.astype(np.intp), max(0, size - 2))
        first, last = int(below.min()), min(int(below.max()) + 1, size - 1)
        share = (place - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        used.append(slice(first, last + 1))
        steps.append((len(place) / (last + 1 - first), axis, below - first, share))
    result = np.asarray(array[tuple(used)], np.float32)
    for _, axis, below, share in sorted(steps, key=lambda step: step[:2]):
        if not share.any() and np.array_equal(below, np.arange(result.shape[axis])):
            continue
        lower = result.take(below, axis)
        upper = result.take(np.minimum(below + 1, result.shape[axis] - 1), axis)
        upper -= lower
        upper *= share
        upper += lower
        result = upper
    return result


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[Shape, Shape]:
    """Return (start, stop) of the smallest box that holds every true voxel. Raises: ValueError if none."""
    start, stop = [], []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(hit):
            raise ValueError("the mask is empty")
        start.append(int(hit[0]))
        stop.append(int(hit[-1]) + 1)
        mask = mask[(slice(None),) * axis + (slice(start[axis], stop[axis]),)]  # the next axis has less to look at
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


@dataclass(frozen=True)
class Route:
    """The steps between a patient's file grid and the network's grid."""

    reorient: Reorient
    crop: CropStep
    resample: Resample

    def to_network(self, array: FloatVolume) -> FloatVolume:
        """Return a volume of the file's grid on the network's grid, float32."""
        return self.resample.apply(self.crop.apply(self.reorient.apply(array)))

    def classes_to_network(self, classes: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
        """Return a class map (D, H, W) of the file's grid on the network's: the class with the largest share."""
        cropped = self.crop.apply(self.reorient.apply(classes))
        shares = (self.resample.apply((cropped == k).astype(np.float32)) for k in range(count))
        return largest(shares, self.resample.target)

    def to_file(self, array: FloatVolume) -> FloatVolume:
        """Return a volume of the network's grid on the file's grid, 0 outside the brain's box."""
        return np.ascontiguousarray(self.reorient.undo(self.crop.undo(self.resample.undo(array))))


def largest(shares: Iterable[FloatVolume], shape: Shape) -> npt.NDArray[np.uint8]:
    """Return the index of the largest of the volumes at each voxel; the first wins a tie."""
    winner = np.zeros(shape, np.uint8)
    best: FloatVolume | None = None
    for index, share in enumerate(shares):
        if best is None:
            best = share.copy()
            continue
        larger = share > best
        winner[larger] = index
        np.maximum(best, share, out=best)
    return winner


@dataclass(frozen=True)
class Prepared:
    """What the network takes.

    Attributes:
        images: (M, d, h, w) float32, z-scored in the brain; the slot of an absent modality is zero.
        present: (M,) the missing-modality mask.
        route: The way back to the file's grid.
    """

    images: FloatVolume
    present: tuple[bool, ...]
    route: Route


def prepare(
    images: Mapping[str, MedicalImage],
    modalities: Sequence[str],
    spacing_mm: tuple[float, float, float],
    threads: int = 1,
    masks: Mapping[str, Mask] | None = None,
    blocks: Shape = (1, 1, 1),
) -> Prepared:
    """Return a patient's images on the network's grid.

    Args:
        images: The present modalities, all on one grid.
        modalities: The network's modalities, in its order.
        spacing_mm: Its working spacing (z, y, x).
        threads: How many images are worked on at a time.
        masks: Where each image has brain, (D, H, W) as the images; as `brain_mask` finds it by default.
        blocks: How many voxels (z, y, x) of the images make one of the grid that the way back leads to.

    Raises:
        InputError: an image that has the same value everywhere, or everywhere in the brain.
    """
    geometry = next(iter(images.values())).geometry
    reorient = Reorient(*axes_to_canonical(geometry))
    arrays = {m: reorient.apply(image.array) for m, image in images.items()}

    def find(name: str) -> tuple[Mask, tuple[Shape, Shape]]:
        mask = reorient.apply(masks[name]) if masks else brain_mask(arrays[name])
        if not mask.any():
            path = images[name].path
            raise InputError(f"{path}: empty, every voxel has the background's value. Is it the right file?")
        return mask, bounding_box(mask)

    def resample(name: str) -> None:
        mask, _ = found[name]
        scored = _z_score(crop.apply(arrays[name]), crop.apply(mask), images[name].path)
        stack[modalities.index(name)] = resize.apply(scored)

    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(arrays, pool.map(find, arrays), strict=True))
    boxes = np.array([box for _, box in found.values()])
    block = np.array([blocks[axis] for axis in reorient.permutation])
    start, stop = boxes[:, 0].min(axis=0) // block * block, -(-boxes[:, 1].max(axis=0) // block) * block
    canonical = next(iter(arrays.values())).shape
    crop = CropStep(_shape(canonical), _shape(start), _shape(stop))
    extent_mm = (stop - start) * np.asarray(canonical_spacing_mm(geometry, reorient))
    # Halves go up: an odd edge at twice its spacing is then shrunk by less than two, and not smoothed.
    target = np.maximum(1, np.floor(extent_mm / np.asarray(spacing_mm) + 0.5))
    resize = Resample(_shape(stop - start), _shape(target))
    stack = np.zeros((len(modalities), *resize.target), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(resample, arrays))
    box = CropStep(_shape(canonical // block), _shape(start // block), _shape(stop // block))
    route = Route(reorient, box, Resample(_shape((stop - start) // block), resize.target))
    return Prepared(stack, tuple(m in images for m in modalities), route)


def canonical_spacing_mm(geometry: Geometry, reorient: Reorient) -> tuple[float, float, float]:
    """Return the spacing (z, y, x) of the canonical axes."""
    z, y, x = (float(geometry.spacing_mm[axis]) for axis in reorient.permutation)
    return z, y, x


def _z_score(array: FloatVolume, mask: npt.NDArray[np.bool_], path: object) -> FloatVolume:
    """Return the image with mean 0 and standard deviation 1 in its own brain, 0 outside."""
    inside = array[mask]
    deviation = float(inside.std(dtype=np.float64))
    if deviation == 0:
        raise InputError(f"{path}: every voxel of the brain has the value {inside[0]:g}; expected an MR image.")
    scored = np.zeros(array.shape, np.float32)
    scored[mask] = (inside - np.float32(inside.mean(dtype=np.float64))) / np.float32(deviation)
    return scored


def _shape(values: Sequence[int] | npt.NDArray[np.generic]) -> Shape:
    z, y, x = (int(value) for value in values)
    return z, y, x
