"""Scores by kind of patient: with and without each region in truth, and the kinds that a table gives."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.evaluation.means import mean_of_subsets, patients_of_subsets, subset_means
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.tables import Table

BY_TRUTH = "truth"  # what is asked for without a table of kinds
_COLUMNS = ("case", "kind")


def read_kinds(kinds: str | Path) -> dict[str, str]:
    """Return the kind of each patient: of a CSV with the columns case and kind; of `truth`, none.

    Raises:
        InputError: the table cannot be read, lacks a column or a kind, or names a patient twice.
    """
    if str(kinds) == BY_TRUTH:
        return {}
    path = Path(kinds)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [tuple((row.get(name) or "").strip() for name in _COLUMNS) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Expected a CSV, or {BY_TRUTH}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV table in UTF-8 ({error}).") from error
    if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
        raise InputError(f"{path}: no column {missing[0]}. Expected the columns {' and '.join(_COLUMNS)}.")
    found: dict[str, str] = {}
    for line, (case, kind) in enumerate(rows, start=2):
        if not case or not kind:
            raise InputError(f"{path}, line {line}: an empty cell. Expected a case and its kind.")
        if case in found:
            raise InputError(f"{path}, line {line}: case {case} stands in the table twice.")
        found[case] = kind
    return found


def patients_by_kind(
    results: Sequence[PatientScores], config: ModelConfig, given: Mapping[str, str]
) -> dict[str, list[PatientScores]]:
    """Return the patients of each kind: those of the table, then `with ET` and `without ET`, where there are both.

    Args:
        results: Scores of the patients.
        config: The regions.
        given: Case to kind; who is not in it has none.
    """
    kinds: dict[str, list[PatientScores]] = {kind: [] for kind in sorted(set(given.values()))}
    for result in results:
        if result.case in given:
            kinds[given[result.case]].append(result)
    for region, _ in config.regions:
        there = [any(r.region == region and r.counts["reference_voxels"] for r in result.rows) for result in results]
        if any(there) and not all(there):
            for name, wanted in ((f"with {region}", True), (f"without {region}", False)):
                kinds[name] = [result for result, has in zip(results, there, strict=True) if has is wanted]
    return {kind: patients for kind, patients in kinds.items() if patients}


def kinds_table(results: Sequence[PatientScores], config: ModelConfig, policy: str, given: Mapping[str, str]) -> Table:
    """Return a table of the mean Dice in % over the subsets, a row a kind of patient, all patients last."""
    kinds = patients_by_kind(results, config, given)
    rows = []
    for kind, patients in {**kinds, "all": list(results)}.items():
        means = subset_means(patients, config)
        dice = [mean_of_subsets(means, region) for region, _ in config.regions]
        rows.append((kind, str(len(patients)), *("" if d != d else f"{100 * d:.2f}" for d in dice)))
    count = len(subset_means(results, config))
    title = f"Dice in % by kind of patient, mean of {count} subset{'s' * (count != 1)}, policy {policy}"
    others = sum(result.case not in given for result in results) if given else 0
    note = f"{others} of {len(results)} patients are of no kind that the table names" if others else ""
    return Table(title, ("kind", "n", *(region for region, _ in config.regions)), tuple(rows), 1, (note,) * bool(note))


def card_kinds(
    results: Sequence[PatientScores], config: ModelConfig, given: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return what a weights card says of each kind: how many patients, and their mean Dice (0 to 1) by subset.

    A kind that all patients are of says nothing that their mean does not.
    """
    return {
        kind: {
            "patients": len(patients),
            "patients_of_subsets": patients_of_subsets(patients, config.modalities),
            "subsets": subset_means(patients, config),
        }
        for kind, patients in patients_by_kind(results, config, given).items()
        if len(patients) < len(results)
    }
