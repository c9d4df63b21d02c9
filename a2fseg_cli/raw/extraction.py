"""Where the brain is in a scan with the skull on.

What was measured: a person with a glioma (5.5 mm slices) against HD-BET, Dice 0.978 for T1, 0.972 T1c, 0.961 FLAIR and
0.936 T2, whose mask takes in the fluid around the brain; a person with multiple sclerosis (3 and 4 mm), 0.979 and more.
The T1 of a third in 5 mm sagittal or 6 mm coronal slices, or turned by up to 40 degrees, against itself at 0.88 mm:
0.98 and more. In 19 stripped brains of BraTS (training and validation) with a skull put around them, at most 0.6 % of
the expert's tumour lies outside the mask of any sequence, 0.05 % on average. Growing T1c's masks by 1 mm mends a third
of that and costs 0.005 of Dice, so they are not grown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.imaging.brain import cleaned
from a2fseg_cli.imaging.components import largest_component
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.raw.deepbet import Networks, load_networks

FloatVolume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Extent = tuple[float, float]

_BOX_CUBE = (128, 128, 128)
_BRAIN_CUBE = (256, 256, 256)
_LIKELY = 0.5
# Of the intensities, what is darker than 0.5 % or brighter than 99.5 % of the voxels is clipped.
_DARKEST, _BRIGHTEST = 0.005, 0.995
# A plane belongs to the brain's box if more than 2 % of it is brain; 10 % of the box are added on each side.
_LEAST_OF_PLANE = 0.02
_MARGIN = 0.1
# What the networks see is at least that wide to the right, the front and the head (mm). Beyond the field of view its
# last plane goes on: stretched to a cube, a slab of 27 mm has Dice 0.88 (T1c of one person, against HD-BET), gone on
# 0.97; the lower half of the head 0.91 and 0.97, the front half 0.94 and 0.97, the whole head 0.97 both ways.
_LEAST_HEAD_MM = (140.0, 170.0, 120.0)
_LEAST_BRAIN_MM = (120.0, 140.0, 100.0)
# 100 stripped brains have 790 to 2000 mL, and masks of T2 a tenth more than those of T1.
_SMALLEST_ML, _LARGEST_ML = 600.0, 2200.0
# Where the field of view ends in the brain, less is there. On the outer slices of seven scans of two persons up to
# 37 cm² of the mask lie (stem, cerebellum, the last slice under the scalp), on the cut of half a head 124 and more.
_MOST_CUT_CM2 = 60.0
_SMALLEST_PIECE_ML = 100.0
# The darkest grey value makes at most 0.4 % of the brain in seven raw scans of two persons. Where there is no head,
# deepbet makes one: of a cube of noise in air a brain of 1096 mL, three quarters of it air.
_MOST_EMPTY = 0.2
_FACES = (("first z", "last z"), ("first y", "last y"), ("first x", "last x"))


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

    Two networks of deepbet (Fisch et al., 2024) look one after the other, the first for the brain's box, the second
    for its surface. The steps and their numbers are deepbet's, but for the field of view that goes on.

    Args:
        image: A head. Intensities of any scale.
        threads: How many threads of the CPU. One takes 2.5 to 3 s whatever the image's size, and 1.5 GB with it all.
            The mask of one person was the same for 1 and 2.
        device: cpu, cuda, cuda:N or mps.

    Raises:
        WeightsError: deepbet is not installed, or is another version.
    """
    networks = load_networks(device)
    turn = Reorient(*axes_to_canonical(image.geometry))
    # From axes (z, y, x), growing to the head, the back and the left, to (x, y, z), to the right, the front, the head.
    head = turn.apply(image.array).T[::-1, ::-1]
    spacing_mm = [image.geometry.spacing_mm[axis] for axis in turn.permutation][::-1]
    with cpu_threads(threads):
        chances = _chances(networks, head, spacing_mm)
    mask: Mask = np.ascontiguousarray(turn.undo(chances[::-1, ::-1].T) > _LIKELY)
    brain = judged(cleaned(largest_component(mask)), image.geometry)
    empty = float((image.array[brain.mask] == image.array.min()).mean()) if brain.volume_ml else 0.0
    if brain.problem is None and empty > _MOST_EMPTY:
        return replace(brain, problem=f"{empty:.0%} of what was taken for brain are as dark as the darkest voxel")
    return brain


