"""Training: crops, subsets, augmentation, the cache, the loop, resuming and what must stop it."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor

from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import PRESETS, ModelConfig
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import InputError, ResourceError, UsageError, WeightsError
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.inference.predictor import Predictor
from a2fseg_cli.training import data as data_module
from a2fseg_cli.training.augmentation import augment, mix_tumours, rotate_and_scale
from a2fseg_cli.training.checkpoint import load_checkpoint, save_checkpoint
from a2fseg_cli.training.data import (
    Sample,
    draw_crop,
    load_samples,
    patch_size,
    preprocess_truth,
    random_crop,
    random_subset,
)
from a2fseg_cli.training.initial import initial_weights
from a2fseg_cli.training.loop import DivergenceError, Trainer
from a2fseg_cli.training.recipe import RECIPES, Recipe
from a2fseg_cli.weights.card import hours_in_all, stages
from a2fseg_cli.weights.file_format import load_weights, save_weights

CONFIG = ModelConfig(
    modalities=("t1", "flair"),
    classes=("background", "lesion"),
    label_values=(0, 1),
    regions=(("lesion", ("lesion",)),),
    features_per_stage=(4, 8),
    patch_size=(8, 8, 8),
)
RECIPE = Recipe(epochs=4, iterations_per_epoch=2, random_subsets=1, augment=True, ema_decay=0.9, seed=5)
CUBES = (1.0, 1.0, 1.0)  # spacing in mm
CPU = Compute(torch.device("cpu"), "fp32", "for the tests")


def lesion_sample(edge: int = 16, name: str = "patient") -> Sample:
    """A cube of lesion, bright in FLAIR and dark in T1, in noise."""
    random = np.random.default_rng(edge)
    classes = np.zeros((edge,) * 3, np.uint8)
    classes[edge // 4 : edge // 2 + 1, edge // 4 : edge // 2 + 1, edge // 3 : -edge // 4] = 1
    images = random.standard_normal((2, edge, edge, edge)) * 0.5
    images[0] -= 1.5 * classes
    images[1] += 2.5 * classes
    return Sample(name, images.astype(np.float16), classes, (True, True))


def numbered_sample(shape: tuple[int, int, int]) -> Sample:
    """Every voxel has its own value, from 1 (up to 2048, exact in float16), the same in both modalities."""
    values = np.arange(1, math.prod(shape) + 1, dtype=np.float16).reshape(shape)
    assert values.max() <= 2048
    classes = (np.arange(math.prod(shape)).reshape(shape) % 7 % 3).astype(np.uint8)
    return Sample("numbered", np.stack([values, -values]), classes, (True, True))


# Crops and subsets


@pytest.mark.parametrize("patch", [(4, 6, 8), (8, 8, 8), (12, 4, 16), (16, 16, 16)], ids=str)
def test_a_crop_is_a_piece_of_the_patient(patch: tuple[int, int, int]) -> None:
    """Values equal the source at one offset; what overhangs is zero, on both sides alike."""
    sample = numbered_sample((9, 12, 14))
    shape = sample.classes.shape
    for seed in range(20):
        images, classes = random_crop(sample, patch, 0.5, np.random.default_rng(seed))
        assert (images.dtype, classes.dtype) == (torch.float32, torch.uint8)
        assert (images.shape, classes.shape) == ((2, *patch), patch)
        inside = images[0].numpy() != 0
        assert inside.sum() == math.prod(min(n, p) for n, p in zip(shape, patch, strict=True))
        corner = np.argwhere(inside)[0]
        value = int(images[0].numpy()[tuple(corner)]) - 1
        offset = np.array(np.unravel_index(value, shape)) - corner
        boxes = [slice(max(0, o), o + p) for o, p in zip(offset.tolist(), patch, strict=True)]
        box = tuple(slice(b.start, min(b.stop, n)) for b, n in zip(boxes, shape, strict=True))
        size = tuple(b.stop - b.start for b in box)
        np.testing.assert_array_equal(images.numpy()[:, inside].reshape(2, *size), sample.images[(slice(None), *box)])
        np.testing.assert_array_equal(classes.numpy()[inside].reshape(size), sample.classes[box])
        assert not classes.numpy()[~inside].any()
        for o, n, p in zip(offset.tolist(), shape, patch, strict=True):
            assert o == (n - p) // 2 if n <= p else 0 <= o <= n - p


def test_crops_are_no_larger_than_the_brain_needs() -> None:
    """A window of 80 x 96 x 80 and a brain of 63 x 97 x 20: up to multiples of 8, at least 32, at most the window."""
    sample = Sample("brain", np.zeros((4, 63, 97, 20), np.float16), np.zeros((63, 97, 20), np.uint8), (True,) * 4)
    assert patch_size(sample, PRESETS["tiny"]) == [64, 96, 32]


def test_a_foreground_crop_holds_the_class() -> None:
    """One voxel of class 1 and one of class 2 far apart: either class comes about as often, one in every crop."""
    classes = np.zeros((30, 30, 30), np.uint8)
    classes[2, 3, 4], classes[27, 25, 29] = 1, 2
    sample = Sample("two", np.zeros((1, 30, 30, 30), np.float16), classes, (True,))
    found = Counter[tuple[int, ...]]()
    for seed in range(200):
        _, crop = random_crop(sample, (8, 8, 8), 1.0, np.random.default_rng(seed))
        found[tuple(np.unique(crop.numpy()).tolist())] += 1
    assert set(found) == {(0, 1), (0, 2)}
    assert 70 <= found[0, 1] <= 130


def test_without_foreground_crops_lie_anywhere() -> None:
    sample = replace(numbered_sample((4, 4, 40)), classes=np.zeros((4, 4, 40), np.uint8))
    first = {
        float(random_crop(sample, (4, 4, 4), 1.0, np.random.default_rng(seed))[0][0, 0, 0, 0]) for seed in range(300)
    }
    assert first == {float(start + 1) for start in range(37)}


def test_random_subsets_are_proper_with_sizes_uniform() -> None:
    """3000 draws of sizes 1, 2, 3: 1000 each, standard deviation 26; every subset of a size as often."""
    random = np.random.default_rng(0)
    drawn = Counter(random_subset((True,) * 4, random) for _ in range(3000))
    sizes = Counter[int]()
    for subset, count in drawn.items():
        sizes[sum(subset)] += count
    assert set(sizes) == {1, 2, 3}
    assert all(880 < count < 1120 for count in sizes.values())
    assert len(drawn) == 14
    assert all(abs(drawn[s] - 1000 / math.comb(4, sum(s))) < 90 for s in drawn)


@pytest.mark.parametrize(
    "present", [(True, False, True, True), (False, True, False, True), (False, False, True, False)]
)
def test_random_subsets_are_of_what_is_present(present: tuple[bool, ...]) -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        subset = random_subset(present, random)
        assert any(subset)
        assert all(has or not chosen for has, chosen in zip(present, subset, strict=True))
        assert sum(subset) < max(2, sum(present))


# Augmentation


class Scripted(np.random.Generator):
    """A generator whose chances come from a list (then 1, so that nothing more happens) and whose values are given."""

    def __init__(self, chances: list[float], values: list[Any] | None = None) -> None:
        super().__init__(np.random.PCG64(0))
        self.chances, self.values = iter(chances), iter(values or [])

    def random(self, *_: Any, **__: Any) -> Any:
        return next(self.chances, 1.0)

    def uniform(self, *_: Any, **__: Any) -> Any:
        return next(self.values)


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


def test_tumours_are_mixed_as_often_as_asked_and_only_where_the_modalities_are_there() -> None:
    """One patient without a tumour, one with: a crop of the first shows one only when the other's is mixed in.

    Half of the crops are of the one with; of the others 0, 50 or 100 % get its tumour. 200 draws: +-7 % are 2 sigma.
    """
    empty = replace(lesion_sample(), classes=np.zeros((16,) * 3, np.uint8), name="empty")
    full = lesion_sample()
    half = replace(full, present=(True, False))
    config = replace(CONFIG, patch_size=(16, 16, 16))

    def share(samples: list[Sample], mix_share: float) -> float:
        recipe = replace(RECIPE, mix_share=mix_share, augment=False)
        crops = [draw_crop(samples, config, recipe, step, 0) for step in range(200)]
        return float(np.mean([bool(crop.classes.any()) for crop in crops]))

    assert share([empty], 1.0) == 0
    assert share([empty, full], 0.0) == pytest.approx(0.5, abs=0.1)
    assert share([empty, full], 0.5) == pytest.approx(0.75, abs=0.1)
    assert share([empty, full], 1.0) == 1
    assert share([empty, half], 1.0) == pytest.approx(0.5, abs=0.1)  # FLAIR is not there to be mixed in


# The cache


def write_case(folder: Path, name: str = "one", seed: int = 0) -> Case:
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    files = {}
    shape = (12, 14, 16)
    for kind in ("t1", "flair", "seg"):
        array = np.zeros(shape, np.uint8 if kind == "seg" else np.float32)
        if kind == "seg":
            array[4:8, 4:9, 4:10] = 1
        else:
            array[2:-2, 2:-2, 2:-2] = random.uniform(1, 2, (8, 10, 12))
        files[kind] = folder / f"{name}_{kind}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(array), str(files[kind]))
    return Case(name, {m: files[m] for m in ("t1", "flair")}, files["seg"])


def load(cases: list[Case], config: ModelConfig, cache: Path) -> list[Sample]:
    return load_samples(cases, config, cache, lambda *_: None)


def test_samples_are_the_preprocessed_patient(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    told: list[tuple[str, int, int]] = []
    (sample,) = load_samples([case], CONFIG, tmp_path / "cache", lambda *args: told.append(args))
    assert told == [("one", 1, 1)]
    images, classes, present = preprocess_truth(case, CONFIG)
    assert (sample.name, sample.present, present) == ("one", (True, True), (True, True))
    assert (sample.images.dtype, sample.images.shape) == (np.float16, (2, 8, 10, 12))
    np.testing.assert_allclose(sample.images, images, atol=2e-3)
    np.testing.assert_array_equal(sample.classes, classes)
    assert sample.classes.sum() == 4 * 5 * 6
    assert sample.classes[2, 2, 2] == 1


def test_the_cache_is_used_and_rebuilt_when_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    done: list[str] = []
    real = preprocess_truth

    def counted(case: Case, config: ModelConfig) -> Any:
        done.append(case.name)
        return real(case, config)

    monkeypatch.setattr(data_module, "preprocess_truth", counted)
    (first,) = load([case], CONFIG, cache)
    (again,) = load([case], CONFIG, cache)
    assert len(done) == 1
    np.testing.assert_array_equal(first.images, again.images)
    load([case], replace(CONFIG, features_per_stage=(2, 4)), cache)
    assert len(done) == 1, "the widths do not touch the images"
    (coarse,) = load([case], replace(CONFIG, spacing_mm=(2.0, 2.0, 2.0)), cache)
    assert len(done) == 2
    assert coarse.images.shape == (2, 4, 5, 6)
    load([case], replace(CONFIG, modalities=("flair", "t1")), cache)
    assert len(done) == 3
    write_case(tmp_path, seed=1)
    (changed,) = load([case], CONFIG, cache)
    assert len(done) == 4
    assert not np.array_equal(changed.images, first.images)
    assert not list(cache.glob("*.partial"))


def test_a_patient_may_lack_a_modality_but_not_the_truth(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    (sample,) = load([replace(case, images={"flair": case.images["flair"]})], CONFIG, tmp_path / "cache")
    assert sample.present == (False, True)
    assert not sample.images[0].any()
    with pytest.raises(InputError, match="one: no segmentation"):
        preprocess_truth(replace(case, truth=None), CONFIG)


def test_a_truth_with_unknown_labels_or_on_another_grid_is_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    assert case.truth is not None
    for array in (np.full((12, 14, 16), 9, np.uint8), np.zeros((12, 14, 15), np.uint8)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(case.truth))
        with pytest.raises(InputError, match="one_seg"):
            load([case], CONFIG, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_brats_labels_of_either_scheme_are_read(tmp_path: Path) -> None:
    config = replace(ModelConfig(), features_per_stage=(4, 8), modalities=("t1", "flair"))
    case = write_case(tmp_path)
    assert case.truth is not None
    for enhancing in (3, 4):
        labels = np.zeros((12, 14, 16), np.uint8)
        labels[3, 3, 3:6] = 1, 2, enhancing
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(case.truth))
        assert preprocess_truth(case, config)[1][1, 1, 1:4].tolist() == [1, 2, 3]


# The recipe


def test_the_papers_recipe() -> None:
    paper = Recipe(**RECIPES["paper"])
    assert (paper.optimizer, paper.learning_rate, paper.epochs) == ("adam", 0.01, 400)
    assert PRESETS["paper"].window == (128, 128, 128)
    assert paper.steps == 400 * 250


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "sgd"},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"epochs": 0},
        {"batch_size": 0},
        {"random_subsets": -1},
        {"foreground_share": 1.1},
        {"foreground_weight": 0.0},
        {"dice_over": "voxels"},
        {"ema_decay": 1.0},
        {"gradient_clip": 0.0},
        {"weight_decay": -1.0},
        {"time_budget_s": -1.0},
        {"time_budget_s": math.nan},
        {"seed": -1},
    ],
    ids=str,
)
def test_recipes_that_cannot_be_trained(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(Recipe(), **change)


# The loop


def trainer(folder: Path, recipe: Recipe = RECIPE, config: ModelConfig = CONFIG, **changes: Any) -> Trainer:
    arguments = {"train": [lesion_sample(12), lesion_sample(16)], "validation": [lesion_sample(10)]} | changes
    folder.mkdir(exist_ok=True)
    return Trainer(config, recipe, folder=folder, compute=CPU, card={"name": "test"}, **arguments)


def test_learning_rate_falls_as_the_paper_says(tmp_path: Path) -> None:
    """0.01 (1 - epoch / 4)^0.9: after 2 of 4 epochs 0.01 * 0.5^0.9 = 0.00536."""
    one = trainer(tmp_path)
    rates = []
    for one.state.step in (0, 2, 4, 6, 8):
        rates.append(one.learning_rate)
    assert rates == pytest.approx([0.01, 0.007719, 0.005359, 0.002872, 0.0], abs=1e-6)
    timed = trainer(tmp_path, replace(RECIPE, time_budget_s=100.0))
    timed.state.step, timed.state.elapsed_s = 10_000, 50.0
    assert timed.learning_rate == pytest.approx(0.005359, abs=1e-6)
    timed.state.validation_s = 10.0  # twice that is kept for the end: 50 of 80 s are used
    assert timed.progress == pytest.approx(0.625)


def test_the_dice_loss_of_regions(tmp_path: Path) -> None:
    """The first step of the same network on the same crop; only the Dice loss, of two parts or of all and a part."""
    config = replace(
        CONFIG,
        classes=("background", "rim", "core"),
        label_values=(0, 1, 2),
        regions=(("all", ("rim", "core")), ("inner", ("core",))),
    )
    sample = lesion_sample()
    sample.classes[4:7, 4:7, 5:8] *= 2
    losses = {}
    for kind in ("classes", "regions"):
        one = trainer(tmp_path / kind, replace(RECIPE, dice_over=kind), config, train=[sample], validation=[])
        (crop,) = one.crops(0)
        assert {1, 2} <= set(crop.classes.unique().tolist())
        heads = one.model.training_outputs(crop.images[None], crop.subsets).heads
        groups = {"classes": ((1,), (2,)), "regions": ((1, 2), (2,))}[kind]
        losses[kind] = one.step()
        assert losses[kind] == pytest.approx(total_loss(heads, crop.classes[None], groups=groups).item(), rel=1e-5)
    assert abs(losses["regions"] - losses["classes"]) > 0.01


def test_a_small_network_learns_one_patient(tmp_path: Path) -> None:
    """Six heads start near 1.2 each; 40 steps at the rate 0.1 bring them to about 0.2, Dice to about 0.97."""
    recipe = replace(
        RECIPE,
        iterations_per_epoch=10,
        augment=False,
        foreground_share=1.0,
        learning_rate=0.1,
    )
    rows: list[dict[str, float]] = []
    patient = [lesion_sample()]
    config = replace(CONFIG, patch_size=(16, 16, 16))
    one = trainer(tmp_path / "run", recipe, config, train=patient, validation=patient)
    first = trainer(tmp_path / "first", recipe, config, train=patient).step()
    one.run(rows.append)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert first == pytest.approx(7.1, abs=0.5)
    assert rows[-1]["loss"] < first / 4
    assert rows[-1]["lesion t1+flair"] > 0.8
    assert rows[-1]["score"] == pytest.approx(np.mean([rows[-1][f"lesion {s}"] for s in ("t1+flair", "t1", "flair")]))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "last.ckpt",
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "curves.png",
    }


def assert_same_training(one: Trainer, other: Trainer) -> None:
    """Bit for bit: weights, their running mean, the optimiser's state, and every figure but the time."""
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
        assert torch.equal(one.mean[name], other.mean[name]), name
    a, b = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert a.keys() == b.keys()
    assert all(torch.equal(torch.as_tensor(a[k][n]), torch.as_tensor(b[k][n])) for k in a for n in a[k])
    rows = [[{k: v for k, v in r.items() if k != "hours"} for r in t.state.rows] for t in (one, other)]
    assert rows[0] == rows[1]
    assert (one.state.step, one.state.best_score) == (other.state.step, other.state.best_score)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("epochs_before", [1, 3])
