"""Augmentation of a crop: another patient's tumour, other scanners, flips, rotations and scalings, intensity, noise.

Every choice is drawn from the given generator; a step's crop is the same on every machine and worker count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F


def augment(
    images: Tensor, classes: Tensor, spacing_mm: Sequence[float], random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return an augmented crop of the same shape.

    Args:
        images: (M, D, H, W) float32, background 0.
        classes: (D, H, W) uint8.
        spacing_mm: Of the voxels (z, y, x).
        random: Source of every choice.
    """
    if random.random() < 0.4:
        images, classes = rotate_and_scale(images, classes, spacing_mm, random)
    axes = [axis for axis in (1, 2, 3) if random.random() < 0.5]
    if axes:
        images, classes = images.flip(axes), classes.flip([axis - 1 for axis in axes])
    brain = images != 0
    changed = torch.stack([_intensity(image, random) for image in images])
    return changed * brain, classes


# How far the sequences of other scanners go. They reach beyond `augment`, whose noise ends at 0.15 and whose voxels
# grow at most twofold; chosen for that, not fitted to any set of patients. At 2 mm voxels, slices of 4 to 8 mm hold
# the 5 to 6 mm of a clinical FLAIR.
_CHANGE_SHARE = 0.5  # each of the four, in each sequence
_SLICE_VOXELS = (2.0, 4.0)
_CURVE_SLOPES = (0.5, 2.0)
_LARGEST_FIELD = 0.3  # of the field's logarithm: 0.74 to 1.35
_FIELD_NODES = 3
_NOISE = (0.1, 0.3)  # standard deviations of the brain


def as_another_scanner(images: Tensor, random: np.random.Generator) -> Tensor:
    """Return the crop's sequences as if each came from another scanner; the background stays 0.

    Each sequence gets each of these with probability 0.5: other contrast, a bias field, noise, thick slices. Mean and
    standard deviation of its brain are then what they were, as preprocessing would have brought them there. An
    absent sequence stays absent.

    Args:
        images: (M, D, H, W) float32, z-scored, background 0.
        random: Source of every choice.
    """
    return torch.stack([_rescanned(image, random) for image in images])


def _rescanned(image: Tensor, random: np.random.Generator) -> Tensor:
    """Return one sequence (D, H, W) as another scanner might give it."""
    brain = image != 0
    if not brain.any():
        return image
    changed = image
    if random.random() < _CHANGE_SHARE:
        changed = with_other_contrast(changed, random.uniform(*_CURVE_SLOPES, size=4).tolist())
    if random.random() < _CHANGE_SHARE:
        nodes = random.uniform(-_LARGEST_FIELD, _LARGEST_FIELD, size=(_FIELD_NODES,) * 3)
        changed = with_bias_field(changed, brain, nodes)
    if random.random() < _CHANGE_SHARE:
        noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(random.uniform(*_NOISE))
        changed = changed + torch.from_numpy(noise)
    if random.random() < _CHANGE_SHARE:
        changed = with_thick_slices(changed, brain, int(random.integers(3)), random.uniform(*_SLICE_VOXELS))
    if changed is image:
        return image
    (old_mean, old_std), (mean, std) = _moments(image, brain), _moments(changed, brain)
    return ((changed - mean) * (old_std / max(std, 1e-6)) + old_mean) * brain


def _moments(image: Tensor, brain: Tensor) -> tuple[float, float]:
    inside = image[brain]
    return float(inside.mean()), float(inside.std(correction=0))


def with_other_contrast(image: Tensor, slopes: Sequence[float]) -> Tensor:
    """Return a sequence (D, H, W) with its grey levels sent along a rising curve of straight pieces.

    Args:
        image: Z-scored.
        slopes: Of the pieces from -2 to -1, -1 to 0, 0 to 1 and 1 to 2 standard deviations, all above 0; outside of
            them the slope is 1. The level -2 stays where it is.
    """
    changed = image - image.clamp(-2, 2)
    for piece, slope in enumerate(slopes):
        changed += (image - (piece - 2)).clamp_(0, 1).mul_(float(slope))
    return changed.sub_(2)


def with_bias_field(image: Tensor, brain: Tensor, nodes: npt.NDArray[np.float64]) -> Tensor:
    """Return a sequence (D, H, W) multiplied by a smooth field, as a coil that is nearer to one side would.

    Z-scores have no zero of the signal; the darkest voxel of the brain is taken for it.

    Args:
        image: Z-scored.
        brain: (D, H, W) bool, not empty.
        nodes: Logarithm of the field at the nodes of a coarse grid over the crop, interpolated linearly between.
    """
    darkest = image[brain].min()
    log_field = torch.from_numpy(nodes.astype(np.float32))[None, None]
    field = F.interpolate(log_field, image.shape, mode="trilinear", align_corners=True)[0, 0].exp_()
    return (image - darkest) * field + darkest


