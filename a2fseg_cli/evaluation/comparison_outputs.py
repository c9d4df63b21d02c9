"""What a comparison writes: tables, the means and differences as CSV and plain values, and a forest plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fseg_cli.evaluation.comparison import Comparison, Difference
from a2fseg_cli.evaluation.formats import latex, markdown
from a2fseg_cli.evaluation.method_tables import to_the_best
from a2fseg_cli.evaluation.metrics import METRICS, metric_definition, score_keys
from a2fseg_cli.evaluation.tables import Table, scale_of, title_of
from a2fseg_cli.files import atomic_write_text, csv_text, json_text
from a2fseg_cli.reporting.forest import Interval, write_forest
from a2fseg_cli.versions import versions


def plain_values(
    comparison: Comparison,
    differences: Sequence[Difference],
    metrics: Sequence[str],
    policy: str,
    origins: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Return all of a comparison as plain values, NaN where undefined.

    Args:
        comparison: The scores.
        differences: Of all pairs.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        origins: Of each method what made its masks.
        failed: `CASE (METHOD)` to why it could not be scored.
    """
    return {
        "policy": policy,
        "definition": metric_definition(policy, metrics),
        "metrics": {metric: METRICS[metric].definition for metric in metrics},
        "nsd_tolerance_mm": comparison.nsd_tolerance_mm,
        "versions": versions(),
        "patients": {"compared": comparison.patients, "failed": dict(failed)},
        "methods": {
            name: {
                **origins.get(name, {}),
                "means": {
                    row: {
                        region: {key: comparison.mean(name, key, row, region) for key in score_keys(metrics)}
                        for region in comparison.regions
                    }
                    for row in comparison.rows
                },
            }
            for name in comparison.names
        },
        "differences": [_line(difference) for difference in differences],
    }


def write_comparison(
    folder: Path,
    comparison: Comparison,
    differences: Sequence[Difference],
    tables: Sequence[Table],
    summary: Mapping[str, Any],
) -> list[Path]:
    """Write tables, CSV, JSON and the forest plot; return the files. Raises: ResourceError."""
    definition, keys = summary["definition"], score_keys(summary["metrics"])
    texts = {
        "comparison.md": markdown(tables, definition),
        "comparison.tex": latex(tables, definition),
        "comparison.csv": csv_text(mean_rows(comparison, differences, keys)),
        "differences.csv": csv_text([_plain(_line(difference)) for difference in differences]),
        "comparison.json": json_text(summary),
    }
    if not differences:
        del texts["differences.csv"]
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    files = [folder / name for name in texts]
    for key in dict.fromkeys(difference.key for difference in differences):
        files.append(folder / f"forest_{key}.png")
        _write_forest(files[-1], comparison, differences, key)
    return files


def _write_forest(path: Path, comparison: Comparison, differences: Sequence[Difference], key: str) -> None:
    scale, row, title = scale_of(key), comparison.rows[-1], title_of(key, comparison.nsd_tolerance_mm)
    panels = {
        region: {
            of.first: Interval(scale * of.mean, scale * of.low, scale * of.high, of.told_apart)
            for of in to_the_best(comparison, differences, key, region)
        }
        for region in comparison.regions
    }
    best = {region: comparison.best(key, row, region) for region in comparison.regions}
    write_forest(path, panels, best, f"difference to the best, {title}; grey: not told from it by the test")


def mean_rows(comparison: Comparison, differences: Sequence[Difference], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return a line for each method, subset, region and score: its mean, interval, and how it stands to the best."""
    told = {
        (difference.key, difference.subset, difference.region, first, second): _standing(difference)
        for difference in differences
        for first, second in ((difference.first, difference.second), (difference.second, difference.first))
    }
    lines = []
    for key in keys:
        for region in comparison.regions:
            for row in comparison.rows:
                best, leaders = comparison.best(key, row, region), comparison.leaders(key, row, region)
                for name in comparison.names:
                    values = comparison.patient_values(name, key, row, region)
                    low, high = comparison.interval(name, key, row, region)
                    standing = "best" if name in leaders else told.get((key, row, region, name, best), "")
                    line = {
                        "method": name,
                        "subset": row,
                        "region": region,
                        "score": key,
                        "mean": comparison.mean(name, key, row, region),
                        "low": low,
                        "high": high,
                        "patients": sum(not math.isnan(value) for value in values),
                        "to_the_best": standing,
                    }
                    lines.append(_plain(line))
    return lines


def _line(difference: Difference) -> dict[str, Any]:
    values = vars(difference) | {"told_apart": difference.told_apart}
    return {"score": values.pop("key"), **values}


def _standing(difference: Difference) -> str:
    return "" if math.isnan(difference.p) else "told apart" if difference.told_apart else "not told apart"


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {k: "" if isinstance(value, float) and math.isnan(value) else value for k, value in line.items()}
