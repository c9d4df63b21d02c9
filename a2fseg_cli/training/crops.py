"""Crops of a training step: which patient, where, with what changes, and in which subsets it is looked at."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.core.networks import network_class
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.augmentation import as_another_scanner, augment, mix_tumours, rotate_and_scale
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.processes import Processes
from a2fseg_cli.training.recipe import Recipe


def random_crop(
    sample: Sample, patch_size: Sequence[int], foreground_share: float, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a crop: images (M, D, H, W) float32 and classes (D, H, W) uint8, zero-padded where it overhangs.

    With probability `foreground_share` it holds a random voxel of a random foreground class of the patient,
    anywhere in its middle half; else it lies anywhere in the brain's box.
    """
    shape = sample.classes.shape
    centre = [int(random.integers(n)) for n in shape]
    kinds = [k for k in np.unique(sample.classes).tolist() if k != 0]
    if kinds and random.random() < foreground_share:
        spots = np.flatnonzero(sample.classes.ravel() == kinds[random.integers(len(kinds))])
        spot = np.unravel_index(int(spots[random.integers(len(spots))]), shape)
        centre = [int(s) + int(random.integers(-p // 4, p // 4 + 1)) for s, p in zip(spot, patch_size, strict=True)]
    source, target = [], []
    for c, n, p in zip(centre, shape, patch_size, strict=True):
        start = (n - p) // 2 if n <= p else min(max(c - p // 2, 0), n - p)
        low, high = max(start, 0), min(start + p, n)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    images = np.zeros((len(sample.images), *patch_size), np.float32)
    classes = np.zeros(tuple(patch_size), np.uint8)
    images[(slice(None), *target)] = sample.images[(slice(None), *source)]
    classes[tuple(target)] = sample.classes[tuple(source)]
    return torch.from_numpy(images), torch.from_numpy(classes)


def patch_size(sample: Sample, config: ModelConfig) -> list[int]:
    """Return the edges of a patient's crops: `patch_size`, or what holds the brain, as inference plans it.

    A network that takes one window only is trained on it.
    """
    if not network_class(config).any_window:
        return list(config.patch_size)
    step = config.edge_step
    whole = [max(config.smallest_edge, math.ceil(n / step) * step) for n in sample.classes.shape]
    return [min(edges) for edges in zip(config.patch_size, whole, strict=True)]


def random_subset(present: Sequence[bool], random: np.random.Generator) -> tuple[bool, ...]:
    """Return a random proper subset of the present modalities, its size drawn uniformly first; of a single one, itself.

    Sizes are drawn first, as in the authors' code, so that single modalities come as often as triples.
    """
    available = np.flatnonzero(present)
    size = int(random.integers(1, max(2, len(available))))
    chosen = set(random.choice(available, size=min(size, len(available)), replace=False).tolist())
    return tuple(index in chosen for index in range(len(present)))


@dataclass(frozen=True)
class TrainingCrop:
    """What one encode of a training step works on.

    Attributes:
        images: (M, D, H, W) float32.
        classes: (D, H, W) uint8 class indices.
        subsets: Missing-modality masks; the first is all that the patient has.
    """

    images: Tensor
    classes: Tensor
    subsets: tuple[tuple[bool, ...], ...]


def draw_weights(
    present: Sequence[Sequence[bool]], config: ModelConfig, recipe: Recipe
) -> npt.NDArray[np.float64] | None:
    """Return the probability with which each patient is drawn, as `Recipe.draw` says; None when all are the same.

    Args:
        present: The missing-modality mask of each training patient.
        config: The network.
        recipe: How they are drawn.

    Raises:
        UsageError: shares that leave out a combination of sequences that a patient has, or name one that nobody has.
    """
    if recipe.draw == "case":
        return None
    kinds = [subset_name(itertools.compress(config.modalities, flags), config.modalities) for flags in present]
    counts = Counter(kinds)
    shares = _shares_in_order(recipe, config.modalities) or dict.fromkeys(counts, 1.0)
    if shares.keys() != counts.keys():
        here = ", ".join(f"{kind} ({count} patients)" for kind, count in counts.items())
        raise UsageError(
            f"draw {recipe.draw}: the training patients have {here}; give each of these a share, and no other."
        )
    weights = np.array([shares[kind] / counts[kind] for kind in kinds])
    return np.asarray(weights / weights.sum())


def _shares_in_order(recipe: Recipe, modalities: Sequence[str]) -> dict[str, float] | None:
    """Return the recipe's shares under the names that `subset_name` gives; None where it gives no shares."""
    shares: dict[str, float] = {}
    for kind, share in (recipe.draw_shares() or {}).items():
        sequences = kind.split("+")
        if unknown := [name for name in sequences if name not in modalities]:
            raise UsageError(f"draw {recipe.draw}: {unknown[0]!r} is none of {', '.join(modalities)}.")
        name = subset_name(sequences, modalities)
        if name in shares or len(set(sequences)) < len(sequences):
            raise UsageError(f"draw {recipe.draw}: {name} is named twice.")
        shares[name] = share
    return shares or None


def draw_crop(
    samples: Sequence[Sample],
    config: ModelConfig,
    recipe: Recipe,
    step: int,
    index: int,
    weights: npt.NDArray[np.float64] | None = None,
) -> TrainingCrop:
    """Return a crop of a step. It follows from the seed, the step and its place in the batch, and nothing else.

    Args:
        samples: The training patients.
        config: The network.
        recipe: How crops are drawn and changed.
        step: Number of the step.
        index: Place in the batch.
        weights: What `draw_weights` gives.
    """
    random = np.random.default_rng([recipe.seed, step, index])
    if weights is None:
        sample = samples[int(random.integers(len(samples)))]
    else:
        sample = samples[int(random.choice(len(samples), p=weights))]
    size = patch_size(sample, config)
    images, classes = random_crop(sample, size, recipe.foreground_share, random)
    if recipe.mix_share and random.random() < recipe.mix_share and (others := _donors(samples, sample)):
        other = others[int(random.integers(len(others)))]
        theirs = rotate_and_scale(*random_crop(other, size, 1.0, random), config.spacing_mm, random)
        images, classes = mix_tumours(images, classes, *theirs, random)
    if recipe.scanner_share and random.random() < recipe.scanner_share:
        images = as_another_scanner(images, random)
    if recipe.augment:
        images, classes = augment(images, classes, config.spacing_mm, random)
    drawn = [random_subset(sample.present, random) for _ in range(recipe.random_subsets)]
    return TrainingCrop(images, classes, (sample.present, *(subset for subset in drawn if subset != sample.present)))


def _donors(samples: Sequence[Sample], sample: Sample) -> list[Sample]:
    """Return the other patients that have at least the sample's modalities."""
    return [
        other
        for other in samples
        if other is not sample
        and all(there or not here for here, there in zip(sample.present, other.present, strict=True))
    ]


class CropReader:
    """The crops of one step after the other; threads may draw the next ones while the network works on one.

    Args:
        samples: The training patients.
        config: The network.
        recipe: How crops are drawn and changed.
        processes: Those that train together; this one draws its share of a step's crops.
        workers: Threads, and how many steps are drawn before they are needed; 0 draws each when it is asked for.

    Raises:
        UsageError: `Recipe.draw` does not fit the patients.
    """

    def __init__(
        self, samples: Sequence[Sample], config: ModelConfig, recipe: Recipe, processes: Processes, workers: int
    ) -> None:
        self.samples, self.config, self.recipe, self.processes = samples, config, recipe, processes
        self.weights = draw_weights([sample.present for sample in samples], config, recipe)
        self._workers = workers
        self._coming: dict[int, Future[list[TrainingCrop]]] = {}
        self._threads = ThreadPoolExecutor(workers, "crops") if workers else None

    def draw(self, step: int) -> list[TrainingCrop]:
        """Return this process's crops of a step, drawn now."""
        mine = self.processes.share(range(self.recipe.batch_size))
        return [draw_crop(self.samples, self.config, self.recipe, step, index, self.weights) for index in mine]

    def __call__(self, step: int) -> list[TrainingCrop]:
        """Return the crops of a step, the same for any number of workers."""
        if self._threads is None:
            return self.draw(step)
        for coming in range(step, step + self._workers + 1):
            if coming not in self._coming:
                self._coming[coming] = self._threads.submit(self.draw, coming)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """End the threads; what they had drawn is dropped."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._coming.clear()