def with_thick_slices(image: Tensor, brain: Tensor, axis: int, voxels: float) -> Tensor:
    """Return a sequence (D, H, W) as from slices `voxels` thick along an axis: means over each, then interpolated.

    Only the brain counts for the means, so that its edge does not fade into the background.

    Args:
        image: Z-scored.
        brain: (D, H, W) bool.
        axis: 0, 1 or 2, of (D, H, W).
        voxels: Thickness of a slice, about: the crop is cut into a whole number of them.
    """
    shape = list(image.shape)
    shape[axis] = max(1, round(shape[axis] / voxels))
    both = torch.stack([image * brain, brain.float()])[None]
    coarse = F.interpolate(both, shape, mode="area")
    smooth = F.interpolate(coarse, image.shape, mode="trilinear", align_corners=False)[0]
    return smooth[0] / smooth[1].clamp(min=1e-6)


def mix_tumours(
    images: Tensor, classes: Tensor, other_images: Tensor, other_classes: Tensor, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the crop with the tumour of another patient pasted in, at the place where it lies in its own crop.

    After CarveMix (Zhang et al., MICCAI 2021, https://arxiv.org/abs/2108.06883): the tumour comes with a margin of
    the tissue around it, here 1 to 4 voxels, half of the time flipped left to right, and the seam is blended over 3
    voxels. What overhangs either brain is left out; a tumour of the crop's own stays where the other does not cover
    it.

    Args:
        images: (M, D, H, W) float32, background 0.
        classes: (D, H, W) uint8.
        other_images: The other patient's, of the same shape.
        other_classes: The other patient's, of the same shape.
        random: Source of the margin and the flip.
    """
    if random.random() < 0.5:
        other_images, other_classes = other_images.flip(-1), other_classes.flip(-1)
    margin = int(random.integers(1, 5))
    carved = _dilate((other_classes != 0).float(), margin)
    brain = (images != 0).any(dim=0) & (other_images != 0).any(dim=0)
    blend = F.avg_pool3d(carved[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0] * brain
    return torch.lerp(images, other_images, blend), torch.where((carved > 0) & brain, other_classes, classes)


def _dilate(mask: Tensor, margin: int) -> Tensor:
    """Return a (D, H, W) mask grown by a cube of `margin` voxels to each side, one axis after the other."""
    for axis in range(3):
        kernel = [2 * margin + 1 if i == axis else 1 for i in range(3)]
        mask = F.max_pool3d(mask[None, None], kernel, stride=1, padding=[k // 2 for k in kernel])[0, 0]
    return mask


def rotate_and_scale(
    images: Tensor, classes: Tensor, spacing_mm: Sequence[float], random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the crop rotated by up to 20 degrees about each axis and scaled by 0.8 to 1.25, in millimetres.

    Args:
        images: (M, D, H, W) float32.
        classes: (D, H, W) uint8.
        spacing_mm: Of the voxels (z, y, x).
        random: Source of every choice.
    """
    angles = random.uniform(-math.pi / 9, math.pi / 9, size=3)
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        a, b = (i for i in range(3) if i != axis)
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    # x, y, z as grid_sample counts, each from -1 to 1
    extents_mm = torch.tensor(images.shape[:0:-1]) * torch.tensor(tuple(spacing_mm)[::-1])
    affine = matrix / random.uniform(0.8, 1.25) * (extents_mm[None] / extents_mm[:, None])
    grid = F.affine_grid(F.pad(affine, (0, 1))[None], [1, 1, *classes.shape], align_corners=False)
    turned = F.grid_sample(images[None], grid, mode="bilinear", align_corners=False)[0]
    moved = F.grid_sample(classes[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]
    return turned, moved.to(classes.dtype)


def _intensity(image: Tensor, random: np.random.Generator) -> Tensor:
    """Return one modality with other contrast, brightness, gamma, resolution and noise, each with some probability."""
    if random.random() < 0.5:
        image = image * random.uniform(0.7, 1.4) + random.uniform(-0.3, 0.3)
    if random.random() < 0.3:
        low, high = image.min(), image.max()
        span = (high - low).clamp(min=1e-6)
        image = ((image - low) / span) ** random.uniform(0.7, 1.5) * span + low
    if random.random() < 0.15:
        shape = [max(1, round(edge * random.uniform(0.5, 1))) for edge in image.shape]
        coarse = F.interpolate(image[None, None], shape, mode="trilinear")
        image = F.interpolate(coarse, image.shape, mode="trilinear")[0, 0]
    if random.random() < 0.15:
        noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(random.uniform(0, 0.15))
        image = image + torch.from_numpy(noise)
    return image