def test_resuming_is_as_if_never_interrupted(tmp_path: Path, optimizer: str, epochs_before: int) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, batch_size=2 if optimizer == "adamw" else 1)
    whole = trainer(tmp_path / "whole", recipe)
    whole.run(lambda _: None)

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == epochs_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", recipe).run(interrupt)
    torch.manual_seed(99)
    second = trainer(tmp_path / "cut", recipe)
    second.resume()
    assert second.state.step == 2 * epochs_before
    second.run(lambda _: None)
    assert second.state.step == whole.state.step == 8
    assert_same_training(whole, second)
    texts = [(tmp_path / folder / "metrics.csv").read_text() for folder in ("whole", "cut")]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [row | {"hours": ""} for row in tables[0]] == [row | {"hours": ""} for row in tables[1]]
    assert len(tables[0]) == 4
    for name in ("best", "last"):
        tensors = [load_weights(tmp_path / f / f"{name}.safetensors", parameter_shapes)[1] for f in ("whole", "cut")]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_the_seed_decides_weights_and_crops(tmp_path: Path) -> None:
    one, same, other = (trainer(tmp_path, replace(RECIPE, seed=seed), validation=[]) for seed in (1, 1, 2))
    first, again = one.model.state_dict(), same.model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other.model.state_dict()["head.weight"])
    other.model.load_state_dict(first)
    losses = [one.step(), same.step(), other.step()]
    assert losses[0] == losses[1] != losses[2]


