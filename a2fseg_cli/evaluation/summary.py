"""All scores of a cohort as plain values, for JSON and for the card of the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.kinds import card_kinds
from a2fseg_cli.evaluation.means import (
    attention_means,
    count_by_convention,
    mean_of_subsets,
    patients_of_subsets,
    subset_means,
    subset_means_of_masks,
    subsets_of,
    values_of,
    values_of_masks,
)
from a2fseg_cli.evaluation.metrics import HD95_DEFINITIONS, METRICS, POLICIES, metric_definition, score_keys
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.statistics import bootstrap_interval, summarise


def summary(
    results: Sequence[PatientScores],
    failed: Mapping[str, str],
    config: ModelConfig,
    metrics: Sequence[str],
    policy: str,
    origin: Mapping[str, Any],
    share: str = "",
) -> dict[str, Any]:
    """Return everything a report needs as plain values; NaN where undefined.

    Args:
        results: Scores of the patients.
        failed: Reason of every patient without scores.
        config: Modalities and regions.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        origin: What made the predictions: weights, device, versions.
        share: Of a cohort that several processes share: how many patients these are, and what shared them out.
    """
    regions = [region for region, _ in config.regions]
    keys = score_keys(metrics)
    means = {key: subset_means(results, config, key) for key in keys}
    means_of_masks = {key: subset_means_of_masks(results, config, key) for key in keys}
    return {
        "policy": policy,
        "definition": metric_definition(policy, metrics),
        "hd95_definition": HD95_DEFINITIONS[POLICIES[policy].hd95],
        "metrics": {metric: METRICS[metric].definition for metric in metrics},
        **origin,
        "patients": {
            "scored": [result.case for result in results],
            "failed": dict(failed),
            "missing_predictions": [result.case for result in results if result.missing],
            "left_out_of_subsets": Counter(name for result in results for name in result.left_out),
            **({"share": share} if share else {}),
        },
        "scores": {
            subset: {
                region: {key: _statistics(results, subset, region, key) for key in keys}
                | {"decided_by_convention": _conventions(results, subset, region)}
                for region in regions
            }
            for subset in subsets_of(results, config.modalities)
        },
        "means_of_subset_means": {
            region: {key: mean_of_subsets(means[key], region) for key in keys} for region in regions
        },
        "means_of_subset_means_without_convention": {
            region: {key: mean_of_subsets(means_of_masks[key], region) for key in keys} for region in regions
        },
        "attention": {
            name: {m: {"mean": mean, "standard_deviation": sd} for m, (mean, sd) in row.items()}
            for name, row in attention_means(results, config).items()
        },
    }


def card_scores(
    results: Sequence[PatientScores], config: ModelConfig, policy: str, kinds: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a weights card says of its scores.

    Mean Dice (0 to 1) a subset and region, the 95 % bootstrap intervals of these means, the means of each kind of
    patient, the number of patients in all and of each subset, the policy.

    Args:
        results: Scores of the patients.
        config: Modalities and regions.
        policy: Under which the scores were computed.
        kinds: Case to kind of patient, beside those that the truth gives.
    """
    regions = [region for region, _ in config.regions]
    return {
        "metric": "dice",
        "subsets": subset_means(results, config),
        "intervals_95": {
            subset: {r: list(bootstrap_interval(values_of(results, subset, r, "dice"))) for r in regions}
            for subset in subsets_of(results, config.modalities)
        },
        "kinds": card_kinds(results, config, kinds or {}),
        "patients": len(results),
        "patients_of_subsets": patients_of_subsets(results, config.modalities),
        "policy": policy,
    }


def _statistics(results: Sequence[PatientScores], subset: str, region: str, key: str) -> dict[str, Any]:
    values = values_of(results, subset, region, key)
    return vars(summarise(values)) | {
        "mean_interval_95": bootstrap_interval(values),
        "n_by_convention": count_by_convention(results, subset, region, key),
        "mean_without_convention": summarise(values_of_masks(results, subset, region, key)).mean,
    }


def _conventions(results: Sequence[PatientScores], subset: str, region: str) -> dict[str, int]:
    kinds = [row.convention for r in results for row in r.rows if row.subset == subset and row.region == region]
    return {kind: kinds.count(kind) for kind in ("both_empty", "one_empty")}
