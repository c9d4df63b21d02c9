"""Where the brain is in a scan with the skull on, and one mask from those of several sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.imaging.brain import cleaned
from a2fseg_cli.imaging.components import connected_components
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.raw.deepbet import Networks, load_networks

FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

_BOX_CUBE = (128, 128, 128)
_BRAIN_CUBE = (256, 256, 256)
_LIKELY = 0.5
# Of the intensities, what is darker than 0.5 % or brighter than 99.5 % of the voxels is clipped.
_DARKEST, _BRIGHTEST = 0.005, 0.995
# A plane belongs to the brain's box if more than 2 % of it is brain; 10 % of the box are added on each side.
_LEAST_OF_PLANE = 0.02
_MARGIN = 0.1


@dataclass(frozen=True)
class BrainMask:
    """The brain of one image.

    Attributes:
        mask: (D, H, W) on the image's own grid; without holes, in one part.
        volume_ml: Its volume.
        problem: Why it cannot be a brain, in words; None where it can.
        warnings: What a reader should know of it.
    """

    mask: Mask
    volume_ml: float
    problem: str | None = None
    warnings: tuple[str, ...] = ()


def extract_brain(image: MedicalImage, *, threads: int = 1, device: str = "cpu") -> BrainMask:
    """Return where an image with the skull on has brain: T1, T1c, T2 or FLAIR, any axes, any slice thickness.

    Two networks of deepbet look one after the other, the first for the brain's box, the second for its surface.

    Args:
        image: A head. Intensities of any scale.
        threads: How many threads of the CPU; the mask does not depend on it.
        device: cpu, cuda, cuda:N or mps.

    Raises:
        WeightsError: deepbet is not installed, or is another version.
    """
    networks = load_networks(device)
    turn = Reorient(*axes_to_canonical(image.geometry))
    # From axes (z, y, x), growing to the head, the back and the left, to (x, y, z), to the right, the front, the head.
    head = turn.apply(image.array).T[::-1, ::-1]
    with _cpu_threads(threads):
        chances = _chances(networks, head)
    mask = np.ascontiguousarray(turn.undo(chances[::-1, ::-1].T) > _LIKELY)
    if mask.any():
        mask = cleaned(_largest(mask))
    return _judged(mask, image.geometry, image.path.name)


def _chances(networks: Networks, head: FloatVolume) -> FloatVolume:
    """Return the chance of brain of each voxel of a head, axes (x, y, z) to the right, the front and the head."""
    coarse = _stretched(head, _BOX_CUBE)
    low, high = (float(value) for value in np.quantile(coarse, (_DARKEST, _BRIGHTEST)))
    chances = np.zeros(head.shape, np.float32)
    if low == high:
        return chances
    box = _brain_box(networks.chances(networks.box, coarse, low, high) > _LIKELY, head.shape)
    if box is None:
        return chances
    inside = head[box]
    found = networks.chances(networks.brain, _stretched(inside, _BRAIN_CUBE), low, high)
    chances[box] = _stretched(found, inside.shape)
    return chances


def _stretched(array: FloatVolume, shape: tuple[int, ...]) -> FloatVolume:
    """Return an array over the same extent in another number of voxels, each the nearest one."""
    nearest = [((np.arange(wanted) + 0.5) * (size / wanted)).astype(np.intp) for size, wanted in zip(array.shape, shape, strict=True)]
    return np.ascontiguousarray(array[np.ix_(*nearest)], np.float32)


def _brain_box(coarse: Mask, shape: tuple[int, ...]) -> Box | None:
    """Return the box of a coarse mask's largest part, with a margin, in voxels of the head; None if nothing is."""
    if not coarse.any():
        return None
    brain = _largest(coarse)
    sides = []
    for axis, size in enumerate(shape):
        planes = np.flatnonzero(brain.mean(axis=tuple(a for a in range(3) if a != axis)) > _LEAST_OF_PLANE)
        if not planes.size:
            return None
        scale = size / brain.shape[axis]
        start, stop = planes[0] * scale, (planes[-1] + 1) * scale
        margin = _MARGIN * (stop - start)
        sides.append(slice(max(0, round(start - margin)), min(size, round(stop + margin))))
    x, y, z = sides
    return x, y, z


def _largest(mask: Mask) -> Mask:
    """Return the largest part of a mask."""
    parts = connected_components(mask, by_faces=True)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: Mask = parts == sizes.argmax()
    return largest


def _judged(mask: Mask, geometry: Geometry, name: str) -> BrainMask:
    return BrainMask(mask, np.count_nonzero(mask) * geometry.voxel_volume_ml)


@contextmanager
def _cpu_threads(threads: int) -> Iterator[None]:
    """Let torch work on that many threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