def test_every_step_draws_its_own_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path, replace(RECIPE, batch_size=2))
    seen: list[Tensor] = []
    monkeypatch.setattr(one, "_loss", lambda crop: seen.append(crop.images) or one.model.head.bias.sum())
    for _ in range(3):
        one.step()
    assert len({image.numpy().tobytes() for image in seen}) == len(seen) == 6


@pytest.mark.parametrize("workers", [1, 4])
def test_crops_do_not_depend_on_who_draws_them(tmp_path: Path, workers: int) -> None:
    """Threads draw ahead of the step; the losses of six steps are those without threads, to the bit."""
    recipe = replace(RECIPE, batch_size=2)
    alone, helped = trainer(tmp_path, recipe), trainer(tmp_path, recipe, workers=workers)
    assert [helped.step() for _ in range(6)] == [alone.step() for _ in range(6)]
    helped.crops.close()


def test_a_crop_follows_from_seed_step_and_place() -> None:
    samples = [lesion_sample(12), lesion_sample(16)]
    crops = [draw_crop(samples, CONFIG, RECIPE, step, index) for step in range(3) for index in range(2)]
    again = draw_crop(samples, CONFIG, RECIPE, 1, 1)
    assert torch.equal(again.images, crops[3].images)
    assert again.subsets == crops[3].subsets
    assert len({crop.images.numpy().tobytes() for crop in crops}) == 6
    assert all(crop.subsets[0] == (True, True) and len(crop.subsets) == 2 for crop in crops)


