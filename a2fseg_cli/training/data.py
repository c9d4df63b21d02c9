"""Training patients: preprocessed once into a cache, then crops from it, drawn ahead of the network."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write, file_state, fingerprint
from a2fseg_cli.imaging.label_maps import check_on_grid, read_classes
from a2fseg_cli.imaging.preprocessing import prepare
from a2fseg_cli.imaging.reading import check_same_grid, read_image
from a2fseg_cli.training.augmentation import augment, mix_tumours, rotate_and_scale
from a2fseg_cli.training.recipe import Recipe

CACHE_VERSION = 3


@dataclass(frozen=True)
class Sample:
    """One preprocessed patient.

    Attributes:
        name: The case.
        images: (M, D, H, W) float16 on the working grid, z-scored; on disk, and read where it is looked at.
        classes: (D, H, W) uint8 class indices.
        present: (M,) the missing-modality mask.
    """

    name: str
    images: npt.NDArray[np.float16]
    classes: npt.NDArray[np.uint8]
    present: tuple[bool, ...]


def load_samples(
    cases: Sequence[Case], config: ModelConfig, cache: Path, progress: Callable[[str, int, int], None]
) -> list[Sample]:
    """Return the patients from the cache; those that are missing or stale there are preprocessed first.

    Args:
        cases: Patients with a truth.
        config: Modalities, label values and working spacing.
        cache: Folder, made if needed.
        progress: Told (case name, number done, number of all).

    Raises:
        InputError: an unreadable image, a truth on another grid or with unknown labels.
    """
    samples = []
    for index, case in enumerate(cases):
        samples.append(_load(case, config, cache))
        progress(case.name, index + 1, len(cases))
    return samples


def _fingerprint(case: Case, config: ModelConfig) -> str:
    """Return what the cached arrays depend on: the files, the settings and the version of this code."""
    files = {**case.images, "truth": case.truth}
    states = {name: file_state(path) for name, path in files.items() if path is not None}
    return fingerprint(states, CACHE_VERSION, config.modalities, config.label_values, config.spacing_mm)


def _load(case: Case, config: ModelConfig, cache: Path) -> Sample:
    stem = f"{case.name}-{_fingerprint(case, config)}"
    classes_file, images_file = cache / f"{stem}.classes.npy", cache / f"{stem}.images.npy"
    if not images_file.is_file():  # written last
        images, classes, _ = preprocess_truth(case, config)
        for path, array in ((classes_file, classes), (images_file, images.astype(np.float16))):
            with atomic_write(path) as file:
                np.save(file, array)
    present = tuple(m in case.images for m in config.modalities)
    return Sample(case.name, np.load(images_file, mmap_mode="r"), np.load(classes_file), present)


def preprocess_truth(
    case: Case, config: ModelConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], tuple[bool, ...]]:
    """Return a patient's images, class map and missing-modality mask on the working grid.

    Raises:
        InputError: no truth, an unreadable image, differing grids, unknown labels.
    """
    if case.truth is None:
        raise InputError(f"{case.name}: no segmentation beside the images; training needs one.")
    images = {m: read_image(path) for m, path in case.images.items()}
    check_same_grid({m: (image.path, image.geometry) for m, image in images.items()})
    truth = read_classes(case.truth, config)
    first = next(iter(images.values()))
    truth = check_on_grid(truth, first.path, first.geometry)
    prepared = prepare(images, config.modalities, config.spacing_mm)
    return prepared.images, prepared.route.classes_to_network(truth.classes, len(config.classes)), prepared.present


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
    """Return the edges of a patient's crops: the network's `window`, or what holds the brain, as inference plans it."""
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


def draw_weights(samples: Sequence[Sample], config: ModelConfig, recipe: Recipe) -> npt.NDArray[np.float64] | None:
    """Return the probability with which each patient is drawn, as `Recipe.draw` says; None when all are the same.

    Raises:
        UsageError: shares that leave out a combination of sequences that a patient has, or name one that nobody has.
    """
    if recipe.draw == "case":
        return None
    kinds = [subset_name(itertools.compress(config.modalities, s.present), config.modalities) for s in samples]
    counts = Counter(kinds)
    shares = recipe.draw_shares() or dict.fromkeys(counts, 1.0)
    shares = {subset_name(kind.split("+"), config.modalities): share for kind, share in shares.items()}
    if shares.keys() != counts.keys():
        here = ", ".join(f"{kind} ({count} patients)" for kind, count in counts.items())
        raise UsageError(f"draw {recipe.draw}: the training patients have {here}; give each of these a share.")
    weights = np.array([shares[kind] / counts[kind] for kind in kinds])
    return np.asarray(weights / weights.sum())


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
    """The crops of one step after the other, the next ones drawn by threads while one is worked on.

    Args:
        draw: From a step to its crops.
        workers: Threads, and how many steps are drawn ahead; 0 draws each when it is asked for.
    """

    def __init__(self, draw: Callable[[int], list[TrainingCrop]], workers: int) -> None:
        self._draw, self._workers = draw, workers
        self._coming: dict[int, Future[list[TrainingCrop]]] = {}
        self._threads = ThreadPoolExecutor(workers, "crops") if workers else None

    def __call__(self, step: int) -> list[TrainingCrop]:
        """Return the crops of a step, the same for any number of workers."""
        if self._threads is None:
            return self._draw(step)
        for ahead in range(step, step + self._workers + 1):
            if ahead not in self._coming:
                self._coming[ahead] = self._threads.submit(self._draw, ahead)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """End the threads; what they had drawn is dropped."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._coming.clear()
