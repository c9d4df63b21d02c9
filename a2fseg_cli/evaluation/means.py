"""Means of scores over patients and over subsets, and which scores a policy decided."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row
from a2fseg_cli.evaluation.statistics import summarise

Means = dict[str, dict[str, float]]


def subsets_of(results: Sequence[PatientScores], modalities: Sequence[str]) -> list[str]:
    """Return the names of the subsets that were scored, in the row order of the literature."""
    names = dict.fromkeys(row.subset for result in results for row in result.rows)
    weight = {m: 2**place for place, m in enumerate(reversed(modalities))}
    return sorted(names, key=lambda name: sum(weight.get(m, 0) for m in name.split("+")))


def patients_of_subsets(results: Sequence[PatientScores], modalities: Sequence[str]) -> dict[str, int]:
    """Return how many patients were scored from each subset: those that have its modalities."""
    return {
        subset: sum(any(row.subset == subset for row in result.rows) for result in results)
        for subset in subsets_of(results, modalities)
    }


def rows_with(results: Sequence[PatientScores], subset: str, region: str, key: str) -> Iterator[Row]:
    """Yield the row of every patient that has this score of this subset and region."""
    for result in results:
        for row in result.rows:
            if row.subset == subset and row.region == region and key in row.values:
                yield row


def values_of(results: Sequence[PatientScores], subset: str, region: str, key: str) -> list[float]:
    """Return one score of every patient that has this subset; NaN where undefined."""
    return [row.values[key] for row in rows_with(results, subset, region, key)]


def values_of_masks(results: Sequence[PatientScores], subset: str, region: str, key: str) -> list[float]:
    """Return `values_of` without the patients whose score the policy's convention for an empty region decided."""
    return [row.values[key] for row in rows_with(results, subset, region, key) if not by_convention(row, key)]


def count_by_convention(results: Sequence[PatientScores], subset: str, region: str, key: str) -> int:
    """Return of how many patients the policy's convention for an empty region decided a score that is defined."""
    rows = rows_with(results, subset, region, key)
    return sum(by_convention(row, key) and not math.isnan(row.values[key]) for row in rows)


def by_convention(row: Row, key: str) -> bool:
    """Return whether the policy's convention for an empty region, not the masks, decided a score.

    A distance needs both surfaces. Dice and surface Dice need a true region: without one any voxel makes them 0. Where
    only the prediction is empty, their 0 is no convention but a region that was missed.
    """
    if key in ("volume_ml", "reference_volume_ml"):
        return False
    if key in ("dice", "nsd", "sensitivity"):
        return row.counts["reference_voxels"] == 0
    if key == "precision":
        return row.counts["predicted_voxels"] == 0
    if key.startswith("lesionwise"):  # a missed or invented lesion has its score by definition
        return row.convention == "both_empty"
    return bool(row.convention)


def missed_altogether(row: Row, key: str) -> bool:
    """Return whether a share is 0 because nothing was predicted where there is something."""
    return key in ("dice", "nsd") and row.convention == "one_empty" and row.counts["reference_voxels"] > 0


def subset_means(results: Sequence[PatientScores], config: ModelConfig, key: str = "dice") -> Means:
    """Return `{subset: {region: mean over patients}}`, e.g. Dice from 0 to 1; NaN where none is defined.

    This is what a weights card keeps as `card["scores"]["subsets"]`.
    """
    return {
        subset: {region: summarise(values_of(results, subset, region, key)).mean for region, _ in config.regions}
        for subset in subsets_of(results, config.modalities)
    }


def subset_means_of_masks(results: Sequence[PatientScores], config: ModelConfig, key: str = "dice") -> Means:
    """Return `subset_means` without the patients whose score the convention for an empty region decided."""
    return {
        subset: {region: summarise(values_of_masks(results, subset, region, key)).mean for region, _ in config.regions}
        for subset in subsets_of(results, config.modalities)
    }


def mean_of_subsets(means: Means, region: str) -> float:
    """Return the plain mean of the subset means, as the paper's last line; NaN where none is defined."""
    return summarise([row[region] for row in means.values()]).mean


def dice_of_patients(results: Sequence[PatientScores], config: ModelConfig) -> dict[str, dict[str, list[float]]]:
    """Return `{subset: {region: Dice of every patient}}`, for the box plots."""
    return {
        subset: {region: values_of(results, subset, region, "dice") for region, _ in config.regions}
        for subset in subsets_of(results, config.modalities)
    }


def attention_means(results: Sequence[PatientScores], config: ModelConfig) -> dict[str, dict[str, tuple[float, float]]]:
    """Return class to modality to (mean, standard deviation) over patients of the attention inside the class.

    Every patient that has the class weighs the same. Classes are in reverse order: ET, ED, NCR as in Figure 3
    of the paper.
    """
    means: dict[str, dict[str, tuple[float, float]]] = {}
    for name in reversed(config.classes[1:]):
        rows = [result.attention[name] for result in results if name in result.attention]
        if rows:
            over_patients = {m: summarise([row[m] for row in rows]) for m in rows[0]}
            means[name] = {m: (of.mean, of.standard_deviation) for m, of in over_patients.items()}
    return means
