"""Augmentation: what moves, what stays, and values that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_toys import (
    CUBES,
    Scripted,
    lesion_sample,
    numbered_sample,
)

from a2fseg_cli.training.augmentation import (
    as_another_scanner,
    augment,
    mix_tumours,
    rotate_and_scale,
    with_bias_field,
    with_other_contrast,
    with_thick_slices,
)
from a2fseg_cli.training.crops import random_crop


def test_nothing_drawn_changes_nothing() -> None:
    images, classes = random_crop(lesion_sample(), (8, 8, 8), 1.0, np.random.default_rng(0))
    same, labels = augment(images, classes, CUBES, Scripted([]))
    assert torch.equal(same, images)
    assert torch.equal(labels, classes)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_images_and_labels_are_flipped_together(axes: tuple[int, ...]) -> None:
    images, classes = random_crop(numbered_sample((6, 7, 8)), (6, 7, 8), 0.0, np.random.default_rng(0))
    flipped, labels = augment(
        images, classes, CUBES, Scripted([1.0, *(0.0 if axis in axes else 1.0 for axis in range(3))])
    )
    np.testing.assert_array_equal(flipped[0].numpy(), np.flip(images[0].numpy(), axes))
    np.testing.assert_array_equal(flipped[1].numpy(), np.flip(images[1].numpy(), axes))
    np.testing.assert_array_equal(labels.numpy(), np.flip(classes.numpy(), axes))


def test_a_quarter_turn_is_exact() -> None:
    """90 degrees about z, in image and labels: what rot90 gives."""
    values = torch.arange(1.0, 6 * 6 * 6 + 1).reshape(1, 6, 6, 6)
    classes = (values[0] % 5).to(torch.uint8)
    turned, labels = rotate_and_scale(values, classes, CUBES, Scripted([], [np.array([0, 0, math.pi / 2]), 1.0]))
    torch.testing.assert_close(turned, values.rot90(1, (2, 3)), atol=1e-3, rtol=0)
    assert torch.equal(labels, classes.rot90(1, (1, 2)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.8)], ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
def test_a_blob_moves_as_the_angle_says(axis: int, spacing: tuple[float, float, float]) -> None:
    """15 degrees and a scale of 1.2 in a crop that is no cube: millimetres turn, not voxels nor shares of the edges.

    A blob at r from the centre comes to 1.2 R(-15 degrees) r, in the image and in the labels.
    """
    shape, angle, scale = (24, 30, 40), math.pi / 12, 1.2
    offset_mm = np.array([4.0, 5.0, 7.0])  # z, y, x
    centre = (np.array(shape) - 1) / 2
    grid_mm = (np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) - centre) * spacing
    blob = (np.linalg.norm(grid_mm - offset_mm, axis=-1) < 3.6).astype(np.float32)
    angles = np.zeros(3)
    angles[axis] = angle
    image, labels = rotate_and_scale(
        torch.from_numpy(blob)[None], torch.from_numpy(blob.astype(np.uint8)), spacing, Scripted([], [angles, scale])
    )
    first, second = (i for i in range(3) if i != axis)  # of x, y, z
    expected = offset_mm[::-1].copy()
    a, b = expected[first], expected[second]
    expected[first] = math.cos(angle) * a + math.sin(angle) * b
    expected[second] = -math.sin(angle) * a + math.cos(angle) * b
    for moved in (image[0].numpy(), labels.numpy().astype(np.float32)):
        where = np.array([(moved * grid_mm[..., i]).sum() / moved.sum() for i in range(3)])
        np.testing.assert_allclose(where[::-1], scale * expected, atol=0.3)
        assert moved.sum() == pytest.approx(scale**3 * blob.sum(), rel=0.2)


def test_augmentation_keeps_shape_labels_background_and_repeats() -> None:
    sample = lesion_sample()
    images = torch.from_numpy(sample.images.astype(np.float32))
    images[:, :3] = 0
    classes = torch.from_numpy(sample.classes)
    changed = 0
    for seed in range(30):
        one, labels = augment(images, classes, CUBES, np.random.default_rng(seed))
        two, again = augment(images, classes, CUBES, np.random.default_rng(seed))
        assert torch.equal(one, two)
        assert torch.equal(labels, again)
        assert (one.shape, labels.shape, labels.dtype) == (images.shape, classes.shape, torch.uint8)
        assert set(labels.unique().tolist()) <= {0, 1}
        assert bool(one.isfinite().all())
        assert int((one[0] == 0).sum()) >= 3 * 16 * 16 * 0.3
        changed += not torch.equal(one, images)
    assert changed > 25


def test_intensity_changes_by_hand() -> None:
    """Contrast 1.2 and brightness 0.1: the voxel 2 becomes 2.5, the background stays 0."""
    images = torch.tensor([0.0, 2.0, -1.0]).reshape(1, 1, 1, 3)
    changed, _ = augment(
        images, torch.zeros(1, 1, 3, dtype=torch.uint8), CUBES, Scripted([1, 1, 1, 1, 0.0], [1.2, 0.1])
    )
    assert changed.flatten().tolist() == pytest.approx([0, 2.5, -1.1])


def test_lower_resolution_smooths_and_keeps_the_shape() -> None:
    """Half the resolution: a checkerboard becomes its mean, a constant stays."""
    board = torch.from_numpy(np.indices((8, 8, 8)).sum(axis=0) % 2 * 2.0 + 1).float()
    chances = [1.0] * 6 + [0.0]
    changed, _ = augment(
        board[None], torch.zeros(8, 8, 8, dtype=torch.uint8), CUBES, Scripted(chances, [0.5, 0.5, 0.5])
    )
    assert changed.shape == (1, 8, 8, 8)
    torch.testing.assert_close(changed, torch.full((1, 8, 8, 8), 2.0))


def test_another_patients_tumour_with_its_margin() -> None:
    """A bar of 3 x 3 x 12 voxels: the tumour at 5 with a margin of 1 covers 4 to 6, a third of the seam 3 and 7.

    The crop's own tumour at 5 and 9: the first is covered, the second stays. Voxel 6 is outside the other brain.
    """
    images, other = torch.full((1, 3, 3, 12), 3.0), torch.full((1, 3, 3, 12), 9.0)
    other[..., 6] = 0
    classes, tumour = torch.zeros(3, 3, 12, dtype=torch.uint8), torch.zeros(3, 3, 12, dtype=torch.uint8)
    classes[..., 5], classes[..., 9], tumour[..., 5] = 1, 1, 2

    class Margin(Scripted):
        def integers(self, *_: Any, **__: Any) -> Any:
            return 1

    mixed, labels = mix_tumours(images, classes, other, tumour, Margin([1.0]))
    assert mixed[0, 1, 1].tolist() == pytest.approx([3, 3, 3, 5, 7, 9, 3, 5, 3, 3, 3, 3])
    assert labels[1, 1].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0]
    _, flipped = mix_tumours(images, classes, other, tumour, Margin([0.0]))  # 5 becomes 6, the hole 5: own tumour stays
    assert flipped[1, 1].tolist() == [0, 0, 0, 0, 0, 1, 2, 0, 0, 1, 0, 0]


# Other scanners


def test_a_curve_of_contrast_by_hand() -> None:
    """Slopes 2, 1, 0.5, 1 from -2 on: the knots -2, -1, 0, 1, 2 go to -2, 0, 1, 1.5, 2.5, and 3 to 3.5."""
    levels = torch.tensor([-3.0, -2, -1.5, -1, 0, 0.5, 1, 2, 3])
    curve = with_other_contrast(levels, [2, 1, 0.5, 1])
    assert curve.tolist() == pytest.approx([-3, -2, -1, 0, 1, 1.25, 1.5, 2.5, 3.5])
    torch.testing.assert_close(with_other_contrast(levels, [1, 1, 1, 1]), levels)


def test_a_bias_field_by_hand() -> None:
    """1 on the left, 2 on the right. The darkest voxel, -1, is no signal: 2 in the middle is 3 x 2^0.5 above it."""
    image = torch.tensor([-1.0, -1, 2, 2, 2]).reshape(1, 1, 5)
    nodes = np.zeros((2, 2, 2))
    nodes[..., 1] = math.log(2)
    changed = with_bias_field(image, torch.ones(1, 1, 5, dtype=torch.bool), nodes)
    assert changed.flatten().tolist() == pytest.approx([-1, -1, 3 * 2**0.5 - 1, 3 * 2**0.75 - 1, 5])


def test_thick_slices_by_hand() -> None:
    """Slices of 2 voxels: 1 3 | 5 7 has the means 2 and 6, and a quarter of the way in between 3 and 5."""
    image = torch.tensor([1.0, 3, 5, 7])
    for axis in range(3):
        shape = [4 if i == axis else 1 for i in range(3)]
        changed = with_thick_slices(image.reshape(shape), torch.ones(shape, dtype=torch.bool), axis, 2.0)
        assert changed.flatten().tolist() == pytest.approx([2, 3, 5, 6])


def test_thick_slices_do_not_mix_the_background_in() -> None:
    """A constant brain beside background stays constant up to its edge, in slices that hold both."""
    image = torch.zeros(9, 8, 7)
    image[2:7, 1:6, 2:] = 3.5
    brain = image != 0
    for axis in range(3):
        for voxels in (2.0, 2.7, 4.0):
            changed = with_thick_slices(image, brain, axis, voxels)
            torch.testing.assert_close(changed[brain], image[brain])


def brain_and_nothing() -> Tensor:
    """Two sequences: noise of mean 0 and deviation 1 in a box, and one that is absent."""
    images = torch.zeros(2, 20, 22, 24)
    images[0, 3:-3, 4:-4, 5:-5] = torch.randn(14, 14, 14, generator=torch.Generator().manual_seed(0))
    return images


def test_another_scanner_keeps_background_mean_and_deviation() -> None:
    images = brain_and_nothing()
    brain, changed = images[0] != 0, 0
    for seed in range(20):
        before = images.clone()
        one = as_another_scanner(images, np.random.default_rng(seed))
        assert torch.equal(images, before), "the patient itself stays as it is"
        assert torch.equal(one, as_another_scanner(images, np.random.default_rng(seed)))
        assert not one[1].any(), "an absent sequence stays absent"
        assert not one[0][~brain].any()
        for measure in (Tensor.mean, Tensor.std):
            assert float(measure(one[0][brain])) == pytest.approx(float(measure(images[0][brain])), abs=1e-3)
        changed += not torch.equal(one[0], images[0])
    assert changed >= 16  # 15 of 16 on average


def test_a_constant_brain_is_the_same_from_every_scanner_without_noise() -> None:
    """Contrast, field and slices, in this order; then the mean is brought back."""
    image = torch.zeros(1, 8, 8, 8)
    image[0, 2:6, 2:6, 2:6] = 0.75
    slopes, nodes = np.array([0.5, 2.0, 1.5, 0.7]), np.full((3, 3, 3), 0.2)

    class First(Scripted):
        def integers(self, *_: Any, **__: Any) -> Any:
            return 0

    same = as_another_scanner(image, First([0.0, 0.0, 1.0, 0.0], [slopes, nodes, 3.0]))
    torch.testing.assert_close(same, image)


def test_nothing_drawn_is_the_same_scanner() -> None:
    images = brain_and_nothing()
    assert torch.equal(as_another_scanner(images, Scripted([])), images)
