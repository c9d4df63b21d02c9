"""The loaded network where memory is short: windows shrink until they fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import a2fseg_cli.inference.predictor as predictor_module
from a2fseg_cli.core.config import all_subsets
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import ResourceError
from a2fseg_cli.inference.predictor import Segmenter, WindowOptions
from a2fseg_cli.weights.card import mirrored_axes
from a2fseg_cli.weights.file_format import load_weights, save_weights

CPU = Compute(torch.device("cpu"), "fp32", "for the tests")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 64, 64, 64)).astype(np.float32)


def failing_above(voxels: int, segmenter: Segmenter, error: Exception) -> list[tuple[int, ...]]:
    """Make the network fail on windows of more voxels; return where the edges of those it is given are noted."""
    encode, seen = segmenter.model.encode, []

    def limited(window: Tensor, present: Sequence[bool]) -> dict[str, Tensor]:
        seen.append(tuple(window.shape[2:]))
        if math.prod(window.shape[2:]) > voxels:
            raise error
        return encode(window, present)

    segmenter.model.encode = limited  # type: ignore[method-assign]
    return seen


def test_windows_shrink_until_they_fit(toy_weights: Path, images: np.ndarray) -> None:
    """Of 64 cubed, then about half of it at a time, until 50,000 voxels are not exceeded; all subsets come."""
    segmenter = Segmenter(toy_weights, CPU)
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    seen = failing_above(50_000, segmenter, error)
    masks = [segmenter.config.presence(names) for names in all_subsets(segmenter.config.modalities)]
    results = list(segmenter.segment_subsets(images, masks))
    assert len(results) == 15
    assert all(result.probabilities.shape == (4, 64, 64, 64) for result in results)
    sizes = list(dict.fromkeys(math.prod(edges) for edges in seen))
    assert sizes[0] == 64**3
    assert sizes == sorted(sizes, reverse=True)
    assert [size <= 50_000 for size in sizes] == [False] * (len(sizes) - 1) + [True]


def test_other_errors_are_not_taken_for_a_lack_of_memory(toy_weights: Path, images: np.ndarray) -> None:
    segmenter = Segmenter(toy_weights, CPU)
    seen = failing_above(0, segmenter, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        segmenter.segment(images, (True,) * 4)
    assert len(seen) == 1


def test_a_window_that_was_asked_for_does_not_shrink(toy_weights: Path, images: np.ndarray) -> None:
    segmenter = Segmenter(toy_weights, CPU, WindowOptions(window=(64, 64, 64)))
    failing_above(50_000, segmenter, MemoryError())
    with pytest.raises(ResourceError, match=r"window .64, 64, 64. does not fit on cpu; leave it out"):
        segmenter.segment(images, (True,) * 4)


def test_no_window_fits(toy_weights: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "available_memory_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match="Out of memory"):
        Segmenter(toy_weights, CPU).segment(images, (True,) * 4)


def with_mirrored(weights: Path, names: list[str], path: Path) -> Path:
    """Return the weights with a card that has predictions mirrored."""
    read, tensors = load_weights(weights, parameter_shapes)
    save_weights(path, tensors, read.config, {**read.card, "mirrored": names})
    return path


def test_the_card_says_over_which_flips_the_mean_is_taken(toy_weights: Path, tmp_path: Path) -> None:
    """An image and its mirror image get each other's mirrored probabilities, over the axes of the card only."""
    path = with_mirrored(toy_weights, ["left-right", "no such direction"], tmp_path / "mirrored.safetensors")
    images = np.random.default_rng(1).standard_normal((4, 16, 16, 16)).astype(np.float32)
    segmenter, all_of_them = Segmenter(path, CPU), (True,) * 4
    assert segmenter.mirrored == (2,)

    def off(axis: int, options: WindowOptions | None = None) -> float:
        """Return by how much the probabilities of the mirrored image differ from the mirrored probabilities."""
        network = Segmenter(path, CPU, options)
        straight = network.segment(images, all_of_them).probabilities
        turned = network.segment(np.ascontiguousarray(np.flip(images, axis)), all_of_them).probabilities
        return float(np.abs(np.flip(turned, axis) - straight).max())

    assert off(3) < 1e-5 < 1e-3 < off(2)
    assert off(3, WindowOptions(tta=False)) > 1e-3
    assert off(1, WindowOptions(tta=True)) < 1e-5


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_views_side_by_side_say_what_they_say_one_after_the_other(
    toy_weights: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many views at a time as there are threads, each with its share; the threads of torch are given back."""
    segmenter = Segmenter(toy_weights, CPU, WindowOptions(tta=True))
    images = np.random.default_rng(0).standard_normal((4, 24, 24, 24)).astype(np.float32)
    masks = [(True, True, True, True), (False, False, False, True)]
    monkeypatch.setattr(Segmenter, "_views_at_once", lambda *_: 1)
    one_by_one = [result.probabilities for result in segmenter.segment_subsets(images, masks)]
    running: list[int] = []
    fuse = segmenter._fuse

    def noting(*args: Any) -> Iterator[Tensor]:
        running.append(torch.get_num_threads())
        yield from fuse(*args)

    before = torch.get_num_threads()
    monkeypatch.setattr(segmenter, "_fuse", noting)
    monkeypatch.setattr(Segmenter, "_views_at_once", lambda *_: 8)
    torch.set_num_threads(threads)
    try:
        at_once = [result.probabilities for result in segmenter.segment_subsets(images, masks)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert running == [1] * 8
    for expected, result in zip(one_by_one, at_once, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    "card", [{}, {"mirrored": "left-right"}, {"mirrored": [["left-right"], 3]}, {"mirrored": None}]
)
def test_a_card_that_names_no_direction(card: dict[str, object]) -> None:
    assert mirrored_axes(card) == ()
