"""Crops of a training step: where they lie, of whom, in which subsets, and that they follow from seed and step."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_toys import (
    CONFIG,
    RECIPE,
    lesion_sample,
    numbered_sample,
    trainer,
)

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.crops import CropReader, draw_crop, draw_weights, patch_size, random_crop, random_subset
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.processes import Processes


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


def test_tumours_are_mixed_as_often_as_asked_and_only_where_the_modalities_are_there() -> None:
    """One patient without a tumour, one with: a crop of the first shows one only when the other's is mixed in.

    Half of the crops are of the one with; of the others 0, 50 or 100 % get its tumour. 100 draws: +-10 % are 2 sigma.
    """
    empty = replace(lesion_sample(), classes=np.zeros((16,) * 3, np.uint8), name="empty")
    full = lesion_sample()
    half = replace(full, present=(True, False))
    config = replace(CONFIG, patch_size=(16, 16, 16))

    def share(samples: list[Sample], mix_share: float) -> float:
        recipe = replace(RECIPE, mix_share=mix_share, augment=False)
        crops = [draw_crop(samples, config, recipe, step, 0) for step in range(100)]
        return float(np.mean([bool(crop.classes.any()) for crop in crops]))

    assert share([empty], 1.0) == 0
    assert share([empty, full], 0.0) == pytest.approx(0.5, abs=0.15)
    assert share([empty, full], 0.5) == pytest.approx(0.75, abs=0.15)
    assert share([empty, full], 1.0) == 1
    assert share([empty, half], 1.0) == pytest.approx(0.5, abs=0.15)  # FLAIR is not there to be mixed in


def test_a_crop_follows_from_seed_step_and_place() -> None:
    samples = [lesion_sample(12), lesion_sample(16)]
    crops = [draw_crop(samples, CONFIG, RECIPE, step, index) for step in range(3) for index in range(2)]
    again = draw_crop(samples, CONFIG, RECIPE, 1, 1)
    assert torch.equal(again.images, crops[3].images)
    assert again.subsets == crops[3].subsets
    assert len({crop.images.numpy().tobytes() for crop in crops}) == 6
    assert all(crop.subsets[0] == (True, True) and len(crop.subsets) == 2 for crop in crops)


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


@pytest.mark.parametrize("workers", [1, 4])
def test_crops_do_not_depend_on_who_draws_them(tmp_path: Path, workers: int) -> None:
    """Threads draw ahead of the step; the losses of six steps are those without threads, to the bit."""
    recipe = replace(RECIPE, batch_size=2)
    alone, helped = trainer(tmp_path, recipe), trainer(tmp_path, recipe, workers=workers)
    assert [helped.step() for _ in range(6)] == [alone.step() for _ in range(6)]
    helped.crops.close()


def test_every_step_draws_its_own_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path, replace(RECIPE, batch_size=2))
    seen: list[Tensor] = []
    bias = one.learner.model.head.bias
    monkeypatch.setattr(one.learner, "_loss", lambda crop, _: seen.append(crop.images) or bias.sum())
    for _ in range(3):
        one.step()
    assert len({image.numpy().tobytes() for image in seen}) == len(seen) == 6


def of_kinds(*present: tuple[bool, bool]) -> list[Sample]:
    return [replace(lesion_sample(), name=str(index), present=flags) for index, flags in enumerate(present)]


BOTH, FLAIR = (True, True), (False, True)


def test_patients_are_drawn_by_case_by_kind_or_by_shares() -> None:
    """Two patients of T1 + FLAIR and four of FLAIR alone, as the probability of each.

    By kind 1/2 over 2 and over 4; shares of 3 to 1 are 3/4 over 2 and 1/4 over 4; by case nothing is weighted.
    """
    samples = of_kinds(BOTH, FLAIR, FLAIR, BOTH, FLAIR, FLAIR)

    def weights(draw: str) -> list[float] | None:
        found = draw_weights([sample.present for sample in samples], CONFIG, replace(RECIPE, draw=draw))
        return None if found is None else found.tolist()

    assert weights("case") is None
    assert weights("kind") == pytest.approx([1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 8, 1 / 8])
    assert weights("t1+flair=3,flair=1") == pytest.approx([3 / 8, 1 / 16, 1 / 16, 3 / 8, 1 / 16, 1 / 16])
    assert weights("flair = 0.5, flair+t1 = 1.5") == weights("t1+flair=3,flair=1")


def test_crops_come_as_often_as_the_shares_say() -> None:
    """Shares of 3 to 1: of 400 crops 300 are of the one patient with both, standard deviation 9."""
    samples = of_kinds(BOTH, FLAIR, FLAIR, FLAIR, FLAIR)
    recipe = replace(RECIPE, draw="t1+flair=3,flair=1", augment=False)
    reader = CropReader(samples, CONFIG, recipe, Processes(), 0)
    drawn = Counter(reader(step)[0].subsets[0] for step in range(400))
    assert drawn[BOTH] == pytest.approx(300, abs=30)
    assert drawn[BOTH] + drawn[FLAIR] == 400


def test_drawn_by_case_the_first_number_chooses_the_patient() -> None:
    """The stream of the generator is the one that seed, step and place give, with nothing before it."""
    samples = of_kinds(BOTH, FLAIR, BOTH, FLAIR, FLAIR)
    for step in range(10):
        chosen = int(np.random.default_rng([RECIPE.seed, step, 0]).integers(len(samples)))
        assert draw_crop(samples, CONFIG, RECIPE, step, 0).subsets[0] == samples[chosen].present


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            "t1+flair=1",
            r"the training patients have t1\+flair \(1 patients\), flair \(2 patients\); give",
        ),
        ("t1+flair=1,flair=1,t1=1", "give each of these a share, and no other"),
        ("t1+flair=1,flair=1,t2=1", "draw .*: 't2' is none of t1, flair"),
        ("t1+flair=1,flair+t1=1,flair=1", r"draw .*: t1\+flair is named twice"),
        ("flair+flair=1,t1+flair=1", "flair is named twice"),
    ],
)
def test_shares_that_do_not_fit_the_patients_are_refused(draw: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CropReader(of_kinds(BOTH, FLAIR, FLAIR), CONFIG, replace(RECIPE, draw=draw), Processes(), 0)


def test_crops_look_as_from_other_scanners_as_often_as_asked() -> None:
    """Off, no number is drawn for it; the share of changed crops is 15/16 (one of 4 changes) in each of 2 sequences."""
    sample = [lesion_sample()]

    def images(share: float) -> list[Tensor]:
        recipe = replace(RECIPE, scanner_share=share, augment=False)
        return [draw_crop(sample, CONFIG, recipe, step, 0).images for step in range(60)]

    plain = images(0.0)
    for share, expected in ((0.5, 30), (1.0, 60)):
        changed = sum(not torch.equal(*pair) for pair in zip(plain, images(share), strict=True))
        assert changed == pytest.approx(expected, abs=9)