EPOCHS = 24


def _step(folder: Path) -> int:
    return int(load_checkpoint(folder / "last.ckpt")["state"]["step"]) if (folder / "last.ckpt").exists() else 0


def train_in(folder: Path) -> None:
    """What the killed processes do: start or go on, to the end."""
    torch.set_num_threads(1)
    one = trainer(folder, replace(RECIPE, epochs=EPOCHS, optimizer="muon"))
    if (folder / "last.ckpt").exists():
        one.resume()
    one.run(lambda _: None)
    (folder / "done").touch()


def test_killed_ten_times_it_arrives_at_the_same_weights(tmp_path: Path) -> None:
    """kill -9 ten times, at random moments of starting, stepping and saving; started again each time."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["a2fseg_cli.training.loop"])

    def start(folder: Path) -> Any:
        process = fresh.Process(target=train_in, args=(folder,))
        process.start()
        return process

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    began = time.perf_counter()
    start(whole).join()
    epoch_s = (time.perf_counter() - began) / EPOCHS
    assert (whole / "done").exists()
    cut.mkdir()
    random = np.random.default_rng(0)
    steps = []
    for kill in range(10):
        process = start(cut)
        before = _step(cut)
        while kill > 2 and _step(cut) == before and process.is_alive():  # the first three at once
            time.sleep(0.002)
        time.sleep(random.uniform(0, 1.2) * epoch_s)
        assert process.is_alive(), "it was to be killed before its end"
        process.kill()
        process.join()
        steps.append(_step(cut))
    assert steps == sorted(steps)
    assert len(set(steps)) >= 7, "the kills came at different steps"
    start(cut).join()
    assert (cut / "done").exists()
    one, other = (load_checkpoint(folder / "last.ckpt") for folder in (whole, cut))
    for part in ("model", "mean"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    for name in ("best", "last"):
        tensors = [load_weights(folder / f"{name}.safetensors", parameter_shapes)[1] for folder in (whole, cut)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_running_mean_by_hand(tmp_path: Path) -> None:
    """After the first step it moves by 1 - min(0.9, 2 / 11) = 9 / 11 of the way; with decay 0 all the way."""
    for decay, share in ((0.9, 9 / 11), (0.0, 1.0), (0.1, 0.9)):
        one = trainer(tmp_path, replace(RECIPE, ema_decay=decay))
        before = one.model.state_dict()["head.weight"].clone()
        one.step()
        after = one.model.state_dict()["head.weight"]
        torch.testing.assert_close(one.mean["head.weight"], before + share * (after - before))
        assert not torch.equal(before, after)


def test_the_gradient_is_clipped_and_the_first_adam_step_is_the_learning_rate(tmp_path: Path) -> None:
    """Adam's first step is the rate times the sign of the gradient, whatever the clipped norm."""
    one = trainer(tmp_path, replace(RECIPE, gradient_clip=1e-2))
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    norms: list[float] = []
    one.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in one.model.parameters() if p.grad is not None))
        )
    )
    one.step()
    assert norms == [pytest.approx(1e-2, rel=1e-3)]
    moved = (one.model.state_dict()["head.bias"] - before["head.bias"]).abs()
    assert moved.tolist() == pytest.approx([0.01] * 2, rel=0.05)


