"""Tables and summaries of scores: the paper's table, the comparison with it, and all of it as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.metrics import HD95_DEFINITIONS, METRICS, NSD_TOLERANCE_MM, POLICIES, metric_definition
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS, PatientScores, Row
from a2fseg_cli.evaluation.published import METHODS, REGIONS, TABLE_1, TABLE_1_MEANS
from a2fseg_cli.evaluation.statistics import bootstrap_interval, summarise
from a2fseg_cli.modalities import BRATS_MODALITIES, heading

PRESENT, ABSENT = "x", "-"
OTHER_PATIENTS = (
    "HeMIS to A2FSeg: the paper's Table 1, means over its authors' BraTS2020 test patients. Those are other patients "
    "than ours: the columns compare tables, not methods."
)
# Scores shown as a percentage, and what the others are called in a table's title.
_LENGTHS_AND_VOLUMES = {
    "hd95_mm": "HD95 in mm",
    "lesionwise_hd95_mm": "lesion-wise HD95 in mm",
    "volume_ml": "predicted volume in mL",
    "reference_volume_ml": "true volume in mL",
}
_RATIOS = {
    "dice": "Dice in %",
    "nsd": "normalised surface Dice in %",
    "lesionwise_dice": "lesion-wise Dice in %",
    "sensitivity": "sensitivity in %",
    "precision": "precision in %",
}

Means = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Table:
    """A table ready to print.

    Attributes:
        title: What the numbers are, of how many patients, under which policy.
        columns: Headings.
        rows: Cells, as many a row as there are columns; the last row holds the means where there are several.
        marks: Number of leading columns that are not numbers.
        notes: Lines to read with it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: int
    notes: tuple[str, ...] = ()


def score_keys(metrics: Iterable[str]) -> list[str]:
    """Return the keys of the scores that these metrics yield."""
    return [key for metric in metrics for key in METRICS[metric].score_keys]


def subsets_of(results: Sequence[PatientScores], modalities: Sequence[str]) -> list[str]:
    """Return the names of the subsets that were scored, in the row order of the literature."""
    found = dict.fromkeys(row.subset for result in results for row in result.rows)
    weight = {m: 2**place for place, m in enumerate(reversed(modalities))}
    return sorted(found, key=lambda name: sum(weight.get(m, 0) for m in name.split("+")))


def values_of(results: Sequence[PatientScores], subset: str, region: str, key: str) -> list[float]:
    """Return one score of every patient that has this subset; NaN where undefined."""
    return [
        row.values[key]
        for result in results
        for row in result.rows
        if row.subset == subset and row.region == region and key in row.values
    ]


def subset_means(results: Sequence[PatientScores], config: ModelConfig, key: str = "dice") -> Means:
    """Return `{subset: {region: mean over patients}}`, e.g. Dice from 0 to 1; NaN where none is defined.

    This is what a weights card keeps as `card["scores"]["subsets"]`.
    """
    return {
        subset: {region: summarise(values_of(results, subset, region, key)).mean for region, _ in config.regions}
        for subset in subsets_of(results, config.modalities)
    }


def dice_of_patients(results: Sequence[PatientScores], config: ModelConfig) -> dict[str, dict[str, list[float]]]:
    """Return `{subset: {region: Dice of every patient}}`, for the box plots."""
    return {
        subset: {region: values_of(results, subset, region, "dice") for region, _ in config.regions}
        for subset in subsets_of(results, config.modalities)
    }


def card_scores(results: Sequence[PatientScores], config: ModelConfig, policy: str) -> dict[str, Any]:
    """Return what a weights card says of its scores: mean Dice (0 to 1) a subset and region, patients, policy."""
    return {
        "metric": "dice",
        "subsets": subset_means(results, config),
        "patients": len(results),
        "policy": policy,
    }


