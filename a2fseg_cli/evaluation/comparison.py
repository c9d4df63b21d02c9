"""Methods side by side: means of each, and which of their differences can be told from chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.means import subsets_of
from a2fseg_cli.evaluation.metrics import NSD_TOLERANCE_MM
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.significance import LEVEL, holm, sign_flip_ps, smallest_p
from a2fseg_cli.evaluation.statistics import bootstrap_interval, bootstrap_interval_of_means

FloatArray = npt.NDArray[np.float64]

MEANS = "means"  # the row of the means over subsets
HIGHER = ("dice", "nsd", "lesionwise_dice", "sensitivity", "precision")
LOWER = ("hd95_mm", "lesionwise_hd95_mm", "ece")


@dataclass(frozen=True)
class Difference:
    """The difference of two methods in one score, of one region and subset, over patients.

    Attributes:
        key: Of the score.
        subset: Or `means`, of the means over the subsets.
        region: Such as WT.
        first: The method it is subtracted from.
        second: The method that is subtracted.
        mean: Of the patients' differences, in the score's unit (Dice 0 to 1); NaN where there is none.
        low: Lower end of its 95 % interval, by drawing patients with replacement.
        high: Upper end.
        p: Of the paired sign-flip test, two-sided.
        p_corrected: The same after Holm's correction for all pairs of methods and all regions: of the means over
            subsets for these alone, of single subsets for all of these. NaN where nothing was tested.
        patients: Who have both scores.
    """

    key: str
    subset: str
    region: str
    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float
    p_corrected: float
    patients: int

    @property
    def told_apart(self) -> bool:
        """Whether the two differ by more than chance at 5 %."""
        return self.p_corrected < LEVEL

    def turned(self) -> Difference:
        """Return the difference the other way round."""
        return replace(self, first=self.second, second=self.first, mean=-self.mean, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class Comparison:
    """The scores of several methods on the same patients.

    A score that one method has and another has not (policy `nan`: HD95 where only one predicts something) is left out
    for all: else the method that misses the hardest patients would have the best mean. A method without a single score
    in a row, of which there is nothing to compare, takes none from the others; the means over subsets are then over
    those of which all methods have scores.

    Attributes:
        methods: Name to the scores of its patients; the same patients in the same order, each with the same subsets.
        config: Sequences and regions.
        nsd_tolerance_mm: With which the normalised surface Dice was computed.
    """

    methods: Mapping[str, Sequence[PatientScores]]
    config: ModelConfig
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM

    @property
    def names(self) -> list[str]:
        """The methods, in the order given."""
        return list(self.methods)

    @property
    def patients(self) -> list[str]:
        """The patients, in order."""
        return [scores.case for scores in next(iter(self.methods.values()))]

    @property
    def regions(self) -> list[str]:
        """The regions, in order."""
        return [region for region, _ in self.config.regions]

    @cached_property
    def subsets(self) -> list[str]:
        """The subsets, in the row order of the literature."""
        every = [scores for patients in self.methods.values() for scores in patients]
        return subsets_of(every, self.config.modalities)

    @property
    def subsets_of_patients(self) -> list[int]:
        """How many subsets were scored of each patient."""
        first = next(iter(self.methods.values()))
        return [len({row.subset for row in scores.rows}) for scores in first]

    @property
    def rows(self) -> list[str]:
        """The rows of a table: the subsets and, of several, their means."""
        return [*self.subsets, *([MEANS] if len(self.subsets) > 1 else [])]

    def values(self, method: str, key: str, region: str) -> FloatArray:
        """Return one score (S, P) by subset and patient; NaN where a method or the patient's files have none."""
        return np.asarray(self._compared(key, region)[self.names.index(method)], np.float64)

    def _compared(self, key: str, region: str) -> FloatArray:
        """Return the scores (methods, S, P) that all methods have."""
        if (key, region) not in self._stacks:
            nothing = np.full((len(self.subsets), len(self.patients)), np.nan)
            scores = np.stack([self._arrays.get((name, key, region), nothing) for name in self.names])
            there = ~np.isnan(scores)
            shared = (there | ~there.any(axis=2, keepdims=True)).all(axis=0)
            self._stacks[key, region] = np.where(shared, scores, np.nan)
        return self._stacks[key, region]

    @cached_property
    def _stacks(self) -> dict[tuple[str, str], FloatArray]:
        return {}

    @cached_property
    def _arrays(self) -> dict[tuple[str, str, str], FloatArray]:
        places = {subset: index for index, subset in enumerate(self.subsets)}
        arrays: dict[tuple[str, str, str], FloatArray] = {}
        for method, every in self.methods.items():
            for patient, scores in enumerate(every):
                for row in scores.rows:
                    for key, value in row.values.items():
                        where = (method, key, row.region)
                        if where not in arrays:
                            arrays[where] = np.full((len(places), len(every)), np.nan)
                        arrays[where][places[row.subset], patient] = value
        return arrays

    def mean(self, method: str, key: str, row: str, region: str) -> float:
        """Return the mean over patients of a subset, or the mean of these means; NaN where none is defined."""
        return _mean(self.patient_values(method, key, row, region))

    def interval(self, method: str, key: str, row: str, region: str) -> tuple[float, float]:
        """Return the 95 % interval of `mean`, by drawing patients with replacement."""
        if row == MEANS:
            return bootstrap_interval_of_means(self._of_means(method, key, region))
        return bootstrap_interval(self.patient_values(method, key, row, region))

    def patient_values(self, method: str, key: str, row: str, region: str) -> FloatArray:
        """Return the patients' scores (P,) of a subset, or what each adds to the mean of the subsets' means."""
        if row == MEANS:
            return contributions(self._of_means(method, key, region))
        return np.asarray(self.values(method, key, region)[self.subsets.index(row)])

    def _of_means(self, method: str, key: str, region: str) -> FloatArray:
        """Return `values` of the subsets (S, P) of which all methods have some, but those that have none at all."""
        has = np.any(~np.isnan(self._compared(key, region)), axis=2)  # (methods, S)
        shared = np.asarray(np.all(has[np.any(has, axis=1)], axis=0))
        return np.where(shared[:, None], self.values(method, key, region), np.nan)

    def defined(self, method: str, key: str, region: str) -> int:
        """Return how many scores of a method are defined, of all subsets and patients, whether all have them or not."""
        every = self._arrays.get((method, key, region), np.array([]))
        return int(np.count_nonzero(~np.isnan(every)))

    def counts(self) -> dict[str, int]:
        """Return how many patients have the sequences of each subset."""
        first = next(iter(self.methods.values()))
        return {s: sum(any(row.subset == s for row in scores.rows) for scores in first) for s in self.subsets}

    def scored(self, key: str, region: str) -> dict[str, int]:
        """Return of how many patients the means of each subset are: who have its sequences and this score."""
        patients = np.any(~np.isnan(self._compared(key, region)), axis=0).sum(axis=1)
        return {subset: int(count) for subset, count in zip(self.subsets, patients, strict=True)}

    def best(self, key: str, row: str, region: str) -> str:
        """Return the method with the best mean; empty for a score that has no better and worse, or without any."""
        means = {name: self.mean(name, key, row, region) for name in self.names}
        means = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        if not means or key not in (*HIGHER, *LOWER):
            return ""
        return (max if key in HIGHER else min)(means, key=lambda name: means[name])

    def leaders(self, key: str, row: str, region: str) -> list[str]:
        """Return the method with the best mean and those whose mean is the same but for rounding."""
        if not (best := self.best(key, row, region)):
            return []
        mean = self.mean(best, key, row, region)
        return [name for name in self.names if math.isclose(self.mean(name, key, row, region), mean, rel_tol=1e-12)]

    def differences(self, key: str) -> list[Difference]:
        """Return the differences of all pairs, by region and row; none for a score without better and worse."""
        if key not in (*HIGHER, *LOWER):
            return []
        every: list[Difference] = []
        for region in self.regions:
            arrays = {name: self.values(name, key, region) for name in self.names}
            of_means = {name: self._of_means(name, key, region) for name in self.names}
            values: dict[tuple[str, str, str], FloatArray] = {}
            for pair in itertools.combinations(self.names, 2):
                between = arrays[pair[0]] - arrays[pair[1]]
                values |= {(subset, *pair): row[None] for subset, row in zip(self.subsets, between, strict=True)}
                if len(self.subsets) > 1:
                    values[MEANS, *pair] = of_means[pair[0]] - of_means[pair[1]]
            every += _differences(key, region, values)
        families = ([d for d in every if d.subset != MEANS], [d for d in every if d.subset == MEANS])
        return [difference for family in families for difference in _corrected(family)]