def test_scores_of_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perfect results score 1, background only 0 (an empty region 1); subsets a patient lacks are left out."""
    sample = lesion_sample(10)
    single = replace(sample, present=(False, True), classes=np.zeros_like(sample.classes))
    one = trainer(tmp_path, validation=[sample, single])
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.mean = {name: torch.full_like(value, 0.5) for name, value in one.mean.items()}
    seen: list[float] = []

    truths = iter((sample.classes, single.classes))

    def predict(_: Predictor, images: np.ndarray, subsets: list[tuple[bool, ...]]) -> Iterator[Any]:
        seen.append(float(one.model.head.weight.detach()[0, 0, 0, 0, 0]))
        classes = next(truths)
        for subset in subsets:
            said = np.zeros_like(classes) if subset == (True, False) else classes
            yield SimpleNamespace(probabilities=np.eye(2)[said].transpose(3, 0, 1, 2))

    monkeypatch.setattr(Predictor, "segment_subsets", predict)
    row = one.validate()
    expected = {"lesion t1+flair": 1.0, "lesion t1": 0.0, "lesion flair": 1.0}
    assert row == {**expected, "score": pytest.approx(2 / 3)}
    assert seen == [0.5, 0.5], "the running mean is what is validated"
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())


def test_validation_scores_what_the_network_says(tmp_path: Path) -> None:
    """Of a patient with both modalities all three subsets, of one without T1 only FLAIR."""
    one = trainer(tmp_path)
    sample = lesion_sample(16)
    subsets = [(True, True), (True, False), (False, True)]
    images = torch.from_numpy(sample.images.astype(np.float32))[None]
    expected = {}
    for name, subset in zip(("t1+flair", "t1", "flair"), subsets, strict=True):
        predicted = one.model(images, subset)[0].argmax(dim=0).to(torch.uint8).numpy()
        expected[f"lesion {name}"] = region_dice(predicted, sample.classes, CONFIG)["lesion"]
    assert one.scores_of(sample, subsets) == pytest.approx(expected, abs=1e-3)
    assert list(one.scores_of(replace(sample, present=(False, True)), subsets)) == ["lesion flair"]


def test_a_validation_that_fails_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out at the last of 8 steps' validation: resumed, it validates, and all is as if nothing had been."""
    whole = trainer(tmp_path / "whole")
    whole.run(lambda _: None)
    one = trainer(tmp_path / "cut")
    monkeypatch.setattr(one, "validate", lambda: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        one.run(lambda _: None)
    second = trainer(tmp_path / "cut")
    second.resume()
    assert second.state.step == 8
    rows: list[dict[str, float]] = []
    second.run(rows.append)
    assert [row["epoch"] for row in rows] == [4]
    assert_same_training(whole, second)
    for name in ("best", "last"):
        both = [load_weights(tmp_path / f / f"{name}.safetensors", parameter_shapes)[1] for f in ("whole", "cut")]
        assert all(torch.equal(value, both[1][key]) for key, value in both[0].items())


def test_validation_does_not_try_cudnns_algorithms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path)
    seen: list[bool] = []
    scores = one.scores_of
    monkeypatch.setattr(one, "scores_of", lambda *a: (seen.append(torch.backends.cudnn.benchmark), scores(*a))[1])
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    one.validate()
    assert (seen, torch.backends.cudnn.benchmark) == ([False], True)


