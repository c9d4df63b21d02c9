"""Whether an image is what its name says: T1, T1c, T2 or FLAIR, by statistics of the brain.

Two files given in each other's place, or a T1 as T1c, make a nonsense mask without a word. This check looks at each
image alone (where bright and dark tissue lies, how heavy the tails are) and at each pair of images (how one predicts
the other), and asks a small linear classifier, whose weights `scripts/learn_contrast.py` learned and `contrast.json`
holds, whether other names would fit much better. No statistic depends on the scale or the offset of the intensities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.contrast_statistics import GRAIN, NAMES, PAIRS, Mask, Statistics, Triple, Vector, statistics


@dataclass(frozen=True)
class Finding:
    """An image that does not look like what it is called.

    Attributes:
        name: What it was given as.
        looks_like: What it resembles.
        score: How much better the other names fit, in natural logarithms of the odds.
    """

    name: str
    looks_like: str
    score: float

    @property
    def message(self) -> str:
        """One line for the user."""
        if (self.name, self.looks_like) == ("t1c", "t1"):
            return "t1c looks like t1: no contrast enhancement is to be seen; check the files."
        return f"{self.name} looks like {self.looks_like}: check the files."


@dataclass(frozen=True)
class Classifier:
    """A linear classifier: log odds are weights times standardised statistics.

    Attributes:
        mean, spread: Of each statistic over all that was learned from, (F,).
        weights: (classes, 1 + F), the constant first.
    """

    mean: Vector
    spread: Vector
    weights: Vector

    def standardised(self, values: Vector) -> Vector:
        """Return the statistics (..., F) in spreads from the mean, cut at 4."""
        return np.asarray(np.clip((values - self.mean) / self.spread, -4, 4))

    def log_probabilities(self, values: Vector) -> Vector:
        """Return the logarithm of each class's probability (..., classes) of statistics (..., F)."""
        logits = self.weights[:, 0] + self.standardised(values) @ self.weights[:, 1:].T
        logits -= logits.max(axis=-1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Learned:
    """What `contrast.json` holds.

    Attributes:
        image: Classifier of one image, classes as NAMES.
        pair: Classifier of a pair, classes as PAIRS, of the statistics of (a, b) and (b, a) one behind the other.
        centre, width: Mean and spread of each statistic in each contrast, (4, F).
        most_strange: How many statistics of an image that may be of a contrast can be strange to it.
        grainiest: The largest of the statistic GRAIN that was learned from; what exceeds it is noise and not judged.
        margin: How much better other names must fit, by the number of images.
    """

    image: Classifier
    pair: Classifier
    centre: Vector
    width: Vector
    most_strange: int
    grainiest: float
    margin: tuple[float, ...]

    @staticmethod
    def from_json(text: str) -> Learned:
        """Return what a JSON text holds. Raises: KeyError, TypeError or ValueError for another text."""
        fields: dict[str, Any] = json.loads(text)
        image, pair = (
            Classifier(*(np.asarray(fields[kind][part], np.float64) for part in ("mean", "spread", "weights")))
            for kind in ("image", "pair")
        )
        centre, width = (np.asarray(fields[part], np.float64) for part in ("centre", "width"))
        strange, grain = int(fields["most_strange"]), float(fields["grainiest"])
        return Learned(image, pair, centre, width, strange, grain, tuple(fields["margin"]))

    def may_be(self, values: Vector, name: str) -> bool:
        """Return whether an image with the statistics (F,) can be of a contrast at all.

        A statistic is strange that is more than 3 widths from the contrast's centre: of patients held out 99 of 100
        images have at most 11, a ball that darkens outwards has 16 and more, to any contrast.
        """
        index = NAMES.index(name)
        strange = np.count_nonzero(np.abs(values - self.centre[index]) > 3 * self.width[index])
        return bool(strange <= self.most_strange and values[GRAIN] <= self.grainiest)


@cache
def learned() -> Learned:
    """Return what came with the package."""
    return Learned.from_json(resources.files(__package__).joinpath("contrast.json").read_text("utf-8"))


def implausible(
    images: Mapping[str, npt.NDArray[np.float32]], masks: Mapping[str, Mask], spacing_mm: Triple
) -> list[Finding]:
    """Return the images that look like another contrast than their name says; none if that cannot be told.

    Args:
        images: (D, H, W) on canonical axes (head up, back, left: growing LPS), one grid; other names than NAMES
            are not looked at.
        masks: Where each image has brain, (D, H, W).
        spacing_mm: (z, y, x).
    """
    return judge(statistics(images, masks, spacing_mm), learned())


def judge(found: Statistics, model: Learned) -> list[Finding]:
    """Return the images that other names fit better by the margin, if they are like something that was learned."""
    names = tuple(found.images)
    if not names:
        return []
    fit = fits(found, model)
    best = max(fit, key=lambda labels: fit[labels])
    score = fit[best] - fit[names]
    if score <= model.margin[len(names) - 1]:
        return []
    other = {name: label for name, label in zip(names, best, strict=True) if name != label}
    if not all(model.may_be(found.images[name], label) for name, label in other.items()):
        return []
    return [Finding(name, label, score) for name, label in other.items()]


def fits(found: Statistics, model: Learned) -> dict[tuple[str, ...], float]:
    """Return how well all ways to name the images fit: names, in the order of the images, to the log of the odds.

    An image alone counts as much as the mean of its pairs, of which no two are independent.
    """
    names = tuple(found.images)
    alone = [model.image.log_probabilities(values) for values in found.images.values()]
    pairs = {
        (i, j): model.pair.log_probabilities(np.concatenate([found.pairs[a, b], found.pairs[b, a]]))
        for (i, a), (j, b) in combinations(enumerate(names), 2)
    }
    fit = {}
    for labels in permutations(NAMES, len(names)):
        score = sum(float(odds[NAMES.index(label)]) for odds, label in zip(alone, labels, strict=True))
        for (i, j), odds in pairs.items():
            score += float(odds[PAIRS.index((labels[i], labels[j]))]) / (len(names) - 1)
        fit[labels] = score
    return fit