def contributions(values: FloatArray) -> FloatArray:
    """Return what each patient adds to the mean over subsets of the mean over patients.

    Args:
        values: (S, P) scores or differences by subset and patient; NaN where there is none.

    Returns:
        (P,), whose mean over the patients that are not NaN is the mean of the subsets' means. Where every patient has
        every subset, it is the patient's mean over the subsets.
    """
    there = ~np.isnan(values)
    patients = there.sum(axis=1, keepdims=True)
    subsets, some = np.count_nonzero(patients), there.any(axis=0)
    if not subsets:
        return np.full(values.shape[1], np.nan)
    shares = np.where(there, values, 0.0) / np.maximum(patients, 1)
    return np.where(some, shares.sum(axis=0) / subsets * np.count_nonzero(some), np.nan)


def smallest_corrected_p(differences: Sequence[Difference]) -> float:
    """Return the smallest corrected p that so many patients and comparisons can give; NaN without any comparison."""
    tested = [difference for difference in differences if not math.isnan(difference.p)]
    if not tested:
        return math.nan
    return min(1.0, len(tested) * smallest_p(max(difference.patients for difference in tested)))


def _differences(key: str, region: str, values: Mapping[tuple[str, str, str], FloatArray]) -> list[Difference]:
    """Return the differences, not corrected yet, of (subset, first, second) to each subset's and patient's (S, P)."""
    adding = [contributions(between) for between in values.values()]
    tested = sign_flip_ps(np.array(adding)) if values else []
    return [
        Difference(
            key, subset, region, first, second, _mean(of_patients), *bootstrap_interval_of_means(between), p, math.nan,
            int(np.count_nonzero(~np.isnan(of_patients))),
        )
        for ((subset, first, second), between), of_patients, p in zip(values.items(), adding, tested, strict=True)
    ]  # fmt: skip


def _corrected(differences: Sequence[Difference]) -> list[Difference]:
    corrected = holm([difference.p for difference in differences])
    return [replace(difference, p_corrected=p) for difference, p in zip(differences, corrected, strict=True)]


def _mean(values: FloatArray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