def _chances(networks: Networks, head: FloatVolume, spacing_mm: Sequence[float]) -> FloatVolume:
    """Return the chance of brain of each voxel of a head, axes (x, y, z) to the right, the front and the head."""
    whole = [(0.0, float(size)) for size in head.shape]
    low, high = (float(value) for value in np.quantile(_cube(head, whole, _BOX_CUBE), (_DARKEST, _BRIGHTEST)))
    chances = np.zeros(head.shape, np.float32)
    if low == high:
        return chances
    seen = [_widened(*extents) for extents in zip(whole, spacing_mm, _LEAST_HEAD_MM, strict=True)]
    coarse = networks.chances(networks.box, _cube(head, seen, _BOX_CUBE), low, high) > _LIKELY
    planes = _planes(coarse)
    if planes is None:
        return chances
    box = []
    for axis, (first, last) in enumerate(planes):
        (start, stop), size = seen[axis], head.shape[axis]
        scale = (stop - start) / coarse.shape[axis]
        margin = _MARGIN * (last - first) * scale
        lower, upper = max(0.0, start + first * scale - margin), min(float(size), start + last * scale + margin)
        box.append(_widened((lower, upper), spacing_mm[axis], _LEAST_BRAIN_MM[axis]))
    brain = networks.chances(networks.brain, _cube(head, box, _BRAIN_CUBE), low, high)
    _put(chances, brain, box)
    return chances


def _widened(extent: Extent, spacing_mm: float, least_mm: float) -> Extent:
    """Return an extent in voxels with as much added at both ends as it lacks."""
    start, stop = extent
    lacking = max(0.0, least_mm / spacing_mm - (stop - start))
    return start - lacking / 2, stop + lacking / 2


def _cube(array: FloatVolume, box: Sequence[Extent], shape: Sequence[int]) -> FloatVolume:
    """Return what an array shows in a box, each voxel the nearest one; outside, its outermost planes go on."""
    nearest = []
    for (start, stop), size, wanted in zip(box, array.shape, shape, strict=True):
        places = start + (np.arange(wanted) + 0.5) * ((stop - start) / wanted)
        nearest.append(np.clip(np.floor(places), 0, size - 1).astype(np.intp))
    return np.ascontiguousarray(array[np.ix_(*nearest)], np.float32)


def _put(array: FloatVolume, cube: FloatVolume, box: Sequence[Extent]) -> None:
    """Write a cube to where it was read from, each voxel of the array the nearest one of the cube."""
    inside, nearest = [], []
    for (start, stop), size, count in zip(box, array.shape, cube.shape, strict=True):
        voxels = np.arange(size)[(np.arange(size) + 0.5 > start) & (np.arange(size) + 0.5 < stop)]
        inside.append(voxels)
        nearest.append(((voxels + 0.5 - start) * (count / (stop - start))).astype(np.intp))
    array[np.ix_(*inside)] = cube[np.ix_(*nearest)]


def _planes(coarse: Mask) -> list[tuple[int, int]] | None:
    """Return of each axis the first and the last plane (exclusive) of a mask's largest part; None if there is none."""
    if not coarse.any():
        return None
    brain = largest_component(coarse)
    planes = []
    for axis in range(3):
        lit = np.flatnonzero(brain.mean(axis=tuple(a for a in range(3) if a != axis)) > _LEAST_OF_PLANE)
        if not lit.size:
            return None
        planes.append((int(lit[0]), int(lit[-1]) + 1))
    return planes


def judged(mask: Mask, geometry: Geometry) -> BrainMask:
    """Return a mask with what its volume and its place in the field of view say."""
    volume_ml = float(np.count_nonzero(mask) * geometry.voxel_volume_ml)
    face, cut_cm2 = _largest_cut(mask, geometry)
    cut = cut_cm2 > _MOST_CUT_CM2
    warnings = (f"the field of view ends in the brain ({cut_cm2:.0f} cm² of it lie on the {face} face)",) if cut else ()
    problem = None
    if not volume_ml:
        problem = "no brain was found; do its axes name the right directions?"
    elif volume_ml > _LARGEST_ML or volume_ml < (_SMALLEST_PIECE_ML if cut else _SMALLEST_ML):
        problem = (
            f"{volume_ml:.0f} mL were taken for brain, {'more' if volume_ml > _LARGEST_ML else 'less'} than can be: "
            "whole brains have 790 to 2000 mL"
        )
    return BrainMask(mask, volume_ml, problem, warnings)


def _largest_cut(mask: Mask, geometry: Geometry) -> tuple[str, float]:
    """Return the face of the field of view that holds most of the brain, and how much of it, in square centimetres."""
    cuts = []
    for axis, ends in enumerate(_FACES):
        one, other = (spacing for a, spacing in enumerate(geometry.spacing_mm) if a != axis)
        for end, index in zip(ends, (0, -1), strict=True):
            cuts.append((float(np.count_nonzero(mask.take(index, axis)) * one * other / 100), end))
    area_cm2, face = max(cuts)
    return face, area_cm2


@contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Let torch work on that many threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
