"""Whether label maps of another tool would fit the truth far better with some of their labels exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.patient_scores import PatientScores

Counts = npt.NDArray[np.int64]

# By so much the Dice of every class that changes its place has to rise. On 150 predictions of the bundled weights (15
# subsets of 10 validation patients) no exchange raised all of its classes by more than 0.014 in one patient, and none
# did in all 10 together. With two labels exchanged in the predictions from subsets with T1c, changing them back raised
# both by 0.36 and more in all together; of single patients and all subsets, 37 to 63 % are noticed.
LEAST_GAIN = 0.1
MOST_PERMUTED = 4  # classes whose every order is tried; of more, only pairs change places


@dataclass(frozen=True)
class Exchange:
    """An order of the labels in which predictions fit better.

    Attributes:
        classes: Names of the classes that change places.
        region: The region that gains most.
        dice: Its mean Dice, 0 to 1, over the patients, as the labels were read.
        dice_exchanged: The same with the labels exchanged.
    """

    classes: tuple[str, ...]
    region: str
    dice: float
    dice_exchanged: float

    def __str__(self) -> str:
        """Return the warning."""
        return (
            f"the predictions fit far better with the labels of {' and '.join(self.classes)} exchanged: mean Dice of "
            f"{self.region} {100 * self.dice_exchanged:.1f} % instead of {100 * self.dice:.1f} %. Are the labels in "
            "another order? Say it by prediction_labels, such as NCR=2,ED=1,ET=3."
        )


def better_exchange(patients: Sequence[PatientScores], config: ModelConfig) -> Exchange | None:
    """Return the order of the labels in which the predictions of a cohort fit far better, None where there is none.

    Every class that changes its place has to fit better. So a core that a prediction calls enhancing and the truth
    necrotic, which exchanged labels would seem to mend, is no sign: the other class does not gain.

    Args:
        patients: Scores of files; those of a network have no confusion and say nothing.
        config: Classes and regions.
    """
    confusions = [np.array(scores.confusion, np.int64) for scores in patients if scores.confusion]
    if not confusions:
        return None
    total = np.sum(confusions, axis=0)
    before = _class_dice(total)
    best, most = None, LEAST_GAIN
    for order in _orders(len(config.classes)):
        moved = [k for k, place in enumerate(order) if place != k]
        gain = float((_class_dice(_exchanged(total, order)) - before)[moved].min())
        if gain >= most:
            best, most = order, gain
    if best is None:
        return None
    names = tuple(name for k, name in enumerate(config.classes) if best[k] != k)
    changed = [_exchanged(confusion, best) for confusion in confusions]
    figures = {r: (_mean_dice(confusions, config, r), _mean_dice(changed, config, r)) for r, _ in config.regions}
    region = max(figures, key=lambda name: figures[name][1] - figures[name][0])
    return Exchange(names, region, *figures[region])


def _orders(classes: int) -> Iterator[tuple[int, ...]]:
    """Yield every order of the classes, background first, in which some change places."""
    foreground = range(1, classes)
    if classes - 1 <= MOST_PERMUTED:
        yield from ((0, *order) for order in itertools.permutations(foreground) if order != tuple(foreground))
        return
    for a, b in itertools.combinations(foreground, 2):
        yield tuple({a: b, b: a}.get(k, k) for k in range(classes))


def _exchanged(confusion: Counts, order: Sequence[int]) -> Counts:
    """Return the confusion (true, predicted) as if predicted class k had been read as `order[k]`."""
    exchanged = np.empty_like(confusion)
    exchanged[:, list(order)] = confusion
    return exchanged


def _class_dice(confusion: Counts) -> npt.NDArray[np.float64]:
    """Return the Dice of each class; 0 where neither has a voxel, for nothing can be gained there."""
    sizes = confusion.sum(axis=0) + confusion.sum(axis=1)
    dice: npt.NDArray[np.float64] = 2 * np.diag(confusion) / np.maximum(sizes, 1)
    return dice


def _mean_dice(confusions: Sequence[Counts], config: ModelConfig, region: str) -> float:
    """Return the mean Dice of a region over the patients where truth or prediction has it; 0 where none has."""
    members = np.array(config.region_classes(region))
    dice = []
    for confusion in confusions:
        size = confusion[members].sum() + confusion[:, members].sum()
        if size:
            dice.append(2 * confusion[np.ix_(members, members)].sum() / size)
    return float(np.mean(dice)) if dice else 0.0
