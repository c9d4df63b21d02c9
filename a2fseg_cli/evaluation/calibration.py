"""Do probabilities mean what they say? Of the voxels given 80 %, 80 % should lie in the region."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.patient_scores import PatientScores

BINS = 10
# Nearly all of a brain is surely no tumour: counted with the rest, it would make every network look calibrated.
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True)
class Reliability:
    """Voxels by the probability that they were given, in ten bins of equal width.

    Attributes:
        voxels: How many in each bin.
        probability: The sum of their probabilities.
        true: How many of them lie in the region.
    """

    voxels: tuple[int, ...]
    probability: tuple[float, ...]
    true: tuple[int, ...]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1; NaN without a voxel.

        The mean over the voxels of how far the share of true ones in their bin is from the mean probability there
        (Naeini et al., 2015).
        """
        gaps = (abs(true - probability) for true, probability in zip(self.true, self.probability, strict=True))
        return sum(gaps) / sum(self.voxels) if sum(self.voxels) else math.nan

    @property
    def points(self) -> list[tuple[float, float]]:
        """Mean probability and share of true voxels of each bin that holds voxels."""
        bins = zip(self.voxels, self.probability, self.true, strict=True)
        return [(probability / count, true / count) for count, probability, true in bins if count]


def reliability(probability: npt.NDArray[np.floating], true: npt.NDArray[np.bool_]) -> Reliability:
    """Return the bins of a region's probabilities; voxels of less than 1 % do not count.

    Args:
        probability: (d, h, w), 0 to 1.
        true: (d, h, w), the region as an expert sees it.
    """
    counted = probability >= LEAST_PROBABILITY
    given, hit = probability[counted].astype(np.float64), true[counted]
    index = np.minimum((given * BINS).astype(np.intp), BINS - 1)
    voxels, sums, hits = (np.bincount(index, weights, BINS) for weights in (None, given, hit))
    return Reliability(
        tuple(int(n) for n in voxels), tuple(round(float(s), 3) for s in sums), tuple(int(n) for n in hits)
    )


def pooled(parts: Iterable[Reliability]) -> Reliability:
    """Return the bins of several patients together."""
    rows = list(parts)
    return Reliability(
        tuple(map(sum, zip(*(row.voxels for row in rows), strict=True))) or (0,) * BINS,
        tuple(map(sum, zip(*(row.probability for row in rows), strict=True))) or (0.0,) * BINS,
        tuple(map(sum, zip(*(row.true for row in rows), strict=True))) or (0,) * BINS,
    )


def region_reliability(
    probabilities: npt.NDArray[np.float32], true_classes: npt.NDArray[np.uint8], config: ModelConfig
) -> dict[str, Reliability]:
    """Return the bins of each region.

    Args:
        probabilities: (classes, d, h, w), on the network's grid.
        true_classes: Class indices (d, h, w), on the same grid.
        config: Classes and regions.
    """
    return {
        region: reliability(probabilities[list(members)].sum(axis=0), np.isin(true_classes, members))
        for region, members in ((region, config.region_classes(region)) for region, _ in config.regions)
    }


def of_patients(patients: Sequence[PatientScores], config: ModelConfig) -> dict[str, dict[str, Reliability]]:
    """Return subset to region to the bins of all patients together, those that have some."""
    subsets = dict.fromkeys(row.subset for scores in patients for row in scores.rows if scores.reliability)
    return {
        subset: {
            region: pooled(
                _kept(scores.reliability[subset][region]) for scores in patients if subset in scores.reliability
            )
            for region, _ in config.regions
        }
        for subset in subsets
    }


def _kept(bins: Sequence[Sequence[float]]) -> Reliability:
    """Return the bins of a file of scores."""
    voxels, probability, true = bins
    return Reliability(tuple(map(int, voxels)), tuple(map(float, probability)), tuple(map(int, true)))


def reliability_rows(curves: Mapping[str, Mapping[str, Reliability]]) -> list[dict[str, object]]:
    """Return a row for each subset, region and bin that holds voxels, for a table."""
    return [
        {
            "subset": subset,
            "region": region,
            "from": index / BINS,
            "to": (index + 1) / BINS,
            "voxels": voxels,
            "mean_probability": round(bins.probability[index] / voxels, 4),
            "share_true": round(bins.true[index] / voxels, 4),
        }
        for subset, regions in curves.items()
        for region, bins in regions.items()
        for index, voxels in enumerate(bins.voxels)
        if voxels
    ]