def mean_of_subsets(means: Means, region: str) -> float:
    """Return the plain mean of the subset means, as the paper's last line; NaN where none is defined."""
    return summarise([row[region] for row in means.values()]).mean


def score_table(
    results: Sequence[PatientScores],
    config: ModelConfig,
    policy: str,
    key: str = "dice",
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
) -> Table:
    """Return the table of the paper for one score: a row a subset, a column a region, then the means.

    Args:
        results: Scores of the patients.
        config: Modalities and regions.
        policy: Under which the scores were computed.
        key: Which score; shares are given in per cent.
        nsd_tolerance_mm: With which the normalised surface Dice was computed.
    """
    means = subset_means(results, config, key)
    regions = [region for region, _ in config.regions]
    counts = {subset: sum(any(row.subset == subset for row in result.rows) for result in results) for subset in means}
    same = len(set(counts.values())) == 1
    marks = _marks(means, config)
    rows = []
    for subset, row in means.items():
        cells = [*_marked(subset, config), *(_number(row[region], key) for region in regions)]
        rows.append((*cells, *([] if same else [str(counts[subset])])))
    if len(means) > 1:
        cells = ["means", *[""] * (len(marks) - 1), *(_number(mean_of_subsets(means, r), key) for r in regions)]
        rows.append((*cells, *([] if same else [""])))
    n = " to ".join(str(count) for count in sorted({min(counts.values(), default=0), max(counts.values(), default=0)}))
    at = f" at {nsd_tolerance_mm:g} mm" if key == "nsd" else ""
    title = f"{title_of(key)}{at}, mean over patients, n = {n}, policy {policy}"
    columns = (*marks, *regions, *([] if same else ["n"]))
    return Table(title, columns, tuple(rows), len(marks), tuple(filter(None, [_decided(results, key)])))


def comparison_tables(results: Sequence[PatientScores], config: ModelConfig) -> list[Table]:
    """Return a table a region: our mean Dice beside the paper's Table 1, in %, a row a subset, then the means.

    The published means stand there only when all 15 subsets were scored. Other modalities than those of BraTS
    have nothing to be compared with: no table.
    """
    if config.modalities != BRATS_MODALITIES:
        return []
    means = subset_means(results, config, "dice")
    marks = _marks(means, config)
    tables = []
    for region in (region for region, _ in config.regions if region in REGIONS):
        rows = [
            (
                *_marked(subset, config),
                _number(row[region], "dice"),
                *(_percent(TABLE_1[method].get(subset, {}).get(region, math.nan)) for method in METHODS),
            )
            for subset, row in means.items()
        ]
        if set(means) == set(TABLE_1[METHODS[0]]):
            published = [_percent(TABLE_1_MEANS[method][region]) for method in METHODS]
            ours = _number(mean_of_subsets(means, region), "dice")
            rows.append(("means", *[""] * (len(marks) - 1), ours, *published))
        columns = (*marks, "ours", *METHODS)
        tables.append(Table(f"{region}, Dice in %", columns, tuple(rows), len(marks), (OTHER_PATIENTS,)))
    return tables


def _marks(means: Means, config: ModelConfig) -> list[str]:
    """Return the headings before the scores: the modalities, or one for files that were scored."""
    return ["scored"] if list(means) == [PREDICTIONS] else [heading(m) for m in config.modalities]


def _marked(subset: str, config: ModelConfig) -> list[str]:
    names = subset.split("+")
    return [subset] if subset == PREDICTIONS else [PRESENT if m in names else ABSENT for m in config.modalities]


def _decided(results: Sequence[PatientScores], key: str) -> str:
    """Return one line on the scores that the masks alone do not give, empty where there are none."""
    rows = [row for result in results for row in result.rows if key in row.values]
    defined = [row.convention for row in rows if _by_convention(row, key) and not math.isnan(row.values[key])]
    kinds = {
        "with both masks empty": defined.count("both_empty"),
        "with one empty": defined.count("one_empty"),
        "undefined and left out of the means": sum(math.isnan(row.values[key]) for row in rows),
    }
    said = [f"{count} {kind}" for kind, count in kinds.items() if count]
    return f"of {len(rows)} scores: {', '.join(said)}" if said else ""


