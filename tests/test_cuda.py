"""The same results on a CUDA card as on the CPU: `pytest -m cuda` on a machine that has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import a2fseg_cli.inference.predictor as predictor_module
from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.weights.cache import resolve_weights

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def card() -> None:
    """Fail, not skip: who asks for these tests wants to know whether the card works."""
    assert torch.cuda.is_available(), "torch finds no CUDA device here"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The synthetic patient at 2 mm, z-scored, cropped to its brain: (4, d, h, w)."""
    made = make_phantom(size=(78, 120, 120), spacing_mm=(2.0, 2.0, 2.0))
    brain = np.any([image != 0 for image in made.images.values()], axis=0)
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(brain))
    stack = np.stack([made.images[m][box] for m in ("t1", "t1c", "t2", "flair")]).astype(np.float32)
    for image in stack:
        inside = image != 0
        image[inside] = (image[inside] - image[inside].mean()) / image[inside].std()
    return stack


def dice(one: Prediction, two: Prediction, config: ModelConfig) -> float:
    """Return the lowest Dice of the regions."""
    a, b = (found.probabilities.argmax(axis=0).astype(np.uint8) for found in (one, two))
    return min(region_dice(a, b, config).values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_subset_as_on_the_cpu(images: np.ndarray, precision: str) -> None:
    weights = resolve_weights(None)
    there = Segmenter(weights, choose_compute("cuda", precision))
    here = Segmenter(weights, choose_compute("cpu", "fp32"))
    masks = [here.config.presence(names) for names in all_subsets(here.config.modalities)]
    flags = [sum(mask) == 4 for mask in masks]
    pairs = zip(here.segment_subsets(images, masks, flags), there.segment_subsets(images, masks, flags), strict=True)
    for expected, found in pairs:
        assert dice(expected, found, here.config) >= (0.999 if precision == "fp32" else 0.98)
        for m, weight in expected.attention.items():
            np.testing.assert_allclose(found.attention[m], weight, atol=0.05)
    assert dice(here.segment(images, masks[-1]), there.segment(images, masks[-1]), here.config) >= 0.98


def test_windows_shrink_to_the_cards_memory(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Segmenter(resolve_weights(None), choose_compute("cuda"))
    whole = there.segment(images, (True,) * 4)
    assert len(whole.plan.starts) == 1
    monkeypatch.setattr(predictor_module, "available_memory_bytes", lambda _: 2**26)
    parts = there.segment(images, (True,) * 4)
    assert len(parts.plan.starts) > 1
    assert np.isfinite(parts.probabilities).all()


def test_a_card_that_runs_out_of_memory_gets_smaller_windows(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is said to be free than the process may take."""
    there = Segmenter(resolve_weights(None), choose_compute("cuda"))
    monkeypatch.setattr(predictor_module, "available_memory_bytes", lambda _: 2**40)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150 * 2**20) / total)
    try:
        parts = there.segment(images, (True,) * 4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(parts.plan.starts) > 1
    assert np.isfinite(parts.probabilities).all()


def test_a_training_step_as_on_the_cpu(tmp_path: Path) -> None:
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), patch_size=(16, 16, 16))
    random = np.random.default_rng(0)
    classes = np.zeros((16, 16, 16), np.uint8)
    classes[4:9, 4:9, 4:9] = 1
    sample = Sample("one", random.normal(size=(4, 16, 16, 16)).astype(np.float16), classes, (True,) * 4)
    losses = []
    for device in ("cpu", "cuda"):
        compute = choose_compute(device, "fp32")
        setup = Setup(config, Recipe(learning_rate=1e-3), [sample], [sample], RunFolder(tmp_path), compute)
        trainer = Trainer(setup)
        losses.append([trainer.step() for _ in range(3)])
        assert trainer.validate()["score"] >= 0
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