@pytest.mark.parametrize(("budget_s", "validation_s"), [(20.0, 5.0), (20.0, 6.0), (16.0, 4.0), (40.0, 3.0)])
def test_a_time_budget_is_kept_and_the_rate_falls_to_nothing(
    budget_s: float, validation_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes 1 s."""
    now = [0.0]
    monkeypatch.setattr("a2fseg_cli.training.loop.time.perf_counter", lambda: now[0])
    one = trainer(tmp_path, replace(RECIPE, time_budget_s=budget_s, iterations_per_epoch=5))

    def taking(seconds: float, work: Callable[[], Any]) -> Callable[[], Any]:
        def timed() -> Any:
            now[0] += seconds
            return work()

        return timed

    monkeypatch.setattr(one, "step", taking(1.0, one.step))
    monkeypatch.setattr(one, "validate", taking(validation_s, one.validate))
    one.run(lambda _: None)
    assert 0.6 * budget_s < now[0] <= budget_s
    assert one.learning_rate == 0
    assert "score" in one.state.rows[-1]
    assert (tmp_path / "last.safetensors").is_file()
    short = trainer(tmp_path / "short", replace(RECIPE, time_budget_s=2 * validation_s))
    monkeypatch.setattr(short, "validate", taking(validation_s, short.validate))
    with pytest.raises(UsageError, match="one validation takes"):
        short.run(lambda _: None)


def test_the_rate_and_the_losses_of_a_step(tmp_path: Path) -> None:
    """Step 4 of 8 at 0.01 * 0.5^0.9 = 0.00536; two crops count as their mean; tumour voxels weigh seven times."""
    recipe = replace(RECIPE, batch_size=2, foreground_weight=7.0)
    one = trainer(tmp_path, recipe)
    one.state.step = 4
    losses = []
    for crop in one._draw(4):
        heads = one.model.training_outputs(crop.images[None], crop.subsets).heads
        losses.append(total_loss(heads, crop.classes[None], 7.0).item())
    assert one.step() == pytest.approx(np.mean(losses), rel=1e-5)
    assert [group["lr"] for group in one.optimizer.param_groups] == pytest.approx([0.005359], abs=1e-6)


def test_an_absent_modality_is_in_no_subset_and_a_single_one_stands_alone() -> None:
    flair = replace(lesion_sample(), present=(False, True))
    crops = [draw_crop([flair], CONFIG, replace(RECIPE, random_subsets=3), step, 0) for step in range(5)]
    assert [crop.subsets for crop in crops] == [((False, True),)] * 5


def test_crops_are_augmented_where_asked() -> None:
    sample = [lesion_sample()]
    plain, changed = (
        [draw_crop(sample, CONFIG, replace(RECIPE, augment=augmented), step, 0).images for step in range(8)]
        for augmented in (False, True)
    )
    assert sum(not torch.equal(*pair) for pair in zip(plain, changed, strict=True)) >= 6


def test_a_loss_that_is_no_number_stops_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    one = trainer(tmp_path)

    def spoil(_: dict[str, float]) -> None:
        one.train_samples = [replace(lesion_sample(), images=np.full((2, 16, 16, 16), np.nan, np.float16))]

    with pytest.raises(DivergenceError, match=r"at step 2 the loss is nan.*last checkpoint is untouched"):
        one.run(spoil)
    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert saved["state"]["step"] == 2
    assert all(bool(value.isfinite().all()) for value in saved["model"].values())
    again = trainer(tmp_path)
    again.resume()
    again.run(lambda _: None)
    assert again.state.step == 8


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    one.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(DivergenceError, match="gradient norm"):
        one.step()
    assert all(bool(value.isfinite().all()) for value in one.model.state_dict().values())


def test_exported_weights_are_the_running_mean(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(RECIPE, epochs=1))
    one.run(lambda _: None)
    for name in ("best.safetensors", "last.safetensors"):
        weights, tensors = load_weights(tmp_path / name, parameter_shapes)
        assert weights.config == CONFIG
        assert weights.card["name"] == "test"
        assert weights.card["steps"] == 2
        assert weights.card["recipe"]["learning_rate"] == 0.01
        assert 0 <= weights.card["validation"]["score"] <= 1
        exported, mean = A2FSeg(CONFIG), A2FSeg(CONFIG)
        exported.load_state_dict(tensors)
        mean.load_state_dict(one.mean)
        images = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(exported(images, (True, True)), mean(images, (True, True)), atol=5e-3, rtol=5e-3)


def test_weights_of_another_task_give_what_fits(tmp_path: Path) -> None:
    """From (t1, flair) at 1 mm to (flair, dwi) at 2 mm: FLAIR's encoder, attention and heads stay, DWI's are new."""
    torch.manual_seed(4)
    source = A2FSeg(CONFIG).state_dict()
    card = {"name": "first", "hours": 1.5, "steps": 9, "initial": {"hours": 0.5}, "data": {"train": ["x"]}}
    save_weights(tmp_path / "first.safetensors", source, CONFIG, card, dtype="float32")
    target = replace(CONFIG, modalities=("flair", "dwi"), spacing_mm=(2.0, 2.0, 2.0))
    found = initial_weights(tmp_path / "first.safetensors", target)
    assert "taken over for flair; new: dwi; not used: t1; working spacing 2 x 2 x 2 mm, was 1 x 1 x 1" in found.note
    assert found.provenance["hours"] == 1.5
    assert "data" not in found.provenance
    one = trainer(tmp_path / "run", config=target, initial=found.tensors)
    state = one.model.state_dict()
    same = {name for name, value in state.items() if name in source and torch.equal(value, source[name])}
    assert same == {name for name in state if "dwi" not in name}
    assert any("encoders.flair" in name for name in same)
    card = {"hours": 2.0, "initial": found.provenance}
    assert [stage.get("hours") for stage in stages(card)] == [0.5, 1.5, 2.0]
    assert hours_in_all(card) == 4.0
    assert hours_in_all({"hours": "many", "initial": {"hours": None, "initial": 3}}) == 0


def test_other_classes_get_new_heads(tmp_path: Path) -> None:
    save_weights(tmp_path / "first.safetensors", A2FSeg(CONFIG).state_dict(), CONFIG, {})
    other = replace(CONFIG, classes=("background", "scar"), regions=(("scar", ("scar",)),))
    found = initial_weights(tmp_path / "first.safetensors", other)
    assert "new heads for background, scar" in found.note
    assert set(found.tensors) == {name for name in parameter_shapes(other) if "head" not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features_per_stage": (4, 10)}, r"features_per_stage is \(4, 8\), the network to train has \(4, 10\)"),
        ({"modalities": ("t2", "dwi")}, "made for t1, flair; none of them is among t2, dwi"),
    ],
    ids=["widths", "modalities"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save_weights(tmp_path / "first.safetensors", A2FSeg(CONFIG).state_dict(), CONFIG, {})
    with pytest.raises(WeightsError, match=words):
        initial_weights(tmp_path / "first.safetensors", replace(CONFIG, **change))


def test_training_starts_from_given_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    initial = A2FSeg(CONFIG).state_dict()
    one = trainer(tmp_path, initial=initial)
    for name, value in initial.items():
        assert torch.equal(one.model.state_dict()[name], value)
        assert torch.equal(one.mean[name], value)


# Checkpoints


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [lambda o, p: p.write_bytes(pickle.dumps(o)), torch.save], ids=["pickle", "torch"])
def test_a_checkpoint_with_code_is_refused_unexecuted(tmp_path: Path, write: Any) -> None:
    one = trainer(tmp_path / "run")
    write({"config": CONFIG.to_json(), "model": Malicious(tmp_path / "owned")}, tmp_path / "run" / "last.ckpt")
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint of this tool"):
        one.resume()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02", os.urandom(100)], ids=range(4))
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint"):
        trainer(tmp_path).resume()


@pytest.mark.parametrize("state", [torch.zeros(3), {"config": CONFIG.to_json()}, {}, [1]], ids=range(4))
def test_a_foreign_state_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint of this tool"):
        trainer(tmp_path).resume()


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint to resume from"):
        trainer(tmp_path).resume()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).save()
    with pytest.raises(UsageError, match="another network"):
        trainer(tmp_path, config=replace(CONFIG, features_per_stage=(4, 10))).resume()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """With a limit of 2000 bytes a file, as if the disk were full."""
    if sys.platform == "win32":
        pytest.skip("limits of a process are POSIX")
    import resource

    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"value": torch.ones(2)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"last.ckpt: cannot be written"):
            save_checkpoint(path, {"value": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path)["value"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_training_and_resuming_on_cuda(optimizer: str, precision: str, tmp_path: Path) -> None:
    """As `train` runs there: crops drawn ahead, cuDNN trying its algorithms."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    compute = Compute(torch.device("cuda"), precision, "for the tests")

    def on_cuda() -> Trainer:
        samples: list[Sample] = [lesion_sample(16)]
        recipe = replace(RECIPE, optimizer=optimizer)
        return Trainer(CONFIG, recipe, samples, samples, tmp_path, compute, {}, workers=2)

    torch.backends.cudnn.benchmark = True
    try:
        one = on_cuda()
        one.step()
        one.save()
        two = on_cuda()
        two.resume()
        for name, value in one.mean.items():
            assert two.mean[name].device.type == "cuda"
            assert torch.equal(value, two.mean[name])
        assert one.step() == pytest.approx(two.step(), rel=1e-3 if precision == "fp32" else 2e-2)
        two.run(lambda _: None)
    finally:
        torch.backends.cudnn.benchmark = False
    assert two.state.step == 9  # epochs of two steps, begun after the first
    assert (tmp_path / "best.safetensors").is_file()