def _by_convention(row: Row, key: str) -> bool:
    """Return whether the policy, not the masks, decided a score."""
    if key in ("volume_ml", "reference_volume_ml"):
        return False
    if key == "sensitivity":
        return row.counts["reference_voxels"] == 0
    if key == "precision":
        return row.counts["predicted_voxels"] == 0
    if key.startswith("lesionwise"):  # a missed or invented lesion has its score by definition
        return row.convention == "both_empty"
    return bool(row.convention)


def title_of(key: str) -> str:
    """Return what a score is called, with its unit."""
    return _RATIOS.get(key) or _LENGTHS_AND_VOLUMES.get(key, key)


def _number(value: float, key: str) -> str:
    return _percent(100 * value if key in _RATIOS else value)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def summary(
    results: Sequence[PatientScores],
    failed: Mapping[str, str],
    config: ModelConfig,
    metrics: Sequence[str],
    policy: str,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything a report needs as plain values; NaN where undefined.

    Args:
        results: Scores of the patients.
        failed: Reason of every patient without scores.
        config: Modalities and regions.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        origin: What made the predictions: weights, device, versions.
    """
    subsets = subsets_of(results, config.modalities)
    regions = [region for region, _ in config.regions]
    left_out: dict[str, int] = {}
    for result in results:
        for name in result.left_out:
            left_out[name] = left_out.get(name, 0) + 1
    keys = score_keys(metrics)
    return {
        "policy": policy,
        "definition": metric_definition(policy),
        "hd95_definition": HD95_DEFINITIONS[POLICIES[policy].hd95],
        "metrics": {metric: METRICS[metric].definition for metric in metrics},
        **origin,
        "patients": {
            "scored": [result.case for result in results],
            "failed": dict(failed),
            "missing_predictions": [result.case for result in results if result.missing],
            "left_out_of_subsets": left_out,
        },
        "scores": {
            subset: {
                region: {key: _statistics(results, subset, region, key) for key in keys}
                | {"decided_by_convention": _conventions(results, subset, region)}
                for region in regions
            }
            for subset in subsets
        },
        "means_of_subset_means": {
            region: {key: mean_of_subsets(subset_means(results, config, key), region) for key in keys}
            for region in regions
        },
        "attention": {
            name: {m: {"mean": mean, "standard_deviation": sd} for m, (mean, sd) in row.items()}
            for name, row in attention_means(results, config).items()
        },
    }


def _statistics(results: Sequence[PatientScores], subset: str, region: str, key: str) -> dict[str, Any]:
    values = values_of(results, subset, region, key)
    return vars(summarise(values)) | {"mean_interval_95": bootstrap_interval(values)}


def _conventions(results: Sequence[PatientScores], subset: str, region: str) -> dict[str, int]:
    found = [row.convention for r in results for row in r.rows if row.subset == subset and row.region == region]
    return {kind: found.count(kind) for kind in ("both_empty", "one_empty")}


def attention_means(results: Sequence[PatientScores], config: ModelConfig) -> dict[str, dict[str, tuple[float, float]]]:
    """Return class to modality to (mean, standard deviation) over patients of the attention inside the class.

    Every patient that has the class weighs the same. Classes are in reverse order: ET, ED, NCR as in Figure 3
    of the paper.
    """
    means: dict[str, dict[str, tuple[float, float]]] = {}
    for name in reversed(config.classes[1:]):
        rows = [result.attention[name] for result in results if name in result.attention]
        if rows:
            over = {m: summarise([row[m] for row in rows]) for m in rows[0]}
            means[name] = {m: (found.mean, found.standard_deviation) for m, found in over.items()}
    return means
